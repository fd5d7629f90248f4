package whiteout

// A Protattr holds the inode flags of chattr(1) that must not be set on a
// copy in the upper layer, where they would stop the union itself, and that
// users of the union are to see nevertheless.
type Protattr struct {
	Append    bool // FS_APPEND_FL, 'a'
	Immutable bool // FS_IMMUTABLE_FL, 'i'
}

// ParseProtattr reads the value of [Prefix.Protattr], the letters 'a' and 'i'
// in any order (ovl_check_protattr). Like the kernel it returns the flags that
// stand before the first unknown byte; the error tells of the rest.
func ParseProtattr(value []byte) (Protattr, error) {
	var p Protattr
	for i, c := range value {
		switch c {
		case 'a':
			p.Append = true
		case 'i':
			p.Immutable = true
		default:
			return p, malformed("protattr", value, "unknown flag at byte %d", i)
		}
	}
	if len(value) == 0 {
		return p, malformed("protattr", value, "empty")
	}
	return p, nil
}

// Encode returns the value to store, nil for no flags: that is said by having
// no mark at all (ovl_set_protattr).
func (p Protattr) Encode() []byte {
	var value []byte
	if p.Append {
		value = append(value, 'a')
	}
	if p.Immutable {
		value = append(value, 'i')
	}
	return value
}
