package driver

import (
	"errors"
	"fmt"
	"strings"
)

// What can stand in the way. Compare with errors.Is.
var (
	ErrNotFound    = errors.New("no such layer")
	ErrExists      = errors.New("the layer exists already")
	ErrActive      = errors.New("the layer is not committed")
	ErrCommitted   = errors.New("the layer is committed and never changes")
	ErrFilled      = errors.New("the layer was filled from an archive and can only be committed or removed")
	ErrMounted     = errors.New("the layer is mounted")
	ErrNotMounted  = errors.New("the layer is not mounted there")
	ErrHasChildren = errors.New("other layers are built on it")
	ErrTooDeep     = errors.New("too many layers below")
	ErrUnsupported = errors.New("not supported")
	ErrElsewhere   = errors.New("the layer is in another store, which is only read")
	ErrBadID       = errors.New("no id of a layer")
	ErrDamaged     = errors.New("damaged")
)

// An Error says what failed on which layer, and what can be done.
type Error struct {
	Driver string
	Op     string // create, mount, …
	Layer  string // "" for the driver as a whole
	Cause  error
	Next   string // the next step, "" when there is none to name
}

// Error returns one line: driver, operation, object, cause, next step.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Driver, e.Op)
	if e.Layer != "" {
		fmt.Fprintf(&b, " %s", e.Layer)
	}
	fmt.Fprintf(&b, ": %v", e.Cause)
	if e.Next != "" {
		fmt.Fprintf(&b, "; %s", e.Next)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Cause }

// MaxID is the longest id of a layer in bytes.
const MaxID = 128

// CheckID returns [ErrBadID] for what cannot be the id of a layer: 1 to [MaxID]
// letters, digits, and "._-" behind the first, so that it can be the name of a
// file and an element of a mount option.
func CheckID(id string) error {
	bad := id == "" || len(id) > MaxID
	for i := 0; i < len(id) && !bad; i++ {
		c := id[i]
		word := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		bad = !word && (i == 0 || c != '.' && c != '_' && c != '-')
	}
	if bad {
		return fmt.Errorf("%w: %q; letters, digits, and ._- behind the first, %d at most", ErrBadID, id, MaxID)
	}
	return nil
}
