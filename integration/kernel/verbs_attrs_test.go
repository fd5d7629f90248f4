//go:build integration

package kernel

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

var xattrNames = []string{"user.a", "user.b", "user.low", "user.a.rather.long.name", "trusted.t", "trusted.low", "security.sec", "security.capability"}

func (c *chooser) value() []byte {
	return []byte(strings.Repeat(fmt.Sprintf("v%d ", c.r.IntN(1000)), pick(c.r, 0, 1, 1, 20)))
}

// attrVerbs change what is known about names.
var attrVerbs = map[string]verb{
	"lstat": {weight: 4, choose: func(c *chooser) op { return op{A: c.any()} }, do: func(s *side, o op) (string, error) { return s.lstat(o.A) }},
	"access": {weight: 2, choose: func(c *chooser) op { return op{A: c.old(), Mode: uint32(c.r.IntN(8))} }, do: func(s *side, o op) (string, error) {
		return "", unix.Faccessat2(s.fd, rel(o.A), o.Mode, unix.AT_EACCESS)
	}},
	"chmod": {weight: 6, choose: func(c *chooser) op { return op{A: c.old(), Mode: pick(c.r, append(fileModes, dirModes...)...)} }, do: func(s *side, o op) (string, error) {
		if err := unix.Fchmodat(s.fd, rel(o.A), o.Mode, 0); err != nil {
			return "", err
		}
		return s.lstat(o.A)
	}},
	"chown": {weight: 5, choose: func(c *chooser) op {
		return op{A: c.old(), UID: c.id(), GID: c.id(), Flags: pick(c.r, 0, unix.AT_SYMLINK_NOFOLLOW)}
	}, do: func(s *side, o op) (string, error) {
		if err := unix.Fchownat(s.fd, rel(o.A), o.UID, o.GID, o.Flags); err != nil {
			return "", err
		}
		return s.lstat(o.A)
	}},
	"utimens": {weight: 5, choose: func(c *chooser) op {
		return op{A: c.old(), Off: c.time(), Flags: pick(c.r, 0, unix.AT_SYMLINK_NOFOLLOW)}
	}, do: func(s *side, o op) (string, error) {
		if err := unix.UtimesNanoAt(s.fd, rel(o.A), times(o.Off), o.Flags); err != nil {
			return "", err
		}
		return s.mtime(o.A, o.Flags)
	}},
	"setxattr": {weight: 5, choose: func(c *chooser) op {
		return op{A: c.old(), Name: pick(c.r, xattrNames...), Value: c.value(), Flags: pick(c.r, 0, 0, unix.XATTR_CREATE, unix.XATTR_REPLACE)}
	}, do: func(s *side, o op) (string, error) { return "", unix.Lsetxattr(s.path(o.A), o.Name, o.Value, o.Flags) }},
	"set acl": {weight: 4, choose: func(c *chooser) op {
		return op{A: c.old(), Name: pick(c.r, aclAccess, aclAccess, aclDefault), Value: []byte(acl(c.r, c.ids))}
	}, do: func(s *side, o op) (string, error) {
		if err := unix.Lsetxattr(s.path(o.A), o.Name, o.Value, 0); err != nil {
			return "", err
		}
		return s.lstat(o.A)
	}},
	"getxattr": {weight: 2, choose: func(c *chooser) op {
		return op{A: c.old(), Name: pick(c.r, append(xattrNames, aclAccess, aclDefault, markPrefix()+"opaque", markPrefix()+"origin")...)}
	}, do: func(s *side, o op) (string, error) {
		buf := make([]byte, 4096)
		n, err := unix.Lgetxattr(s.path(o.A), o.Name, buf)
		return fmt.Sprintf("%q", buf[:max(n, 0)]), err
	}},
	"removexattr": {weight: 3, choose: func(c *chooser) op {
		return op{A: c.old(), Name: pick(c.r, append(xattrNames, aclAccess, aclDefault)...)}
	}, do: func(s *side, o op) (string, error) {
		return "", unix.Lremovexattr(s.path(o.A), o.Name)
	}},
	"listxattr": {weight: 2, choose: func(c *chooser) op { return op{A: c.old()} }, do: func(s *side, o op) (string, error) {
		buf := make([]byte, 4096)
		n, err := unix.Llistxattr(s.path(o.A), buf)
		list := strings.Split(strings.TrimSuffix(string(buf[:max(n, 0)]), "\x00"), "\x00")
		slices.Sort(list)
		return strings.Join(list, " "), err
	}},
	"private xattr": {weight: 1, choose: func(c *chooser) op {
		return op{A: c.old(), Name: markPrefix() + pick(c.r, "opaque", "redirect", "own"), Value: []byte("y")}
	}, do: func(s *side, o op) (string, error) {
		// What the union keeps for itself must be settable all the same: a
		// container may have unions inside of it.
		if err := unix.Lsetxattr(s.path(o.A), o.Name, o.Value, 0); err != nil {
			return "", err
		}
		return xattrs(s.path(o.A)), nil
	}},
}

func times(ns int64) []unix.Timespec {
	if ns == now {
		return []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	}
	ts := unix.NsecToTimespec(ns)
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}
}

// now stands for the time of the call.
const now = -1

// mtime returns the exact mtime of what was given an old one.
func (s *side) mtime(path string, flags int) (string, error) {
	var st unix.Stat_t
	err := unix.Fstatat(s.fd, rel(path), &st, flags)
	return mtimeText(&st), err
}

// mtimeText tells times that operations chose apart from those of the clock.
func mtimeText(st *unix.Stat_t) string {
	if st.Mtim.Sec > 1_600_000_000 && st.Mtim.Sec < 1<<32 {
		return "the time of the call"
	}
	return clock(st.Mtim.Nano())
}
