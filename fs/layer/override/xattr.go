package override

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/whiteout"
)

// below returns the name that an attribute has in the filesystem below, ENODATA
// for what is nobody's business and for ACLs, which the kernel asks for with
// every check of a permission.
func (name Attr) below(attr string) (string, error) {
	if attr == name.xattr || isACL(attr) {
		return "", unix.ENODATA
	}
	if name.xattr == Containers.xattr && !isMark(attr) {
		var ok bool
		if attr, ok = whiteout.EscapeOverride(attr); !ok {
			return "", unix.ENODATA
		}
	}
	return attr, nil
}

func isACL(attr string) bool { return strings.HasPrefix(attr, "system.posix_acl_") }

// isMark tells whether an attribute is a mark of the union, which keeps users
// from its name. Other programs look for marks under their own names.
func isMark(attr string) bool {
	return attr != Containers.xattr && whiteout.FuseOverlayfsPrivate(attr)
}

// forChange is below for calls that change an attribute: ACLs are refused with
// EOPNOTSUPP, what cannot be named with EPERM.
func (name Attr) forChange(attr string) (string, error) {
	if isACL(attr) {
		return "", unix.EOPNOTSUPP
	}
	attr, err := name.below(attr)
	if err == unix.ENODATA {
		err = unix.EPERM
	}
	return attr, err
}

// above is the reverse of below, false for what is not shown.
func (name Attr) above(attr string) (string, bool) {
	if attr == name.xattr || isACL(attr) {
		return "", false
	}
	if name.xattr == Containers.xattr && !isMark(attr) {
		return whiteout.UnescapeOverride(attr)
	}
	return attr, true
}

func (name Attr) get(get func(string, []byte) (int, error), attr string, dest []byte) (int, error) {
	attr, err := name.below(attr)
	if err != nil {
		return 0, err
	}
	return get(attr, dest)
}

// list returns the names that list gives, as they are shown.
func (name Attr) list(list func([]byte) (int, error), dest []byte) (int, error) {
	var all []byte
	for {
		n, err := list(nil)
		if err != nil || n == 0 {
			return 0, err
		}
		all = make([]byte, n)
		n, err = list(all)
		if err == unix.ERANGE {
			continue // it has grown in between
		}
		if err != nil {
			return 0, err
		}
		all = all[:n]
		break
	}
	var out []byte
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(all), "\x00"), "\x00") {
		if shown, ok := name.above(attr); ok && attr != "" {
			out = append(append(out, shown...), 0)
		}
	}
	switch {
	case len(dest) == 0:
		return len(out), nil
	case len(out) > len(dest):
		return 0, unix.ERANGE
	}
	return copy(dest, out), nil
}
