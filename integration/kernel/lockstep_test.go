//go:build integration

package kernel

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Operations on the mounts themselves.
const (
	doCheck   = "check"
	doRemount = "remount"
	doKill    = "kill"
	doAdd     = "add branch" // A: "spare0" …; N: its place
	doDel     = "del branch" // N: its place
)

// lockStep is a mount of each engine, over equal layers.
type lockStep struct {
	*scratch
	kernel, lamina side
	kernelMnt      kernelMount
	laminaMnt      laminaMount
	kernelStack    stack
	laminaStack    stack
	began          time.Time
	last           tree
	checks         int
	spareAt        []int // places of spare layers in the stacks, -1 for none
	openOn         bool
}

var _ world = (*lockStep)(nil)

func newLockStep(s *scratch) *lockStep {
	return &lockStep{
		scratch:   s,
		kernel:    side{name: "kernel"},
		lamina:    side{name: "lamina"},
		kernelMnt: kernelMount{target: filepath.Join(s.home, "kernel", "mnt"), options: s.kernelOptions()},
		laminaMnt: laminaMount{target: filepath.Join(s.home, "lamina", "mnt"), options: s.laminaOptions(), state: filepath.Join(s.home, "state")},
	}
}

func (w *lockStep) seen() tree { return w.last }

func (w *lockStep) start() ([]difference, error) {
	w.kernelStack = stack{slices.Clone(w.kernelLowers[:w.lowers]), filepath.Join(w.home, "ku"), filepath.Join(w.home, "kw")}
	w.laminaStack = stack{slices.Clone(w.laminaLowers[:w.lowers]), filepath.Join(w.home, "lu"), filepath.Join(w.home, "lw")}
	w.checks = 0
	for _, engine := range []string{"kernel", "lamina"} {
		if err := w.mountpoint(engine); err != nil {
			return nil, err
		}
	}
	w.began = time.Now().Add(-time.Second) // the clock of files is coarse
	for _, s := range []stack{w.kernelStack, w.laminaStack} {
		os.RemoveAll(s.upper)
		os.RemoveAll(s.work)
		if err := s.makeUpper(); err != nil {
			return nil, err
		}
	}
	if err := w.mount(); err != nil {
		return nil, err
	}
	return w.check("at the start", false)
}

func (w *lockStep) mount() error {
	if err := w.kernelMnt.mount(w.kernelStack); err != nil {
		return err
	}
	if err := w.laminaMnt.mount(w.laminaStack); err != nil {
		return err
	}
	return w.open()
}

func (w *lockStep) open() error {
	if err := w.kernel.open(w.kernelMnt.target); err != nil {
		return err
	}
	if err := w.lamina.open(w.laminaMnt.target); err != nil {
		w.kernel.close()
		return err
	}
	w.openOn = true
	return nil
}

func (w *lockStep) close() {
	if w.openOn {
		w.kernel.close()
		w.lamina.close()
		w.openOn = false
	}
}

func (w *lockStep) stop() error {
	w.close()
	err := w.kernelMnt.unmount()
	if e := w.laminaMnt.unmount(); e != nil {
		err = e
	}
	return err
}

func (w *lockStep) control(c *chooser) op {
	o := op{Do: pick(c.r, doCheck, doCheck, doCheck, doRemount, doKill)}
	if w.live && c.r.IntN(3) == 0 {
		if len(w.kernelStack.lowers) > 1 && c.r.IntN(2) == 0 {
			return op{Do: doDel, N: c.r.Int64N(int64(len(w.kernelStack.lowers)))}
		}
		return op{Do: doAdd, Slot: c.r.IntN(spare), N: c.r.Int64N(int64(len(w.kernelStack.lowers) + 1))}
	}
	return o
}

func (w *lockStep) do(o *op) ([]difference, error) {
	switch o.Do {
	case doCheck:
		w.checks++
		return w.check("while mounted", w.checks%2 == 0)
	case doRemount:
		return w.remount()
	case doKill:
		return w.kill()
	case doAdd, doDel:
		return w.changeBranch(*o)
	}
	k, l := w.kernel.run(forKernel(*o)), w.lamina.run(*o)
	o.Said = l
	if w.live {
		// The kernel copies up when a file is opened for writing, lamina when
		// it is written to, and what fails may have copied directories up; of
		// a layer that goes only copies stay.
		for _, s := range []*side{&w.kernel, &w.lamina} {
			for _, p := range []string{o.A, o.B, path.Dir(o.A), path.Dir(o.B)} {
				unix.UtimesNanoAt(s.fd, rel(p), times(now), unix.AT_SYMLINK_NOFOLLOW)
			}
		}
	}
	if k == l {
		return nil, nil
	}
	return []difference{{where: o.Do, field: "result", path: o.A, kernel: k, lamina: l, op: *o}}, nil
}

// remount compares again after both were mounted anew, when nothing is cached.
// Inode numbers of lamina are as before.
func (w *lockStep) remount() ([]difference, error) {
	before, err := readTree(w.lamina.root, false)
	if err != nil {
		return nil, err
	}
	if err := w.stop(); err != nil {
		return nil, err
	}
	if err := w.mount(); err != nil {
		return nil, err
	}
	list, err := w.check("after remounting", true)
	if err != nil {
		return list, err
	}
	after, err := readTree(w.lamina.root, false)
	if err != nil {
		return list, err
	}
	for _, p := range before.paths() {
		if b, a := before[p], after[p]; a != nil && w.origin(a) && p != "" && a.ino != b.ino {
			list = append(list, difference{where: "remount", field: "st_ino", path: p, kernel: "(must stay)", lamina: fmt.Sprintf("%#x, before %#x", a.ino, b.ino), after: "over a remount"})
		}
	}
	return list, nil
}

// origin tells whether the upper remembers where a file comes from, which keeps
// its number: .wh. files say nothing, with the layer of an origin its number has
// gone, and only files and directories can have user.overlay.origin.
func (w *lockStep) origin(r *record) bool {
	kind := r.fields["type"]
	return w.upperFormat != formatAufs && !w.live && (!rootless || kind == "file" || kind == "dir")
}

// kill ends lamina's server without a word. Files are closed before, which
// hands over what the kernel has gathered.
func (w *lockStep) kill() ([]difference, error) {
	w.close()
	if err := w.laminaMnt.kill(); err != nil {
		return nil, err
	}
	if err := w.laminaMnt.mount(w.laminaStack); err != nil {
		return nil, err
	}
	if err := w.open(); err != nil {
		return nil, err
	}
	return w.check("after the server was killed", true)
}

// changeBranch adds or takes out a lower of the mounted lamina; the kernel is
// mounted again with the same layers.
func (w *lockStep) changeBranch(o op) ([]difference, error) {
	w.close()
	if err := w.kernelMnt.unmount(); err != nil {
		return nil, err
	}
	ks, ls, at := &w.kernelStack, &w.laminaStack, int(o.N)
	if o.Do == doAdd {
		i := w.lowers + o.Slot
		if at <= len(ks.lowers) && !slices.Contains(ks.lowers, w.kernelLowers[i]) {
			if _, err := w.laminaMnt.command("branch", "add", "--index", fmt.Sprint(at), w.laminaMnt.target, w.laminaLowers[i]); err != nil {
				return nil, err
			}
			ks.lowers = slices.Insert(ks.lowers, at, w.kernelLowers[i])
			ls.lowers = slices.Insert(ls.lowers, at, w.laminaLowers[i])
		}
	} else if at < len(ks.lowers) && len(ks.lowers) > 1 {
		if _, err := w.laminaMnt.command("branch", "del", w.laminaMnt.target, ls.lowers[at]); err != nil {
			return nil, err
		}
		ks.lowers = slices.Delete(ks.lowers, at, at+1)
		ls.lowers = slices.Delete(ls.lowers, at, at+1)
	}
	if err := w.kernelMnt.mount(*ks); err != nil {
		return nil, err
	}
	if err := w.open(); err != nil {
		return nil, err
	}
	return w.check("after "+o.Do, true)
}

// check compares the trees. With probe also names that are not listed are asked
// for, which fills the caches of absent names.
func (w *lockStep) check(when string, probe bool) ([]difference, error) {
	k, err := readTree(w.kernel.root, probe)
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	l, err := readTree(w.lamina.root, probe)
	if err != nil {
		return []difference{{where: "tree", field: "unreadable", kernel: "readable", lamina: err.Error(), after: when}}, nil
	}
	w.last = k
	list := compareTrees(k, l, treeRule{links: w.index, blocks: when == "after remounting"}, w.began, when)
	if w.live {
		aliases, stale := k.aliases(), map[string]bool{}
		for i := range list {
			d := &list[i]
			stale[d.path] = strings.Contains(d.kernel, "stale file handle")
			d.aliased = aliases[d.path] || stale[strings.TrimPrefix(filepath.Dir("/"+d.path), "/")]
		}
	}
	return list, nil
}

func (w *lockStep) finish() ([]difference, error) {
	list, err := w.check("at the end", true)
	if err != nil || len(list) > 0 {
		return list, err
	}
	return w.remount()
}

// Whatever a program does, it gets the same answers and leaves the same tree on
// lamina as on kernel overlayfs.
func TestLockStep(t *testing.T) {
	eachSeed(t, 11*time.Second, func(t *testing.T, seed uint64, counts map[string]int) {
		c := lockStepConfig(seed)
		testWorld(t, c, counts, func(s *scratch) world { return newLockStep(s) })
	})
}

// testWorld runs the operations of a seed, or those given, and reports the first
// difference; and a lower that has changed.
func testWorld(t *testing.T, c config, counts map[string]int, build func(s *scratch) world) {
	t.Helper()
	s, err := c.scratch()
	if err != nil {
		t.Fatal(err)
	}
	defer s.remove()
	if err := s.makeLayers(); err != nil {
		t.Fatal(err)
	}
	before, err := s.look()
	if err != nil {
		t.Fatal(err)
	}
	w := build(&s)
	next := generate(w, c)
	if list := given(t); list != nil {
		next = replay(list)
	}
	if c.list != nil {
		next = replay(c.list)
	}
	done, found := run(w, c, next, counts)
	if found != nil {
		report(t, w, c, done, found)
		return
	}
	after, err := s.look()
	if err != nil {
		t.Fatal(err)
	}
	for dir, tree := range before {
		for _, d := range compareTrees(tree, after[dir], treeRule{exactTimes: true, links: true}, time.Now(), "in lower "+dir) {
			t.Errorf("%v\n  a lower layer changed; %v", c, &d)
		}
	}
}
