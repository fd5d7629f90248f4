package union

import (
	"bytes"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

var omit = layer.Time{Nsec: unix.UTIME_OMIT}

// SetAttr changes attributes of a node and returns them all.
func (fs *FS) SetAttr(n *Node, c Change) (Attr, error) {
	if fs.upper == nil {
		return Attr{}, unix.EROFS
	}
	if c.Size != nil {
		if err := fs.truncate(n, *c.Size); err != nil {
			return Attr{}, err
		}
	} else if err := fs.copyUp(n, wantMeta); err != nil {
		return Attr{}, err
	}
	if c.Mode != nil || c.UID != nil || c.GID != nil || c.Atime != nil || c.Mtime != nil || c.KillPriv {
		err := func() error {
			if c.Mtime != nil {
				defer fs.timesOf(n).Unlock()
			}
			return fs.onObject(n, func(o layer.Object) error { return applyChange(&c, o, n) })
		}()
		if err != nil {
			return Attr{}, err
		}
	}
	return fs.GetAttr(n)
}

// onObject does something to the object of a node that takes a handle; an open
// file serves as one.
func (fs *FS) onObject(n *Node, do func(layer.Object) error) error {
	if !n.has(stateMetacopy) {
		if h := n.file.acquire(); h != nil {
			defer h.release()
			return do(h.obj)
		}
	}
	return fs.withObject(n, objectOps{open: do, dir: func(d layer.Dir) error { return do(d) }})
}

func applyChange(c *Change, o layer.Object, n *Node) error {
	if c.UID != nil || c.GID != nil {
		uid, gid := -1, -1
		if c.UID != nil {
			uid = int(*c.UID)
		}
		if c.GID != nil {
			gid = int(*c.GID)
		}
		if err := o.Chown(uid, gid); err != nil {
			return err
		}
	}
	if c.Mode != nil {
		if n.typ == unix.S_IFLNK {
			return unix.EOPNOTSUPP
		}
		if err := o.Chmod(*c.Mode & 0o7777); err != nil {
			return err
		}
	} else if c.KillPriv {
		if err := killPriv(o); err != nil {
			return err
		}
	}
	if c.Atime == nil && c.Mtime == nil {
		return nil
	}
	at, mt := omit, omit
	if c.Atime != nil {
		at = *c.Atime
	}
	if c.Mtime != nil {
		mt = *c.Mtime
	}
	return o.SetTimes(at, mt)
}

// killPriv clears the bits that make a file run as someone else.
func killPriv(o layer.Object) error {
	st, err := o.Stat()
	if err != nil {
		return err
	}
	mode := st.Mode & 0o7777
	kept := mode &^ unix.S_ISUID
	if mode&unix.S_IXGRP != 0 {
		kept &^= unix.S_ISGID
	}
	if kept == mode || st.IsDir() {
		return nil
	}
	return o.Chmod(kept)
}

// keepPriv returns what puts the suid and sgid bits back that a write by a
// server without privileges takes away, although the writer may keep them or,
// through a mapping, has kept them.
func keepPriv(o layer.Object) (restore func(), err error) {
	before, err := o.Stat()
	if err != nil || before.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 {
		return func() {}, err
	}
	return func() {
		// Failing to put them back leaves less privilege, not more.
		if after, err := o.Stat(); err == nil && after.Mode != before.Mode {
			_ = o.Chmod(before.Mode & 0o7777)
		}
	}, nil
}

// keepAcrossWriting returns what gives a file back what the filesystem takes
// away when data is written to it, since nobody has changed the data: its
// capabilities, and where the server may not keep them its suid and sgid bits
// (ovl_copy_up_meta_inode_data in fs/overlayfs/copy_up.c).
func keepAcrossWriting(f layer.File, st *layer.Stat) (restore func() error, err error) {
	var kept []byte
	err = readSized(func(b []byte) (int, error) { return f.Getxattr(capability, b) }, func(v []byte) error {
		kept = bytes.Clone(v)
		return nil
	})
	if err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP && !voidCapability(err) {
		return nil, err
	}
	return func() error {
		if st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
			if err := f.Chmod(st.Mode & 0o7777); err != nil {
				return err
			}
		}
		if kept == nil {
			return nil
		}
		return f.Setxattr(capability, kept, 0)
	}, nil
}

func (fs *FS) truncate(n *Node, size int64) error {
	if n.dir != nil {
		return unix.EISDIR
	}
	if n.typ != unix.S_IFREG {
		return unix.EINVAL
	}
	if err := fs.copyUp(n, dataWanted(size)); err != nil {
		return err
	}
	h, err := fs.openData(n, true)
	if err != nil {
		return err
	}
	defer h.release()
	return fs.limits.around(h.obj, 0, func() error { return h.obj.Truncate(size) })
}
