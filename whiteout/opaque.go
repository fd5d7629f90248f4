package whiteout

// An OpaqueMark is what the mark [Prefix.Opaque] of a directory says.
type OpaqueMark int

const (
	// NotOpaque is a directory that merges with what lies below it.
	NotOpaque OpaqueMark = iota
	// OpaqueYes is a directory that hides all below it: 'y'.
	OpaqueYes
	// OpaqueXattrWhiteouts is a directory that merges, and in which empty
	// files may be whiteouts by xattr: 'x', since 6.8. The kernel heeds it in
	// lower layers only; it never makes one in an upper.
	OpaqueXattrWhiteouts
)

// ParseOpaque reads the value of [Prefix.Opaque].
//
// The kernel (ovl_get_dir_xattr_val) takes a value for 'y' or 'x' only when it
// is that one byte. All else, "yes" and the empty value included, it treats as
// NotOpaque without a word. ParseOpaque returns the same mark, and with it an
// [ErrMalformed] for values that no kernel writes, so that a caller can follow
// the kernel, report, or refuse.
func ParseOpaque(value []byte) (OpaqueMark, error) {
	switch string(value) {
	case "y":
		return OpaqueYes, nil
	case "x":
		return OpaqueXattrWhiteouts, nil
	}
	return NotOpaque, malformed("opaque", value, `want "y" or "x"; the kernel ignores anything else`)
}

// Encode returns the value to store, nil for NotOpaque: that is said by having
// no mark at all.
func (m OpaqueMark) Encode() []byte {
	switch m {
	case OpaqueYes:
		return []byte("y")
	case OpaqueXattrWhiteouts:
		return []byte("x")
	}
	return nil
}

func (m OpaqueMark) String() string {
	switch m {
	case NotOpaque:
		return "not opaque"
	case OpaqueYes:
		return "opaque"
	case OpaqueXattrWhiteouts:
		return "xattr whiteouts"
	}
	return "unknown opaque mark"
}
