package whiteout

import (
	"fmt"
	"strconv"
	"strings"
)

// nlinkValueMax is the longest value that the kernel reads, in bytes.
const nlinkValueMax = 12

// A Nlink is the mark of an indexed file. It tells the link count that users
// see by its difference to the link count of a real inode, which changes by
// itself as names are copied up or removed.
type Nlink struct {
	Upper bool // the difference counts from the upper inode, else from the lower
	Diff  int32
}

// ParseNlink reads the value of [Prefix.Nlink]: "U" or "L", a sign, and a
// number such as "U+1" or "L-2". As the kernel does (ovl_get_nlink, kstrtoint)
// it reads hexadecimal after 0x and octal after 0, ignores one final newline
// and what follows a NUL, and refuses more than 12 bytes.
func ParseNlink(value []byte) (Nlink, error) {
	bad := func(reason string) (Nlink, error) { return Nlink{}, malformed("nlink", value, "%s", reason) }
	if len(value) > nlinkValueMax {
		return bad("longer than 12 bytes")
	}
	s, _, _ := strings.Cut(string(value), "\x00")
	if len(s) < 2 || s[0] != 'U' && s[0] != 'L' || s[1] != '+' && s[1] != '-' {
		return bad(`want "U" or "L" and a sign`)
	}
	diff, ok := parseKernelInt(s[1] == '-', s[2:])
	if !ok {
		return bad("no number of 32 bits after the sign")
	}
	return Nlink{Upper: s[0] == 'U', Diff: diff}, nil
}

// parseKernelInt reads an unsigned number as kstrtoint with base 0 does. The
// bases 0b, 0o and the underscores that strconv knows are not the kernel's.
func parseKernelInt(negative bool, s string) (int32, bool) {
	s = strings.TrimSuffix(s, "\n")
	base := 10
	if strings.HasPrefix(s, "0") {
		base = 8
		if len(s) > 2 && (s[1] == 'x' || s[1] == 'X') {
			base, s = 16, s[2:]
		}
	}
	if s == "" || s[0] == '+' || s[0] == '-' {
		return 0, false
	}
	if negative {
		s = "-" + s
	}
	n, err := strconv.ParseInt(s, base, 32)
	return int32(n), err == nil
}

// Encode returns the value to store: "U+1", "L+0".
func (n Nlink) Encode() []byte {
	from := 'L'
	if n.Upper {
		from = 'U'
	}
	return fmt.Appendf(nil, "%c%+d", from, n.Diff)
}

// Count returns the link count that users see, given that of the real inode
// which the mark counts from. It returns false where no count above zero comes
// out; the kernel then shows the count of the upper inode.
func (n Nlink) Count(real uint32) (uint32, bool) {
	count := int64(real) + int64(n.Diff)
	if count <= 0 || count > 1<<32-1 {
		return 0, false
	}
	return uint32(count), true
}

// NlinkOf returns the mark that makes users see count, given the link count of
// the real inode (ovl_set_nlink_common).
func NlinkOf(count, real uint32, upper bool) Nlink {
	return Nlink{Upper: upper, Diff: int32(count - real)}
}
