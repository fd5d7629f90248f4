package driver

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/laminafs/lamina/fs/mountopt"
)

// A Config says where and how a driver is opened.
type Config struct {
	// Root is the driver's own directory; it is made if its parent exists.
	Root   string
	Engine Engine
	// Additional are directories of the same driver, in other stores, whose
	// committed layers can be seen and built on, and are never written to.
	Additional []string
	// Options are the driver's, as NAME=VALUE, with or without "DRIVER." before
	// the name.
	Options []string
	// Servers runs the userspace engine, see package views; nil: it can do
	// everything but mount.
	Servers Servers
	// PoolServer returns the command line, argv[0] included, by which this program
	// serves the pool in a directory: for drivers whose layers are in one. Nil: such
	// a driver needs a server that runs already.
	PoolServer func(dir string) []string
	// Volatile leaves out every sync: a power cut may lose or damage layers that
	// were committed. What a killed process leaves is the same.
	Volatile bool
	// Step is called before each step of an operation that a crash can fall
	// between, with its name; nil for none.
	Step func(name string)
}

// Servers run userspace servers of unions.
type Servers interface {
	// Serve mounts the union that the options describe, and returns when it can
	// be used.
	Serve(o mountopt.Options, target string) error
	// Unmount takes it away and waits, unless lazy, until its server has let go
	// of the layers.
	Unmount(target string, lazy bool) error
}

// An Option is one that a driver has.
type Option struct {
	Name    string
	Accepts string
	Help    string
	// Refused says why the option cannot be honoured, in place of taking it.
	Refused string
}

// ParseOptions reads the options of a driver. What it does not have is an error
// that lists what it has.
func ParseOptions(driver string, known []Option, given []string) (map[string]string, error) {
	values := map[string]string{}
	for _, g := range given {
		name, value, has := strings.Cut(g, "=")
		name = strings.TrimPrefix(strings.TrimSpace(name), driver+".")
		i := slices.IndexFunc(known, func(o Option) bool { return o.Name == name })
		switch {
		case i < 0:
			return nil, &Error{Driver: driver, Op: "option " + g, Cause: fmt.Errorf("%w: no such option", ErrUnsupported), Next: "there are: " + optionNames(known)}
		case known[i].Refused != "":
			return nil, &Error{Driver: driver, Op: "option " + g, Cause: fmt.Errorf("%w: %s", ErrUnsupported, known[i].Refused)}
		case !has:
			return nil, &Error{Driver: driver, Op: "option " + g, Cause: fmt.Errorf("%w: the value is missing", ErrUnsupported), Next: "accepted: " + known[i].Accepts}
		}
		values[name] = value
	}
	return values, nil
}

func optionNames(known []Option) string {
	var names []string
	for _, o := range known {
		if o.Refused == "" {
			names = append(names, o.Name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// ParseSize reads a number of bytes, or of files, with a suffix k, m, g or t for
// powers of 1024.
func ParseSize(text string) (int64, error) {
	number := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(strings.TrimSpace(text)), "b"), "i")
	shift := 0
	if n := len(number); n > 0 {
		if i := strings.IndexByte("kmgt", number[n-1]); i >= 0 {
			number, shift = number[:n-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n<<shift>>shift != n {
		return 0, fmt.Errorf("%q is no size; accepted: a number, with k, m, g or t behind it", text)
	}
	return n << shift, nil
}
