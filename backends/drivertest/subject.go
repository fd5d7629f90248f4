package drivertest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/laminafs/lamina/backends/driver"
)

// A Subject is a driver to be tested.
type Subject struct {
	Open func(driver.Config) (driver.Driver, error)
	// Deepest is how many parents the deepest stack of the suite has.
	Deepest int
	// Clean takes away of a root what os.RemoveAll cannot; nil for nothing.
	Clean func(root string) error
	// TimeUnit is in what times of files are told, when that is coarser than a clock's
	// tick: what happens to a directory within one cannot be seen of it.
	TimeUnit time.Duration
}

// Run runs the suite with each engine.
func Run(t *testing.T, s Subject) {
	for _, engine := range []driver.Engine{driver.Native, driver.Userspace} {
		RunEngine(t, s, engine)
	}
}

// RunEngine runs the suite with one engine.
func RunEngine(t *testing.T, s Subject, engine driver.Engine) {
	t.Run(string(engine), func(t *testing.T) {
		b := newBench(t, s, engine)
		for _, test := range []struct {
			name string
			run  func(*testing.T, *bench)
		}{
			{"Lifecycle", testLifecycle},
			{"Errors", testErrors},
			{"Content", testContent},
			{"Archive", testArchive},
			{"HostileArchives", testHostile},
			{"ManyLayers", testDeep},
			{"Limits", testLimits},
			{"Crashes", testCrashes},
			{"Leftovers", testLeftovers},
			{"TwoProcesses", testTwoProcesses},
			{"Status", testStatus},
		} {
			t.Run(test.name, func(t *testing.T) { test.run(t, b) })
		}
	})
}

// A bench opens a subject with one engine.
type bench struct {
	subject Subject
	engine  driver.Engine
	durable bool // commits wait for the disk, which most tests learn nothing from
}

func newBench(t *testing.T, s Subject, engine driver.Engine) *bench {
	b := &bench{subject: s, engine: engine}
	d, err := b.open(filepath.Join(tempDir(t), "root"), nil)
	if errors.Is(err, driver.ErrUnsupported) {
		t.Skipf("this user has no such engine here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := d.Engine(); got.Engine != engine || got.Why == "" {
		t.Errorf("asked for the engine %s, got %+v", engine, got)
	}
	return b
}

func (b *bench) open(root string, step func(string)) (driver.Driver, error) {
	return b.subject.Open(driver.Config{Root: root, Engine: b.engine, Step: step, Volatile: !b.durable, Servers: Servers, PoolServer: PoolCommand})
}

// tempDir is t.TempDir, entered by everybody: views of other users lead there.
func tempDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A rig is a driver on a directory of its own.
type rig struct {
	t testing.TB
	driver.Driver
	root string
	ctx  context.Context
}

func (b *bench) rig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, root: filepath.Join(tempDir(t), "root"), ctx: context.Background()}
	r.reopen(b)
	t.Cleanup(func() {
		r.unmountAll()
		r.ok(r.Close())
		if b.subject.Clean != nil {
			r.ok(b.subject.Clean(r.root))
		}
	})
	return r
}

func (r *rig) reopen(b *bench) {
	r.t.Helper()
	if r.Driver != nil {
		r.ok(r.Close())
	}
	d, err := b.open(r.root, nil)
	r.ok(err)
	r.Driver = d
}

// unmountAll leaves nothing mounted behind, whatever failed.
func (r *rig) unmountAll() {
	ids, err := r.Layers()
	if err != nil {
		r.t.Error(err)
	}
	for _, id := range ids {
		if at, err := r.Mounts(id); err == nil && len(at) > 0 {
			if err := r.Unmount(r.ctx, id, "", true); err != nil {
				r.t.Error(err)
			}
		}
	}
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// fails checks that an error is the one that callers look for, and says what a
// person needs.
func (r *rig) fails(err, cause error) {
	r.t.Helper()
	var e *driver.Error
	switch {
	case !errors.Is(err, cause):
		r.t.Errorf("got %v, want %v", err, cause)
	case !errors.As(err, &e) || e.Driver != r.Name() || e.Op == "":
		r.t.Errorf("%v does not say which driver failed at what", err)
	}
}

func (r *rig) create(id, parent string) {
	r.t.Helper()
	r.ok(r.Create(r.ctx, id, parent, driver.CreateOptions{}))
}

// mount shows a layer and takes the view away with the test.
func (r *rig) mount(id string) string {
	r.t.Helper()
	path, err := r.Mount(r.ctx, id, driver.MountOptions{})
	r.ok(err)
	return path
}

func (r *rig) unmount(id string) {
	r.t.Helper()
	r.ok(r.Unmount(r.ctx, id, "", false))
}

// committed makes a layer by a change and commits it.
func (r *rig) committed(id, parent string, change func(dir string)) {
	r.t.Helper()
	r.create(id, parent)
	change(r.mount(id))
	r.unmount(id)
	r.ok(r.Commit(r.ctx, id))
}
