package union

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// Attributes in the namespaces of overlayfs are marks and none of the users'
// business. What users put there is kept under an escaped name, so that an
// overlay can hold the layers of another one (Documentation/filesystems/
// overlayfs.rst, "nesting overlayfs mounts").

// isMark tells whether an attribute, as a layer has it, is a mark.
func (fs *FS) isMark(attr string) bool {
	return whiteout.Trusted.Private(attr) || whiteout.User.Private(attr) || strings.HasPrefix(attr, "user.fuseoverlayfs.")
}

// stored returns the name under which a layer keeps an attribute of a user.
func stored(attr string) (string, error) {
	for _, p := range []whiteout.Prefix{whiteout.Trusted, whiteout.User} {
		if strings.HasPrefix(attr, string(p)) {
			esc, ok := p.Escape(attr)
			if !ok {
				return "", unix.EOPNOTSUPP // too long, as in the kernel
			}
			return esc, nil
		}
	}
	if strings.HasPrefix(attr, "user.fuseoverlayfs.") {
		return "", unix.EPERM
	}
	return attr, nil
}

// presented returns the name that a user sees of an attribute, false for a mark.
func (fs *FS) presented(attr string) (string, bool) {
	if fs.isMark(attr) {
		return "", false
	}
	for _, p := range []whiteout.Prefix{whiteout.Trusted, whiteout.User} {
		if strings.HasPrefix(attr, string(p)) {
			return p.Unescape(attr)
		}
	}
	return attr, true
}

// Getxattr reads an attribute; see [layer.Object].
func (fs *FS) Getxattr(n *Node, attr string, dest []byte) (size int, err error) {
	if fs.opt.NoXattrs {
		return 0, unix.EOPNOTSUPP
	}
	if n.has(stateNoXattrs) && !n.has(stateUpper) {
		return 0, unix.ENODATA
	}
	attr, err = stored(attr)
	if err != nil {
		return 0, unix.ENODATA
	}
	get := func(o layer.Object) (err error) { size, err = o.Getxattr(attr, dest); return err }
	if !n.has(stateMetacopy) {
		if h := n.file.acquire(); h != nil {
			defer h.release()
			return size, get(h.obj)
		}
	}
	err = fs.withObject(n, objectOps{
		at:   func(d layer.Dir, name string) (err error) { size, err = d.GetxattrAt(name, attr, dest); return err },
		open: get,
		dir:  func(d layer.Dir) error { return get(d) },
	})
	return size, err
}

// Listxattr lists the attributes; see [layer.Object].
func (fs *FS) Listxattr(n *Node, dest []byte) (int, error) {
	if fs.opt.NoXattrs {
		return 0, unix.EOPNOTSUPP
	}
	if n.has(stateNoXattrs) && !n.has(stateUpper) {
		return 0, nil
	}
	var out []byte
	err := fs.onObject(n, func(o layer.Object) error {
		out = out[:0]
		return readSized(o.Listxattr, func(list []byte) error {
			for _, attr := range splitNames(list) {
				if seen, ok := fs.presented(attr); ok {
					out = append(append(out, seen...), 0)
				}
			}
			return nil
		})
	})
	switch {
	case err == unix.EOPNOTSUPP:
		return 0, nil
	case err != nil:
		return 0, err
	case len(dest) == 0:
		return len(out), nil
	case len(out) > len(dest):
		return len(out), unix.ERANGE
	}
	return copy(dest, out), nil
}

// Setxattr sets an attribute with the flags of setxattr(2). killSgid clears the
// sgid bit, as setting an ACL by someone outside of the group does.
func (fs *FS) Setxattr(n *Node, attr string, value []byte, flags int, killSgid bool) error {
	return fs.changeXattr(n, attr, func(o layer.Object, attr string) error {
		if err := o.Setxattr(attr, value, flags); err != nil || !killSgid {
			return err
		}
		st, err := o.Stat()
		if err != nil || st.Mode&unix.S_ISGID == 0 {
			return err
		}
		return o.Chmod(st.Mode & 0o7777 &^ unix.S_ISGID)
	})
}

// Removexattr removes an attribute, ENODATA if it is not there.
func (fs *FS) Removexattr(n *Node, attr string) error {
	if fs.upper == nil {
		return unix.EROFS
	}
	// What a lower object does not have need not be copied up to be removed.
	if !n.isUpper() {
		if _, err := fs.Getxattr(n, attr, nil); err != nil {
			return err
		}
	}
	return fs.changeXattr(n, attr, func(o layer.Object, attr string) error { return o.Removexattr(attr) })
}

func (fs *FS) changeXattr(n *Node, attr string, change func(layer.Object, string) error) error {
	if fs.opt.NoXattrs {
		return unix.EOPNOTSUPP
	}
	if fs.upper == nil {
		return unix.EROFS
	}
	real, err := stored(attr)
	if err != nil {
		return err
	}
	if err := fs.copyUp(n, wantMeta); err != nil {
		return err
	}
	if n.dir != nil && attr == aclDefault {
		n.dir.mu.Lock()
		defer n.dir.mu.Unlock()
		n.dir.acl = aclUnknown
	}
	return fs.onObject(n, func(o layer.Object) error { return change(o, real) })
}
