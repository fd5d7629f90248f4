package memlayer

import (
	"fmt"
	"strings"
	"syscall"
)

// A Call is one call of a method of an object, file or directory, before it
// happens. Fields that a method has no use for are zero.
type Call struct {
	// N counts the calls on the filesystem, from 1.
	N int
	// Op is the name of the method: "OpenFile", "Rename".
	Op string
	// Path is that of the object when it was opened, from the root; "#12" is
	// a file without a name.
	Path string
	Name string // child that is acted on
	To   string // target of a symlink, or path that is renamed to, linked or copied from
	Attr string // xattr
	Mode uint32 // permission bits, or the mode of Allocate
	Flag int    // of open(2), rename(2) or setxattr(2)
	Off  int64
	Len  int64
	// Mutates tells that the call may change files, or what a power cut leaves
	// of them: the syncs are among these.
	Mutates bool
}

func (c Call) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s %s", c.N, c.Op, c.Path)
	if c.Name != "" {
		fmt.Fprintf(&b, " %q", c.Name)
	}
	if c.To != "" {
		fmt.Fprintf(&b, " to=%q", c.To)
	}
	if c.Attr != "" {
		fmt.Fprintf(&b, " %s", c.Attr)
	}
	if c.Mode != 0 {
		fmt.Fprintf(&b, " mode=%#o", c.Mode)
	}
	if c.Flag != 0 {
		fmt.Fprintf(&b, " flags=%#x", c.Flag)
	}
	if c.Off != 0 || c.Len != 0 {
		fmt.Fprintf(&b, " [%d,+%d]", c.Off, c.Len)
	}
	return b.String()
}

// OnCall sets the function that sees each call before it happens; an error
// from it becomes the result of the call, and nothing happens. It may use the
// filesystem, whose calls then come to it as well. Nil removes it.
func (fs *FS) OnCall(hook func(Call) error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.hook = hook
}

// Calls returns the number of calls so far.
func (fs *FS) Calls() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.calls
}

// FailNth returns a function for OnCall that fails the n-th call it sees,
// counted from 1, and no other.
func FailNth(n int, errno syscall.Errno) func(Call) error {
	return failWhen(errno, func(seen int) bool { return seen == n })
}

// FailFrom returns a function for OnCall that fails the n-th call it sees and
// all that follow, as a disk does that went away.
func FailFrom(n int, errno syscall.Errno) func(Call) error {
	return failWhen(errno, func(seen int) bool { return seen >= n })
}

func failWhen(errno syscall.Errno, when func(seen int) bool) func(Call) error {
	var seen counter
	return func(Call) error {
		if when(seen.next()) {
			return errno
		}
		return nil
	}
}

// Mutations limits a function for OnCall to the calls that mutate.
func Mutations(hook func(Call) error) func(Call) error {
	return func(c Call) error {
		if !c.Mutates {
			return nil
		}
		return hook(c)
	}
}

// Ops limits a function for OnCall to the methods of these names.
func Ops(hook func(Call) error, ops ...string) func(Call) error {
	return func(c Call) error {
		for _, op := range ops {
			if c.Op == op {
				return hook(c)
			}
		}
		return nil
	}
}
