package union_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/union"
)

// A step is one change or question, in terms that mean something whatever the
// steps before it were. A path that begins with @n begins at what slot n has
// open.
type step struct {
	verb           string
	a, b           string
	slot           int
	off, off2, n   int64
	mode, uid, gid uint32
	umask          uint32
	flags          uint
	kill           bool
	name, text     string
	seed           uint64 // of what a step does not say, as what the kernel remembers
}

// String writes the step as foundCases holds it.
func (s *step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "{verb: %q", s.verb)
	v := reflect.ValueOf(s).Elem()
	for i := 1; i < v.NumField(); i++ {
		f, name := v.Field(i), v.Type().Field(i).Name
		switch {
		case f.IsZero():
		case f.Kind() == reflect.String:
			fmt.Fprintf(&b, ", %s: %q", name, f.String())
		case name == "mode" || name == "umask":
			fmt.Fprintf(&b, ", %s: %#o", name, f.Uint())
		default:
			fmt.Fprintf(&b, ", %s: %v", name, f)
		}
	}
	return strings.ReplaceAll(b.String(), modelLongName, "LONG") + "},"
}

// A verb is a kind of step.
type verb struct {
	weight int
	draw   func(w *world, r *rand.Rand, s *step)
	do     func(w *world, s *step)
}

// do takes a step with both.
func (w *world) do(s *step) {
	v, ok := verbs[s.verb]
	if !ok {
		w.failf("no step %q", s.verb)
	}
	if s.seed%4 != 0 {
		w.kern.deliver()
	}
	w.calls++
	v.do(w, s)
	if w.steps++; w.steps >= w.conf.every {
		w.lookAll(s.seed)
		if s.seed%3 == 0 {
			w.kern.shrink(w.kern.root, false)
		}
	}
}

// same compares the result of a call.
func (w *world) same(s *step, want unix.Errno, got error) {
	if got == nil && want == 0 || got != nil && want != 0 && errnoOf(got) == want {
		return
	}
	if want == 0 {
		w.failf("%v: %v, want no error", s, got)
	}
	w.failf("%v: %v, want %v", s, got, want)
}

// at walks a path in both. It is false if the path leads nowhere in either.
func (w *world) at(s *step, path string) (*kdentry, bool) {
	e := w.kern.root
	if strings.HasPrefix(path, "@") {
		n := w.slots[int(path[1]-'0')%len(w.slots)].node
		if n == nil {
			return nil, false
		}
		if path = path[2:]; len(n.names) > 0 {
			e = n.names[0]
		} else {
			e = &kdentry{node: n, kids: map[string]*kdentry{}}
		}
	}
	for i, name := range splitPath(path) {
		want, errno := w.model.lookup(e.node.file, name)
		next, err := w.kern.lookup(e, name, want, (s.seed>>8+uint64(i))%10 == 0)
		w.same(s, errno, err)
		if err != nil {
			return nil, false
		}
		e = next
	}
	return e, true
}

// target is at for what has a file at the end.
func (w *world) target(s *step) (f *modelFile, n *union.Node, ok bool) {
	e, ok := w.at(s, s.a)
	if !ok {
		return nil, nil, false
	}
	return e.node.file, w.kern.use(e.node), true
}

// in walks to the directory of a path.
func (w *world) in(s *step, path string) (e *kdentry, name string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 || i == len(path)-1 {
		return nil, "", false
	}
	e, ok = w.at(s, path[:i])
	return e, path[i+1:], ok
}

// verbs are all kinds of steps.
var verbs map[string]*verb

func init() {
	verbs = map[string]*verb{
		"stat":      {8, drawAny, doStat},
		"mkdir":     {7, drawNew, doMkdir},
		"create":    {8, drawNew, doCreate},
		"mknod":     {4, drawNew, doMknod},
		"symlink":   {3, drawNew, doSymlink},
		"tmpfile":   {1, drawTmpfile, doTmpfile},
		"link":      {5, drawLink, doLink},
		"unlink":    {6, drawFile, doUnlink},
		"rmdir":     {4, drawDir, doRmdir},
		"rename":    {14, drawRename, doRename},
		"open":      {8, drawOpen, doOpen},
		"close":     {5, drawSlot, doClose},
		"list":      {4, drawDir, doList},
		"readdir":   {6, drawSlot, doReaddir},
		"forget":    {2, drawDir, doForget},
		"read":      {6, drawFile, doRead},
		"write":     {10, drawData, doWrite},
		"truncate":  {4, drawData, doTruncate},
		"fallocate": {3, drawFallocate, doFallocate},
		"copyrange": {2, drawCopyRange, doCopyRange},
		"seek":      {2, drawData, doSeek},
		"fsync":     {1, drawAny, doFsync},
		"chattr":    {1, drawAny, doChattr},
		"setattr":   {9, drawSetattr, doSetattr},
		"setxattr":  {6, drawXattr, doSetxattr},
		"getxattr":  {3, drawXattr, doGetxattr},
		"rmxattr":   {3, drawXattr, doRemovexattr},
		"look":      {1, drawNothing, func(w *world, s *step) { w.lookAll(s.seed) }},
		"remount":   {1, drawNothing, func(w *world, s *step) { w.remount(s.seed) }},
		"freeze":    {1, drawFreeze, func(w *world, s *step) { w.freeze(s.seed) }},
	}
}

func drawNothing(*world, *rand.Rand, *step) {}

// drawFreeze makes the stack higher at times only.
func drawFreeze(w *world, r *rand.Rand, s *step) {
	if len(w.lowers) >= 8 || r.IntN(3) > 0 {
		s.verb = "remount"
	}
}

// verbNames and verbWeight are for drawing one.
var (
	verbNames  []string
	verbWeight int
)

func init() {
	verbNames = slices.Sorted(maps.Keys(verbs))
	for _, v := range verbs {
		verbWeight += v.weight
	}
}

// keptDifferences are the differences from POSIX that are kept on purpose.
var keptDifferences = map[string]string{
	"EXDEV":                "without redirects a directory that has lower parts cannot be renamed, as in the kernel",
	"removed directory":    "a directory of a lower layer that was removed cannot be changed: there is no place to copy it up to",
	"links without xattrs": "symbolic links and devices take no user xattrs, so as lower ones they part from their other names when copied up",
	"d_ino of links":       "where a copy cannot note what it is of, it shows the number of whichever of its names was found first, and listings know no names but their own",
	"copy_file_range":      "two filesystems cannot copy between files; the kernel reads and writes then",
}

// keep notes that such a difference was met.
func (w *world) keep(what string) {
	if keptDifferences[what] == "" {
		w.failf("%q is not among the differences that are kept", what)
	}
	w.kept[what]++
}
