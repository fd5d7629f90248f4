package union

import (
	"bytes"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// copyAttributes gives a staged object owner, xattrs, mode and times of the
// one it is a copy of, and notes where it came from. modeSet tells that it has
// the mode already, and nothing done to it takes any of that away.
func (fs *FS) copyAttributes(dst, src layer.Object, st *layer.Stat, n *Node, modeSet bool) error {
	if err := fs.chownNew(dst, st.UID, st.GID); err != nil {
		return err
	}
	if !n.has(stateNoXattrs) {
		if err := fs.copyXattrs(dst, src); err != nil {
			return err
		}
	}
	if err := fs.setOrigin(dst, src, st, n); err != nil {
		return err
	}
	if st.Type() != unix.S_IFLNK && !modeSet {
		if err := dst.Chmod(st.Mode & 0o7777); err != nil {
			return err
		}
	}
	return dst.SetTimes(st.Atime, st.Mtime)
}

// birthMode returns the mode to stage a copy of a regular file with: its own,
// unless a change of the owner or writing would take suid and sgid bits away
// before it is published. An owner without privileges has to be able to write
// xattrs.
func (fs *FS) birthMode(st *layer.Stat) uint32 {
	const private = 0o600
	mode := st.Mode & 0o7777
	if mode&^0o777 != 0 || mode&private != private || st.UID != fs.self.UID || st.GID != fs.self.GID {
		return private
	}
	return mode
}

// chownNew gives a new object its owner, unless it has it by birth.
func (fs *FS) chownNew(dst layer.Object, uid, gid uint32) error {
	if uid == fs.self.UID && gid == fs.self.GID {
		return nil
	}
	return dst.Chown(int(uid), int(gid))
}

// copyXattrs copies all xattrs but the marks of a union.
func (fs *FS) copyXattrs(dst, src layer.Object) error {
	return readSized(src.Listxattr, func(list []byte) error {
		for _, attr := range splitNames(list) {
			if fs.isMark(attr) {
				continue
			}
			err := readSized(func(b []byte) (int, error) { return src.Getxattr(attr, b) }, func(v []byte) error {
				return dst.Setxattr(attr, v, 0)
			})
			if err != nil && !fs.mayLose(attr, err) {
				return err
			}
		}
		return nil
	})
}

// mayLose tells whether a copy may go without an xattr that the upper does not
// take. As in the kernel, ACLs and security labels may not be lost for lack of
// support; labels that only a privileged user may write have no effect below
// an unprivileged one.
func (fs *FS) mayLose(attr string, err error) bool {
	if attr == capability && voidCapability(err) {
		return true
	}
	switch err {
	case unix.ENODATA:
		return true // gone since it was listed
	case unix.EOPNOTSUPP:
		return !strings.HasPrefix(attr, "security.") && !strings.HasPrefix(attr, "system.posix_acl_")
	case unix.EPERM:
		return strings.HasPrefix(attr, "security.")
	}
	return false
}

// capability holds what a program may do beyond its user.
const capability = "security.capability"

// voidCapability tells by the error of reading one that it grants nothing: it is
// malformed, or the root of a namespace that is not this one has set it
// (cap_inode_getsecurity in security/commoncap.c). Kernel overlayfs does not
// copy such a file up.
func voidCapability(err error) bool { return err == unix.EINVAL || err == unix.EOVERFLOW }

func splitNames(list []byte) []string {
	var names []string
	for _, b := range bytes.Split(list, []byte{0}) {
		if len(b) > 0 {
			names = append(names, string(b))
		}
	}
	return names
}

// setOrigin notes in the copy which lower inode it is of: what keeps the inode
// number, and ties hard links together. As in the kernel it is not noted for
// one of several names that are not kept together, because then the names show
// different files.
func (fs *FS) setOrigin(dst, src layer.Object, st *layer.Stat, n *Node) error {
	linked := !st.IsDir() && st.Nlink > 1
	switch {
	case linked && fs.index == nil:
		return nil
	case fs.opt.Whiteouts == WhiteoutAufs && !linked: // the index takes xattrs anyway
		return nil
	}
	if fs.opt.Prefix == whiteout.User && !st.IsDir() && !st.IsRegular() {
		return nil // user xattrs exist on files and directories only
	}
	fh, err := fs.originOf(src, st)
	if err != nil || fh == nil {
		return err // without file handles the number is not kept
	}
	err = dst.Setxattr(fs.opt.Prefix.Origin(), fh, 0)
	if err == nil && !st.IsDir() {
		n.set(stateOrigin)
	}
	if err == unix.EOPNOTSUPP {
		return nil
	}
	return err
}

// originOf returns the kernel's encoding of a lower inode's file handle, nil
// where it has none.
func (fs *FS) originOf(src layer.Object, st *layer.Stat) ([]byte, error) {
	fh, ok, err := fs.identify(src, st.Dev)
	if err != nil || !ok {
		return nil, err
	}
	return fh.Encode()
}

// markMetacopy makes a staged file stand for lower data of the given size.
func (fs *FS) markMetacopy(n *Node, f layer.File, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := f.Setxattr(fs.opt.Prefix.Metacopy(), nil, 0); err != nil {
		return err
	}
	return fs.redirectData(n, f)
}

// redirectData makes sure that a metacopy file in the upper finds its data under
// any name. As in the kernel the redirect is the path at which the lower layers,
// merged, show the file, not the one in the layer of the data: a layer between
// the two may have a whiteout there.
func (fs *FS) redirectData(n *Node, o layer.Object) error {
	m, err := fs.readMarks(objectXattrs{o})
	if err != nil || m.redirect != nil && m.redirect.Absolute {
		return err
	}
	p, name := n.where()
	if p == nil {
		return nil // it has no name by which anybody could look for its data
	}
	if m.redirect != nil {
		name = m.redirect.Path[0]
	}
	r := whiteout.Redirect{Absolute: true, Path: append(originPath(p), name)}
	return o.Setxattr(fs.opt.Prefix.Redirect(), []byte(r.Encode()), 0)
}
