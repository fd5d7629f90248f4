package memlayer

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// capability is what every change of content or owner removes
	// (cap_inode_need_killpriv).
	capability = "security.capability"

	maxXattrName = 255   // XATTR_NAME_MAX
	maxXattrSize = 65536 // XATTR_SIZE_MAX

	// xattrSpace is what one block has for names and values (ext4/xattr.c).
	// The few bytes within the inode are left out.
	xattrSpace = blockSize - 32 - 4
)

// checkXattrName returns the error of a name that no call accepts.
func checkXattrName(attr string) error {
	if attr == "" || len(attr) > maxXattrName {
		return syscall.ERANGE
	}
	return nil
}

// xattrMay returns the error of xattr_permission and xattr_resolve_name;
// write is for a change.
func (fs *FS) xattrMay(i *inode, attr string, write bool) error {
	if write && (immutable(i) || appendOnly(i)) {
		return syscall.EPERM
	}
	refuse := func(write bool) error {
		if write {
			return syscall.EPERM
		}
		return syscall.ENODATA
	}
	ns, rest, _ := strings.Cut(attr, ".")
	switch {
	case ns == "trusted" && strings.HasPrefix(attr, "trusted."):
		if fs.noTrusted() {
			return refuse(write)
		}
	case ns == "security" && strings.HasPrefix(attr, "security."):
		if write && fs.opts.Unprivileged {
			return syscall.EPERM
		}
	case ns == "user" && strings.HasPrefix(attr, "user."):
		if !i.isRegular() && !i.isDir() {
			return refuse(write)
		}
		if write && i.isDir() && i.mode&unix.S_ISVTX != 0 && !fs.owner(i) {
			return syscall.EPERM
		}
		want := uint32(mayRead)
		if write {
			want = mayWrite
		}
		if err := fs.may(i, want); err != nil {
			return err
		}
	default:
		return syscall.EOPNOTSUPP
	}
	switch {
	case fs.opts.NoXattrs, fs.opts.NoUserXattrs && ns == "user":
		return syscall.EOPNOTSUPP
	case rest == "":
		return syscall.EINVAL
	}
	return nil
}

func (fs *FS) noTrusted() bool { return fs.opts.NoTrusted || fs.opts.Unprivileged }

func isACL(attr string) bool { return attr == accessACL || attr == defaultACL }

func (h *handle) Getxattr(attr string, dest []byte) (n int, err error) {
	err = h.do(Call{Op: "Getxattr", Attr: attr}, func(i *inode) error {
		n, err = h.fs.getxattr(i, attr, dest)
		return err
	})
	return n, err
}

func (fs *FS) getxattr(i *inode, attr string, dest []byte) (int, error) {
	if err := checkXattrName(attr); err != nil {
		return 0, err
	}
	if isACL(attr) {
		if fs.opts.NoACLs || i.typ() == unix.S_IFLNK {
			return 0, syscall.EOPNOTSUPP
		}
	} else if err := fs.xattrMay(i, attr, false); err != nil {
		return 0, err
	}
	v, ok := i.xattrs[attr]
	if !ok {
		return 0, syscall.ENODATA
	}
	return fill(dest, v)
}

// fill copies what the caller asked for, with the answers of getxattr(2) to
// buffers of no and of too little length.
func fill(dest, v []byte) (int, error) {
	switch {
	case len(dest) == 0:
	case len(dest) < len(v):
		return 0, syscall.ERANGE
	default:
		copy(dest, v)
	}
	return len(v), nil
}

func (h *handle) Listxattr(dest []byte) (n int, err error) {
	err = h.do(Call{Op: "Listxattr"}, func(i *inode) error {
		n, err = h.fs.listxattr(i, dest)
		return err
	})
	return n, err
}

func (fs *FS) listxattr(i *inode, dest []byte) (int, error) {
	if fs.opts.NoXattrs {
		return 0, nil
	}
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(i.xattrs)) {
		if strings.HasPrefix(name, "trusted.") && fs.noTrusted() || isACL(name) && fs.opts.NoACLs {
			continue
		}
		b.WriteString(name)
		b.WriteByte(0)
	}
	return fill(dest, b.Bytes())
}

func (h *handle) Setxattr(attr string, value []byte, flags int) error {
	return h.do(Call{Op: "Setxattr", Attr: attr, Flag: flags, Len: int64(len(value)), Mutates: true}, func(i *inode) error {
		fs := h.fs
		if flags&^(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0 {
			return syscall.EINVAL
		}
		if err := checkXattrName(attr); err != nil {
			return err
		}
		if len(value) > maxXattrSize {
			return syscall.E2BIG
		}
		if isACL(attr) {
			return fs.setACL(i, attr, value)
		}
		if err := fs.xattrMay(i, attr, true); err != nil {
			return err
		}
		if attr == capability && !validCapability(value) {
			return syscall.EINVAL
		}
		old, exists := i.xattrs[attr]
		switch {
		case exists && flags&unix.XATTR_CREATE != 0:
			return syscall.EEXIST
		case !exists && flags&unix.XATTR_REPLACE != 0:
			return syscall.ENODATA
		case exists && bytes.Equal(old, value):
			return nil // ext4 saves itself the work, ctime included
		case xattrUse(i)-xattrSize(attr, old)*b2i(exists)+xattrSize(attr, value) > xattrSpace:
			return syscall.ENOSPC
		}
		ino, value := i.ino, bytes.Clone(value)
		fs.commit(func(s *state) { s.changed(ino).xattrs[attr] = value })
		return nil
	})
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// validCapability checks the version and size of what cap_convert_nscap lets
// through: vfs_cap_data of revision 2 and vfs_ns_cap_data of revision 3.
func validCapability(v []byte) bool {
	return len(v) == 20 && v[3] == 2 || len(v) == 24 && v[3] == 3
}

// xattrSize is the space of one entry (EXT4_XATTR_LEN, EXT4_XATTR_SIZE), with
// the prefix of its namespace as one number.
func xattrSize(attr string, value []byte) int {
	_, suffix, _ := strings.Cut(attr, ".")
	return (len(suffix)+16+3)&^3 + (len(value)+3)&^3
}

func xattrUse(i *inode) (n int) {
	for attr, value := range i.xattrs {
		n += xattrSize(attr, value)
	}
	return n
}

func (h *handle) Removexattr(attr string) error {
	return h.do(Call{Op: "Removexattr", Attr: attr, Mutates: true}, func(i *inode) error {
		fs := h.fs
		if err := checkXattrName(attr); err != nil {
			return err
		}
		if isACL(attr) {
			return fs.setACL(i, attr, nil)
		}
		if err := fs.xattrMay(i, attr, true); err != nil {
			return err
		}
		if _, ok := i.xattrs[attr]; !ok {
			return syscall.ENODATA
		}
		ino := i.ino
		fs.commit(func(s *state) { delete(s.changed(ino).xattrs, attr) })
		return nil
	})
}
