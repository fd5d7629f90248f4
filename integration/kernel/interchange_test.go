//go:build integration

package kernel

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Operations on the mount.
const (
	doTurn = "turn" // the other engine mounts the upper
	doPush = "push" // the upper becomes a lower, and the other engine mounts it
)

// interchange is one upper that both engines mount in turns.
type interchange struct {
	*scratch
	engines [2]engine // the kernel and lamina
	now     int       // whose turn it is
	first   int
	side    side
	stack   stack
	uppers  int // how many there were
	began   time.Time
	last    tree
	mounted bool
	wrote   bool // lamina has changed something
}

var _ world = (*interchange)(nil)

func newInterchange(s *scratch) *interchange {
	return &interchange{scratch: s, first: int(s.seed % 2), engines: [2]engine{
		&kernelMount{target: filepath.Join(s.home, "kernel", "mnt"), options: s.kernelOptions()},
		&laminaMount{target: filepath.Join(s.home, "lamina", "mnt"), options: s.laminaOptions(), state: filepath.Join(s.home, "state")},
	}}
}

func (w *interchange) seen() tree { return w.last }

func (w *interchange) start() ([]difference, error) {
	for i := range w.uppers + 1 {
		os.RemoveAll(w.upper(i))
		os.RemoveAll(w.work(i))
	}
	for _, engine := range []string{"kernel", "lamina"} {
		if err := w.mountpoint(engine); err != nil {
			return nil, err
		}
	}
	w.uppers, w.now, w.wrote = 0, w.first, false
	w.began = time.Now().Add(-time.Second)
	w.stack = stack{slices.Clone(w.kernelLowers), w.upper(0), w.work(0)}
	if err := w.stack.makeUpper(); err != nil {
		return nil, err
	}
	if err := w.mount(); err != nil {
		return nil, err
	}
	var err error
	w.last, err = readTree(w.side.root, true)
	return nil, err
}

func (w *interchange) upper(i int) string { return filepath.Join(w.home, fmt.Sprint("u", i)) }
func (w *interchange) work(i int) string  { return filepath.Join(w.home, fmt.Sprint("w", i)) }

func (w *interchange) mount() error {
	e := w.engines[w.now]
	if err := e.mount(w.stack); err != nil {
		return err
	}
	w.mounted = true
	return w.side.open(e.dir())
}

func (w *interchange) stop() error {
	if !w.mounted {
		return nil
	}
	w.mounted = false
	w.side.close()
	return w.engines[w.now].unmount()
}

func (w *interchange) control(c *chooser) op {
	o := op{Do: pick(c.r, doCheck, doTurn, doTurn, doTurn, doPush)}
	if w.index && o.Do == doPush {
		// The index, which ties names of lower files to what they have become,
		// does not go with the upper.
		o.Do = doTurn
	}
	return o
}

func (w *interchange) do(o *op) ([]difference, error) {
	switch o.Do {
	case doCheck:
		var err error
		w.last, err = readTree(w.side.root, false)
		return nil, err
	case doTurn, doPush:
		return w.turn(o.Do == doPush)
	}
	w.wrote = w.wrote || w.now == 1
	o.Said = w.side.run(*o)
	return nil, nil
}

// turn unmounts the upper, mounts it with the other engine and compares what
// the two show.
func (w *interchange) turn(push bool) ([]difference, error) {
	for i := range w.side.files {
		w.side.closeSlot(i)
	}
	before, err := readTree(w.side.root, false)
	if err != nil {
		return nil, err
	}
	if err := w.stop(); err != nil {
		return nil, err
	}
	if push {
		w.uppers++
		w.stack = stack{slices.Insert(w.stack.lowers, 0, w.stack.upper), w.upper(w.uppers), w.work(w.uppers)}
		if err := w.stack.makeUpper(); err != nil {
			return nil, err
		}
	}
	w.now = 1 - w.now
	if err := w.mount(); err != nil {
		return nil, err
	}
	after, err := readTree(w.side.root, true)
	if err != nil {
		return nil, err
	}
	w.last = after
	when := "written by the kernel"
	if w.wrote {
		when += ", and by lamina before"
	}
	k, l := before, after
	if w.now == 0 {
		when, k, l = "written by lamina", after, before
	}
	if push {
		// The root has the attributes of the new upper now.
		when += " and made a lower"
		delete(before, "")
		after = maps.Clone(after)
		delete(after, "")
		if w.now == 0 {
			k = after
		} else {
			l = after
		}
	}
	return compareTrees(k, l, treeRule{exactTimes: true, links: w.index}, w.began, when), nil
}

func (w *interchange) finish() ([]difference, error) { return w.turn(false) }

// An upper goes from lamina to the kernel and back, and each shows what the
// other has made of it.
func TestInterchange(t *testing.T) {
	eachSeed(t, 9*time.Second, func(t *testing.T, seed uint64, counts map[string]int) {
		c, _ := common(seed)
		testWorld(t, c, counts, func(s *scratch) world { return newInterchange(s) })
	})
}
