package union_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/fs/union"
)

// TestEveryCrashLeavesTheOldTreeOrTheNew cuts the power, or kills the server,
// after each step of each change and mounts what is left. What users would lose
// otherwise: files that are empty or cut short after a reboot, although nobody
// had written to them, and deleted files that are back.
func TestEveryCrashLeavesTheOldTreeOrTheNew(t *testing.T) {
	cases := 0
	eachLab(t, func(t *testing.T, i int, l *lab) {
		if l.v.stepwise {
			return
		}
		b := l.begin(t)
		b.d.upper.Record()
		if err := l.op(b.u); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		steps := len(b.d.upper.Steps())
		for step := range steps + 1 {
			if !sampled(step+i) && step != steps {
				continue
			}
			for _, p := range memlayer.Policies() {
				if disk := b.d.upper.Crash(step, p); b.fresh(seen, disk, step) {
					cases++
					b.crashed(step, p, disk)
				}
			}
		}
		b.end()
	})
	t.Logf("%d cases", cases)
}

// fresh tells whether a disk is not one that was looked at already. The last
// step is looked at for its own sake.
func (b *bench) fresh(seen map[string]bool, disk *memlayer.FS, step int) bool {
	key := disk.Dump()
	if step == len(b.d.upper.Steps()) {
		key += "last"
	}
	known := seen[key]
	seen[key] = true
	return !known
}

// crashed mounts what a crash has left.
func (b *bench) crashed(step int, p memlayer.Policy, disk *memlayer.FS) {
	b.t.Helper()
	d := disks{disk, b.d.lower}
	if b.d.lower == b.d.upper {
		d.lower = disk
	}
	steps := b.d.upper.Steps()
	got := b.remounted(d)
	if diff := b.verdict(got, step == len(steps), p); diff != "" {
		if step > 0 {
			diff = fmt.Sprintf(" (%v)%s", steps[step-1], diff)
		}
		b.t.Errorf("%v after step %d of %d%s", p, step, len(steps), diff)
	}
	u := b.mustMount(b.t, b.v, d)
	defer u.Close()
	again, err := show(u, b.known)
	if err != nil {
		b.t.Fatalf("%v after step %d: the second mount: %v", p, step, err)
	}
	if diff := got.differ(again); diff != "" {
		b.t.Errorf("%v after step %d: the second mount differs from the first:%s", p, step, diff)
	}
}

// verdict says what is wrong with a tree that a crash has left; last tells that
// the op had returned.
func (b *bench) verdict(got *view, last bool, p memlayer.Policy) string {
	if last && (p == memlayer.Kill || b.synced) {
		return b.differ(b.after, got) + b.stray(got)
	}
	if b.torn {
		return "" // what was being written, and was not synced, may be anything
	}
	allowed := []*view{b.before, b.after}
	for _, half := range b.half {
		allowed = append(allowed, half)
	}
	if b.v.aufs() && b.renewed != "" {
		gone := *b.before // an aufs directory cannot be empty and opaque
		gone.lines = maps.Clone(gone.lines)
		delete(gone.lines, b.renewed)
		allowed = append(allowed, &gone)
	}
	for _, want := range append(allowed, b.apart...) {
		if b.differ(want, b.forgiven(want, got)) == "" {
			return b.stray(got)
		}
	}
	return b.differ(b.before, got)
}

// forgiven returns the view without two things that a crash may leave. An
// indexed file may count one name too many; one too few would lose the copy.
// And a directory that was about to be replaced may be another one, as empty as
// it was.
func (b *bench) forgiven(want, got *view) *view {
	want, got = b.v.identities(want), b.v.identities(got)
	out := *got
	out.lines = maps.Clone(got.lines)
	for path, line := range got.lines {
		for k := 1; b.opt != nil && k < 5; k++ {
			fewer := strings.Replace(line, fmt.Sprintf(" nlink=%d", k+1), fmt.Sprintf(" nlink=%d", k), 1)
			if fewer == want.lines[path] {
				out.lines[path] = fewer
			}
		}
		if path == b.renewed && lineWithout(line, " new", " was=") == lineWithout(want.lines[path], " was=") {
			out.lines[path] = want.lines[path]
		}
	}
	return &out
}

// stray names files that have changed their time although they were not
// changed. Directories may: the time is set back after an entry was made. So is
// that of a metacopy file after its data was copied.
func (b *bench) stray(got *view) string {
	var out strings.Builder
	if strings.HasPrefix(b.name, "metacopy") {
		return ""
	}
	for path, t := range got.times {
		old, was := b.before.times[path]
		if !was || b.before.dirs[path] || t == old || b.after.times[path] != old {
			continue
		}
		fmt.Fprintf(&out, "\n\ttime of %s: want %v, has %v", path, old, t)
	}
	return out.String()
}

// TestSafeSaveSurvivesEveryCrash is what editors and package managers do: write
// a new file, fsync it, rename it over the old one. At no time may the name
// lead to anything but the old or the new content.
func TestSafeSaveSurvivesEveryCrash(t *testing.T) {
	const text = "the new content"
	for _, v := range variants {
		for _, name := range []string{"low", "own", "over", "dir/x"} {
			t.Run(v.name+"/"+name, func(t *testing.T) {
				s := &scenario{name: name}
				d := s.disks(v)
				u := s.mustMount(t, v, d)
				old := content(t, u, name)
				d.upper.Record()
				save := seq(create(name+"~", 0o600, 0), write(name+"~", text, 0), fsync(name+"~"), rename(name+"~", name, 0))
				if err := save(u); err != nil {
					t.Fatal(err)
				}
				for step := range len(d.upper.Steps()) + 1 {
					for _, p := range memlayer.Policies() {
						disk := d.upper.Crash(step, p)
						after := disks{disk, d.lower}
						if d.lower == d.upper {
							after.lower = disk
						}
						u := s.mustMount(t, v, after)
						if got := content(t, u, name); got != old && got != text || step == len(d.upper.Steps()) && got != text {
							t.Errorf("%v after step %d: %q", p, step, got)
						}
						u.Close()
					}
				}
				u.unmount(t, d)
			})
		}
	}
}

func content(t *testing.T, u *tree, path string) string {
	t.Helper()
	var text []byte
	err := u.walk(path, func(n *union.Node) error {
		text = make([]byte, 100)
		k, err := u.Read(n, text, 0)
		text = text[:k]
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return string(text)
}

// TestLeftoversOfACrashAreSwept puts into the work directory what no server
// leaves there by itself: the mount must not fail, and nothing may be left.
func TestLeftoversOfACrashAreSwept(t *testing.T) {
	s := &scenario{layers: `
		work/work/#1          f "data"
		work/work/#2          d 0000
		work/work/#3/deep/er  d 0000
		work/work/#4          c 0 0:0
		work/work/#5          l /etc
		work/work/#6          p
		work/work/#7/.wh.x    f
		work/work/name\with   s
	`}
	for _, v := range variants {
		d := s.disks(v)
		u := s.mustMount(t, v, d)
		u.unmount(t, d)
		if left := dumpDir(t, d.upper, "work/work"); strings.Count(left, "\n") != 1 {
			t.Errorf("%s: left in the work directory:\n%s", v.name, left)
		}
	}
}

// TestMountFailsOrShowsTheTree lets each call of a mount fail in turn. A mark
// that cannot be read is an error, because without it deleted files are back.
func TestMountFailsOrShowsTheTree(t *testing.T) {
	changed := seq(unlink("low"), chmod("h1", 0o600), unlink("h2"), rmdir("void"), create("void", 0o600, 0))
	for i, v := range append(variants, variants...) {
		s := &scenario{opt: index, prep: changed}
		if i >= len(variants) {
			s.prep = unlink("h1") // of which only the count is kept
		}
		t.Run(v.name, func(t *testing.T) {
			l := &lab{scenario: s, v: v}
			b := l.begin(t)
			want := b.show()
			l.known = want.identity()
			b.end()
			for n := 1; ; n++ {
				errno := faults[n%len(faults)]
				var failed memlayer.Call
				hook := memlayer.FailNth(n, errno)
				b.d.each(func(fs *memlayer.FS) {
					fs.OnCall(func(c memlayer.Call) error {
						err := hook(c)
						if err != nil {
							failed = c
						}
						return err
					})
				})
				u, err := s.mount(v, b.d)
				b.quiet()
				if failed.Op == "" {
					u.Close()
					return // all calls have had their turn
				}
				if err != nil {
					if errnoOf(err) != errno {
						t.Errorf("%v: the error is %v, want %v", failed, err, errno)
					}
					b.d.each(func(fs *memlayer.FS) {
						if open := fs.Open(); len(open) > 0 {
							t.Errorf("%v: handles are left open: %q", failed, open)
						}
					})
					continue
				}
				b.u = u
				got := b.show()
				if diff := b.differ(want, got); diff != "" && failed.Op != "UUID" { // which has no way to fail
					t.Errorf("%v fails with %v, but the mount works and shows:%s", failed, errno, diff)
				}
				b.u.unmount(t, b.d)
			}
		})
	}
}
