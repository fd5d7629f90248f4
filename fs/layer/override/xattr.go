package override

import (
	"strings"

	"golang.org/x/sys/unix"
)

const (
	security = "security."
	private  = "user.containers.override_"
)

// below returns the name that an attribute has in the filesystem below, ENODATA
// for what is nobody's business and for ACLs, which the kernel asks for with
// every check of a permission.
func (name Attr) below(attr string) (string, error) {
	switch {
	case attr == string(name), isACL(attr):
		return "", unix.ENODATA
	case name == Containers && strings.HasPrefix(attr, private+security):
		return "", unix.ENODATA
	case name == Containers && strings.HasPrefix(attr, security):
		if attr = private + attr; len(attr) > 255 {
			return "", unix.ENODATA
		}
	}
	return attr, nil
}

func isACL(attr string) bool { return strings.HasPrefix(attr, "system.posix_acl_") }

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
	switch {
	case attr == string(name), isACL(attr):
		return "", false
	case name == Containers && strings.HasPrefix(attr, private+security):
		return attr[len(private):], true
	case name == Containers && strings.HasPrefix(attr, security):
		return "", false
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
