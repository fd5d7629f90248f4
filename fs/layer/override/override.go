// Package override keeps owners, modes and types of files in an extended
// attribute, for layers whose filesystem or whose user cannot keep them in the
// inode: an ordinary user's without subordinate ids, or one on a network.
//
//	what the union sees           what the filesystem below has
//	-rw-r----- 5:6  name    <──   -rw------- 1000:1000  name
//	                              user.containers.override_stat=5:6:640:file
//	crw-rw-rw- 0:0  null    <──   -rw------- 1000:1000  null
//	                              user.containers.override_stat=0:0:666:char-1-3
//
// The format is that of containers/storage and fuse-overlayfs (force_mask,
// xattr_permissions; [whiteout.OverrideStat]). It holds for regular files and
// directories, as there; what has no attribute shows what its inode says. Symbolic links cannot bear it, and show their
// inode's owner, or root ([Attr.RootLinks]).
//
// A file that is made has mode 0600 below, a directory 0700, so that the server
// can always open them. The crash of the machine between making and marking
// one leaves it empty, with that mode, owned by the server's user.
//
// ACLs are refused with EOPNOTSUPP: they would act on the mode below, which
// nobody sees.
package override

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// An Attr is the attribute, and what is shown of symbolic links, which cannot bear it.
type Attr struct {
	xattr     string
	rootLinks bool
}

// RootLinks returns the attribute with which symbolic links of the process's own user
// and group are shown as root's. For layers all of which that user has made: their
// links would be the only files in an image that belong to who happened to make it.
func (name Attr) RootLinks() Attr {
	name.rootLinks = true
	return name
}

// The attributes that clients use.
var (
	// Containers is written by containers/storage. With it, attributes in
	// security.* are kept in user.containers.override_security.*, since their
	// own names take privileges.
	Containers = Attr{xattr: whiteout.OverrideStatContainers}
	// Privileged is written by root only.
	Privileged = Attr{xattr: whiteout.OverrideStatSecurity}
	// legacy is what fuse-overlayfs once used for Containers.
	legacy = Attr{xattr: whiteout.OverrideStatUser}
)

// Wrap returns the layer as the attributes show it. All directories of one
// filesystem that objects are moved between must be wrapped with the same name.
func Wrap(root layer.Dir, name Attr) layer.Dir {
	if name.xattr == Containers.xattr && !has(root, Containers) && has(root, legacy) {
		name.xattr = legacy.xattr
	}
	return name.dir(root)
}

func has(d layer.Dir, name Attr) bool {
	_, err := d.Getxattr(name.xattr, nil)
	return err == nil
}

// bears tells whether an inode of the filesystem below can have the attribute.
func bears(st *layer.Stat) bool { return st.IsRegular() || st.IsDir() }

// present returns what is shown of an inode: st, the attributes below, changed
// by the attribute that get reads. EIO tells that it is there and damaged.
func (name Attr) present(st layer.Stat, get func(attr string, dest []byte) (int, error)) (layer.Stat, error) {
	if !bears(&st) {
		if name.rootLinks && st.Type() == unix.S_IFLNK {
			if st.UID == uint32(unix.Geteuid()) {
				st.UID = 0
			}
			if st.GID == uint32(unix.Getegid()) {
				st.GID = 0
			}
		}
		return st, nil
	}
	var buf [80]byte
	n, err := get(name.xattr, buf[:])
	switch {
	case err == unix.ENODATA || err == unix.EOPNOTSUPP:
		return st, nil
	case err == unix.ERANGE:
		return st, unix.EIO
	case err != nil:
		return st, err
	}
	if !apply(&st, buf[:n]) {
		return st, unix.EIO
	}
	return st, nil
}

// apply changes st to what a value says, and reports whether it makes sense. A
// directory stays a directory, and nothing else becomes one or a symbolic link.
func apply(st *layer.Stat, value []byte) bool {
	v, err := whiteout.ParseOverrideStat(value)
	if err != nil {
		return false
	}
	typ, rdev := v.Type, unix.Mkdev(v.Major, v.Minor)
	if st.IsDir() != (typ == unix.S_IFDIR) || typ == unix.S_IFLNK || typ == 0 {
		typ, rdev = st.Type(), st.Rdev
	}
	st.UID, st.GID, st.Rdev = v.UID, v.GID, rdev
	st.Mode = typ | v.Mode
	return true
}

// format is the reverse of apply.
func format(st *layer.Stat) []byte {
	v := whiteout.OverrideStat{UID: st.UID, GID: st.GID, Mode: st.Mode & 0o7777, Type: st.Type()}
	if v.Type == unix.S_IFBLK || v.Type == unix.S_IFCHR {
		v.Major, v.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	return v.Encode()
}
