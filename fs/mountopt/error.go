package mountopt

import "fmt"

// An Error is a value that an option cannot have, or a pair of options that
// cannot stand together.
type Error struct {
	Option  string // as it is written before the "="
	Value   string // as it was given, escapes included
	Cause   string // what is wrong
	Accepts string // what would be right; empty when Cause tells it
}

func (e *Error) Error() string {
	what := "option " + e.Option
	if e.Value != "" {
		what += "=" + e.Value
	}
	if e.Accepts == "" {
		return fmt.Sprintf("%s: %s", what, e.Cause)
	}
	return fmt.Sprintf("%s: %s; accepted: %s", what, e.Cause, e.Accepts)
}
