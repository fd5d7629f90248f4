package whiteout

import (
	"errors"
	"fmt"
)

// ErrMalformed is what every [FormatError] is: bytes or a name that follow no
// rule of the format. A server answers EIO for the object that carries them.
var ErrMalformed = errors.New("malformed mark")

// ErrNameTooLong tells that a name plus its mark does not fit into the 255
// bytes of a directory entry, so that this format cannot delete it.
var ErrNameTooLong = errors.New("name too long for a whiteout")

// ErrOriginUnknown tells that a file handle names no inode that can be found
// from here: it is empty, of a later version, or of the other byte order. To
// the kernel such an object is a copy without a known origin.
var ErrOriginUnknown = errors.New("origin unknown")

// ErrNotRepresentable tells that a format has no way to write an entry down.
var ErrNotRepresentable = errors.New("cannot be represented")

// A FormatError tells which mark is malformed and why.
type FormatError struct {
	Mark   string // what was to be parsed, as "redirect" or "metacopy"
	Value  []byte // the bytes as found
	Reason string
}

func (e *FormatError) Error() string {
	const shown = 64
	value := e.Value
	rest := ""
	if len(value) > shown {
		value, rest = value[:shown], fmt.Sprintf(" and %d bytes more", len(e.Value)-shown)
	}
	return fmt.Sprintf("%s %q%s: %s", e.Mark, value, rest, e.Reason)
}

// Is makes every FormatError an [ErrMalformed].
func (e *FormatError) Is(target error) bool { return target == ErrMalformed }

func malformed(mark string, value []byte, reason string, args ...any) error {
	return &FormatError{Mark: mark, Value: value, Reason: fmt.Sprintf(reason, args...)}
}
