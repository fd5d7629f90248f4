package stream

import (
	"errors"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// ErrUnsupported is wrapped when a stream is of a version, or needs a feature
// or a kind of frame, that this program does not know.
var ErrUnsupported = errors.New("needs a newer program")

// An Error says where a stream is not as it was sent. It wraps
// [format.ErrDamaged] or [ErrUnsupported], and io.ErrUnexpectedEOF where bytes
// are missing at the end.
type Error struct {
	Offset int64 // of the frame's first byte
	Frame  int64 // counted from 1 along the checks; 0 is the header
	Err    error
}

func (e *Error) Error() string {
	if e.Frame == 0 {
		return fmt.Sprintf("stream: header: %v", e.Err)
	}
	return fmt.Sprintf("stream: frame %d at byte %d: %v", e.Frame, e.Offset, e.Err)
}

// Unwrap returns what the error is one of.
func (e *Error) Unwrap() []error {
	if errors.Is(e.Err, ErrUnsupported) {
		return []error{e.Err}
	}
	return []error{e.Err, format.ErrDamaged}
}
