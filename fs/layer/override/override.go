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
// xattr_permissions): "uid:gid:mode[:type]", the mode in octal, the type one of
// dir, file, symlink, pipe, socket, block-MAJOR-MINOR and char-MAJOR-MINOR. It
// holds for regular files and directories, as there; what has no attribute
// shows what its inode says. Symbolic links cannot bear it, and show their
// inode's owner.
//
// A file that is made has mode 0600 below, a directory 0700, so that the server
// can always open them. The crash of the machine between making and marking
// one leaves it empty, with that mode, owned by the server's user.
//
// ACLs are refused with EOPNOTSUPP: they would act on the mode below, which
// nobody sees.
package override

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// An Attr is the name of the attribute.
type Attr string

// The attributes that clients use.
const (
	// Containers is written by containers/storage. With it, attributes in
	// security.* are kept in user.containers.override_security.*, since their
	// own names take privileges.
	Containers Attr = "user.containers.override_stat"
	// Privileged is written by root only.
	Privileged Attr = "security.fuseoverlayfs.override_stat"
	// legacy is what fuse-overlayfs once used for Containers.
	legacy Attr = "user.fuseoverlayfs.override_stat"
)

// Wrap returns the layer as the attributes show it. All directories of one
// filesystem that objects are moved between must be wrapped with the same name.
func Wrap(root layer.Dir, name Attr) layer.Dir {
	if name == Containers && !has(root, Containers) && has(root, legacy) {
		name = legacy
	}
	return name.dir(root)
}

func has(d layer.Dir, name Attr) bool {
	_, err := d.Getxattr(string(name), nil)
	return err == nil
}

// bears tells whether an inode of the filesystem below can have the attribute.
func bears(st *layer.Stat) bool { return st.IsRegular() || st.IsDir() }

// present returns what is shown of an inode: st, the attributes below, changed
// by the attribute that get reads. EIO tells that it is there and damaged.
func (name Attr) present(st layer.Stat, get func(attr string, dest []byte) (int, error)) (layer.Stat, error) {
	if !bears(&st) {
		return st, nil
	}
	var buf [80]byte
	n, err := get(string(name), buf[:])
	switch {
	case err == unix.ENODATA || err == unix.EOPNOTSUPP:
		return st, nil
	case err == unix.ERANGE:
		return st, unix.EIO
	case err != nil:
		return st, err
	}
	if !apply(&st, string(bytes.TrimRight(buf[:n], "\x00"))) {
		return st, unix.EIO
	}
	return st, nil
}

// apply changes st to what a value says, and reports whether it makes sense. A
// directory stays a directory, and nothing else becomes one.
func apply(st *layer.Stat, value string) bool {
	f := strings.SplitN(value, ":", 4)
	if len(f) < 3 {
		return false
	}
	uid, err1 := strconv.ParseUint(f[0], 10, 32)
	gid, err2 := strconv.ParseUint(f[1], 10, 32)
	mode, err3 := strconv.ParseUint(f[2], 8, 32)
	if err1 != nil || err2 != nil || err3 != nil {
		return false
	}
	typ, rdev := st.Type(), uint64(0)
	if len(f) == 4 {
		var ok bool
		if typ, rdev, ok = parseType(f[3]); !ok {
			return false
		}
	}
	if st.IsDir() != (typ == unix.S_IFDIR) || typ == unix.S_IFLNK {
		typ, rdev = st.Type(), st.Rdev
	}
	st.UID, st.GID, st.Rdev = uint32(uid), uint32(gid), rdev
	st.Mode = typ | uint32(mode)&0o7777
	return true
}

var typeNames = []struct {
	name string
	typ  uint32
}{
	{"dir", unix.S_IFDIR}, {"file", unix.S_IFREG}, {"symlink", unix.S_IFLNK}, {"pipe", unix.S_IFIFO},
	{"socket", unix.S_IFSOCK}, {"block", unix.S_IFBLK}, {"char", unix.S_IFCHR},
}

// parseType reads a type. Device numbers come as "-8-1" (containers/storage) or
// as "8:1" (fuse-overlayfs).
func parseType(s string) (typ uint32, rdev uint64, ok bool) {
	for _, t := range typeNames {
		rest, found := strings.CutPrefix(s, t.name)
		if !found {
			continue
		}
		if t.typ != unix.S_IFBLK && t.typ != unix.S_IFCHR {
			return t.typ, 0, rest == ""
		}
		major, minor, found := strings.Cut(rest, ":")
		if !found {
			major, minor, _ = strings.Cut(strings.TrimPrefix(rest, "-"), "-")
		}
		maj, err1 := strconv.ParseUint(major, 10, 32)
		mnr, err2 := strconv.ParseUint(minor, 10, 32)
		return t.typ, unix.Mkdev(uint32(maj), uint32(mnr)), err1 == nil && err2 == nil
	}
	return 0, 0, false
}

// format is the reverse of apply.
func format(st *layer.Stat) string {
	kind := "file"
	for _, t := range typeNames {
		if t.typ == st.Type() {
			kind = t.name
		}
	}
	if kind == "block" || kind == "char" {
		kind = fmt.Sprintf("%s-%d-%d", kind, unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return fmt.Sprintf("%d:%d:%o:%s", st.UID, st.GID, st.Mode&0o7777, kind)
}
