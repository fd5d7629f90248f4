package union_test

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer/memlayer"
)

// LAMINA_FAULTS says how much is tried: "all" lets each call fail with each errno
// in each variant, which takes some ten minutes; "each" fails each call once. By
// default it is a sample that takes seconds. They are functions so that the test
// runs when the variable is read, and go test knows of it.
func everyErrno() bool { return os.Getenv("LAMINA_FAULTS") == "all" }
func everyCall() bool  { return os.Getenv("LAMINA_FAULTS") == "each" || everyErrno() }

// sampled tells whether the n-th of many cases is among those that are tried.
func sampled(n int) bool { return everyCall() || n%6 == 0 }

// eachLab calls try for the scenarios that are tried, as a test of each variant.
func eachLab(t *testing.T, try func(t *testing.T, i int, l *lab)) {
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // thousands of small trees, each soon gone
	for k, v := range variants {
		for i, s := range scenarios() {
			if v.mem.Unprivileged && s.root || v.mem.NoRenameFlags && strings.HasPrefix(s.name, "exchange") || v.mem.NoHandles && strings.HasPrefix(s.name, "indexed") {
				continue // these need what the filesystem does not have
			}
			if s.only != nil && !s.only(v) || !everyCall() && k > 0 && (i+k)%5 != 0 {
				continue
			}
			t.Run(v.name+"/"+s.name, func(t *testing.T) {
				key := [2]string{v.name, s.name}
				if labs[key] == nil {
					labs[key] = newLab(t, s, v, i%2 == 0)
				}
				try(t, i, labs[key])
			})
		}
	}
}

// labs are what scenarios do without faults, for all tests.
var labs = map[[2]string]*lab{}

var faults = []syscall.Errno{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EMFILE, unix.EPERM}

// lab is a scenario in a variant, and what it does when nothing goes wrong.
type lab struct {
	*scenario
	v             *variant
	warm          bool // the kernel remembers the whole tree
	before, after *view
	half          map[string]*view
	apart         []*view // what only a crash may leave
	calls         []memlayer.Call
	known         map[uint64]string
	lowers        string
}

// bench is one fresh try of a scenario.
type bench struct {
	*lab
	t     *testing.T
	d     disks
	u     *tree
	clock clock
	made  bool // the op failed after the change was made

	failed memlayer.Call // what was made to fail, and how
	errno  syscall.Errno
}

func newLab(t *testing.T, s *scenario, v *variant, warm bool) *lab {
	t.Helper()
	l := &lab{scenario: s, v: v, warm: warm, half: map[string]*view{}}
	b := l.begin(t)
	l.lowers = b.d.lowers(t)
	l.before = b.show()
	b.end()
	l.known = l.before.identity()
	b = l.begin(t)
	b.d.each(func(fs *memlayer.FS) {
		fs.OnCall(func(c memlayer.Call) error { l.calls = append(l.calls, c); return nil })
	})
	if err := s.op(b.u); err != nil {
		t.Fatalf("without any fault: %v", err)
	}
	b.quiet()
	l.after = b.show()
	b.want(l.after, b.remounted(b.d), "remounting shows another tree")
	for path := range l.after.lines {
		if s.empty != "" && strings.HasPrefix(path, s.empty) {
			t.Errorf("the new directory is not empty: %s", path)
		}
	}
	b.end()
	stopped := func(why string, o op) *view {
		b = l.begin(t)
		defer func() { b.end() }()
		if err := o(b.u); err != nil {
			t.Fatalf("%s: %v", why, err)
		}
		return b.show()
	}
	for why, o := range s.half {
		l.half[why] = stopped(why, o)
	}
	for why, o := range s.crash {
		l.apart = append(l.apart, stopped(why, o))
	}
	if v.splits && s.over != "" {
		l.apart = append(l.apart, both(l.before, l.after, s.from), stopped("exchange", rename(s.from, s.over, unix.RENAME_EXCHANGE)))
	}
	return l
}

// begin builds the layers anew and brings them to where the change begins.
func (l *lab) begin(t *testing.T) *bench {
	t.Helper()
	b := &bench{lab: l, t: t, d: l.disks(l.v)}
	b.u = l.mustMount(t, l.v, b.d)
	if l.prep != nil {
		if err := l.prep(b.u); err != nil {
			t.Fatalf("preparation: %v", err)
		}
	}
	if l.warm {
		b.u.hold(t)
	}
	b.clock.start = b.d.upper.Now()
	return b
}

func (b *bench) quiet() { b.d.each(func(fs *memlayer.FS) { fs.OnCall(nil) }) }

func (b *bench) show() *view {
	b.t.Helper()
	v, err := show(b.u, b.known)
	if err != nil {
		b.t.Fatalf("the tree cannot be read: %v", err)
	}
	return v
}

func (b *bench) end() { b.t.Helper(); b.u.unmount(b.t, b.d) }

// remounted returns what the next mount of disks shows, and checks that it
// leaves nothing in the work directory.
func (b *bench) remounted(d disks) *view {
	b.t.Helper()
	u := b.mustMount(b.t, b.v, d)
	v, err := show(u, b.known, allNames()...)
	if err != nil {
		b.t.Fatalf("the remounted tree cannot be read: %v", err)
	}
	b.wantOrderly(d)
	u.Close()
	return v
}

// wantOrderly wants nothing in the directory for staging, and in the index only
// what names lead to.
func (b *bench) wantOrderly(d disks) {
	b.t.Helper()
	for _, line := range strings.Split(dumpDir(b.t, d.upper, "work"), "\n") {
		if strings.HasPrefix(line, "work/") || strings.HasPrefix(line, "index/") && strings.Contains(line, `nlink="U-`) &&
			!strings.Contains(line, " nlink=") {
			b.t.Errorf("the next mount leaves in the work directory: %s", line)
		}
	}
}

// fail lets the n-th call of the op fail.
func (b *bench) fail(n int, errno syscall.Errno) error {
	hook := memlayer.FailNth(n, errno)
	b.d.each(func(fs *memlayer.FS) { fs.OnCall(hook) })
	defer b.quiet()
	return b.op(b.u)
}

// TestEveryFailingCallLeavesTheOldTreeOrTheNew lets each call to the layers
// fail in turn. What users would lose otherwise: files that a failed rename
// has removed, halves of files, an upper that shows something else after the
// next mount.
func TestEveryFailingCallLeavesTheOldTreeOrTheNew(t *testing.T) {
	cases := 0
	eachLab(t, func(t *testing.T, i int, l *lab) {
		for n := range l.calls {
			for k, errno := range faults {
				if !sampled(n+i) || !everyErrno() && (n/6+i)%len(faults) != k {
					continue
				}
				cases++
				t.Run(fmt.Sprintf("%s/%v", l.calls[n].Op, errno), func(t *testing.T) { l.fault(t, n+1, errno) })
			}
		}
	})
	t.Logf("%d cases", cases)
}

func (l *lab) fault(t *testing.T, n int, errno syscall.Errno) {
	if errno == unix.EPERM && l.calls[n-1].Op == "Handle" && l.opt != nil {
		return // where handles are not permitted there is no index
	}
	b := l.begin(t)
	b.failed, b.errno = l.calls[n-1], errno
	defer func() {
		if t.Failed() {
			t.Logf("failing: %v", l.calls[n-1])
		}
	}()
	b.d.upper.Record()
	err := b.fail(n, errno)
	b.clock.dirsNow = l.calls[n-1].Op == "SetTimes" // a copy-up does not fail for the time of a directory
	// What was taken back has touched its directory.
	b.clock.dirsNow = b.clock.dirsNow || err != nil
	got := b.show()
	if err == nil {
		b.want(l.after, got, "the op worked")
	} else {
		if !errors.Is(err, errno) {
			t.Errorf("the error is %v, want %v", err, errno)
		}
		b.wantOld(got, err)
		disk := b.d.upper.Crash(len(b.d.upper.Steps()), memlayer.Kill)
		clone := disks{disk, b.d.lower}
		if b.d.lower == b.d.upper {
			clone.lower = disk
		}
		b.want(got, b.remounted(clone), "remounted after the failure")
		b.clock.dirsNow = true
		b.poke()
		b.want(got, b.show(), "used after the failure")
		if err2 := b.op(b.u); err2 != nil && (!b.made || !alreadyMade(err2)) {
			t.Fatalf("once more after %v: %v", err, err2)
		}
		b.want(l.after, b.show(), "once more after the failure")
	}
	b.end()
	bytes, inodes := b.u.Usage()
	b.want(l.after, b.remounted(b.d), "remounted")
	if got := b.d.lowers(t); got != l.lowers {
		t.Errorf("the lower layers have changed:\n%s", got)
	}
	u := b.mustMount(t, l.v, b.d)
	defer u.Close()
	bytes2, inodes2 := u.Usage()
	if b.failed.Op == "Stat" || b.failed.Path == "/work/index" {
		// What takes space cannot be told, or is left to the next mount.
		bytes, inodes = min(bytes, bytes2), min(inodes, inodes2)
	}
	if bytes != bytes2 || inodes != inodes2 {
		t.Errorf("counted %d bytes and %d objects, there are %d and %d", bytes, inodes, bytes2, inodes2)
	}
}

// TestDiskThatGoesAway lets a call and all later ones fail, those that take
// back what was begun as well. What is on the disk then is what the next mount
// must be able to make sense of.
func TestDiskThatGoesAway(t *testing.T) {
	cases := 0
	eachLab(t, func(t *testing.T, i int, l *lab) {
		if l.v.stepwise {
			return
		}
		for n, call := range l.calls {
			if !sampled(n+i) || !call.Mutates {
				continue
			}
			cases++
			b := l.begin(t)
			hook := memlayer.FailFrom(n+1, unix.EIO)
			b.d.each(func(fs *memlayer.FS) { fs.OnCall(hook) })
			err := b.op(b.u)
			b.quiet()
			b.end()
			if err != nil && !errors.Is(err, unix.EIO) {
				t.Errorf("from %v on: the error is %v, want %v", call, err, unix.EIO)
			}
			got := b.remounted(b.d)
			if diff := b.verdict(got, false, memlayer.Kill); diff != "" {
				t.Errorf("from %v on:%s", call, diff)
			}
			if got := b.d.lowers(t); got != l.lowers {
				t.Errorf("from %v on: the lower layers have changed:\n%s", call, got)
			}
		}
	})
	t.Logf("%d cases", cases)
}

func (b *bench) want(want, got *view, what string) {
	b.t.Helper()
	if diff := b.differ(want, got) + b.clock.differ(want, got); diff != "" {
		b.t.Errorf("%s:%s", what, diff)
	}
}

// differ is view.differ without what a copy may lose when it is not permitted,
// as an ordinary user is not: the inode number for lack of a file handle, and
// security labels.
func (b *bench) differ(want, got *view) string {
	want, got = b.v.identities(want), b.v.identities(got)
	diff := want.differ(got)
	if diff != "" && b.countless {
		diff = want.without(" nlink=").differ(got.without(" nlink="))
	}
	if diff != "" && b.errno == unix.EPERM {
		switch {
		case b.failed.Op == "Handle":
			return want.without(" was=", " with=", " new").differ(got.without(" was=", " with=", " new"))
		case strings.HasPrefix(b.failed.Attr, "security."):
			return want.without(" security.").differ(got.without(" security."))
		}
	}
	return diff
}

// wantOld wants the tree to be what it was, or to have stopped half way where
// that is right.
func (b *bench) wantOld(got *view, err error) {
	b.t.Helper()
	diff := b.differ(b.before, got) + b.clock.differ(b.before, got)
	if diff == "" {
		return
	}
	// The change is made and only its reply, the new attributes, cannot be
	// read. Taking the change back could fail as well.
	made := b.failed.Op == "Stat" || b.failed.Op == "StatAt"
	// What a truncation drops is not copied up first; it is gone if the
	// truncation of the copy, which has the right size already, fails.
	made = made || b.failed.Op == "Truncate"
	if made && b.differ(b.after, got) == "" {
		b.made = true
		return
	}
	for _, half := range b.half {
		if b.differ(half, got) == "" && b.clock.differ(half, got) == "" {
			return
		}
	}
	b.t.Errorf("failed with %v, but the tree has changed:%s", err, diff)
}

// alreadyMade reports whether an error says that a change was made before.
func alreadyMade(err error) bool {
	return errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTEMPTY)
}

// poke makes and removes a file in every directory, as a user does who goes on
// after an error.
func (b *bench) poke() {
	b.t.Helper()
	var dirs []string
	for path, isDir := range b.before.dirs {
		if isDir {
			dirs = append(dirs, path)
		}
	}
	slices.Sort(dirs)
	for _, path := range dirs {
		err := seq(create(strings.TrimPrefix(path, "/")+"/poke", 0o600, 0), unlink(strings.TrimPrefix(path, "/")+"/poke"))(b.u)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			b.t.Errorf("a file in %s after the failure: %v", path, err)
		}
	}
}
