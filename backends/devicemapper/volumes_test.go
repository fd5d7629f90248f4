package devicemapper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivertest"
	"github.com/laminafs/lamina/backends/tree"
)

var ctx = context.Background()

// devices runs a test with each engine and filesystem that devices have here.
func devices(t *testing.T, test func(t *testing.T, open func(options ...string) driver.Driver)) {
	if o := loopObstacle(); o != "" {
		t.Skipf("devices with filesystems are not to be had: %s; run as root", o)
	}
	for _, engine := range []driver.Engine{driver.Native, driver.Userspace} {
		for _, fstype := range []string{ext4, xfs} {
			t.Run(string(engine)+"/"+fstype, func(t *testing.T) {
				if o := filesystemObstacle(fstype); o != "" {
					t.Skip(o)
				}
				if o := nativeObstacles(true); engine == driver.Native && len(o) > 0 {
					t.Skip(o[0] + "; run make vm-test")
				}
				root := filepath.Join(t.TempDir(), "root")
				var last driver.Driver
				t.Cleanup(func() {
					if last != nil {
						must(t, last.Close())
					}
				})
				test(t, func(options ...string) driver.Driver {
					t.Helper()
					if last != nil {
						must(t, last.Close())
					}
					all := []string{"dm.loopdatasize=2g", "dm.loopmetadatasize=64m", "dm.basesize=384m", "dm.fs=" + fstype}
					d, err := Open(driver.Config{Root: root, Engine: engine, Options: append(all, options...), Volatile: true, PoolServer: drivertest.PoolCommand})
					must(t, err)
					last = d
					return d
				})
			})
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, d driver.Driver, id, parent string, size int64) {
	t.Helper()
	must(t, d.Create(ctx, id, parent, driver.CreateOptions{Size: size}))
}

func mounted(t *testing.T, d driver.Driver, id string) string {
	t.Helper()
	at, err := d.Mount(ctx, id, driver.MountOptions{})
	must(t, err)
	t.Cleanup(func() {
		for unix.Unmount(at, unix.MNT_DETACH) == nil {
		}
	})
	return at
}

// room is the size of the filesystem on a directory.
func room(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	return int64(st.Blocks) * st.Bsize
}

// A layer has the size that it was made with, its children are no smaller, and a base
// device that grows is for those to come.
func TestSizesOnlyGrow(t *testing.T) {
	devices(t, func(t *testing.T, open func(options ...string) driver.Driver) {
		d := open()
		create(t, d, "usual", "", 0)
		create(t, d, "large", "", 640<<20)
		usual, large := room(t, mounted(t, d, "usual")), room(t, mounted(t, d, "large"))
		if usual > 384<<20 || large < usual+128<<20 {
			t.Errorf("384M give %d bytes, 640M %d", usual, large)
		}
		if err := d.Create(ctx, "small", "", driver.CreateOptions{Size: 100 << 20}); !errors.Is(err, driver.ErrUnsupported) || !strings.Contains(err.Error(), "grow only") {
			t.Errorf("smaller than the base device: %v", err)
		}
		must(t, d.Unmount(ctx, "large", "", false))
		must(t, d.Commit(ctx, "large"))
		create(t, d, "child", "large", 0)
		if got := room(t, mounted(t, d, "child")); got != large {
			t.Errorf("a child has %d bytes, its parent %d", got, large)
		}
		must(t, d.Unmount(ctx, "child", "", false))
		must(t, d.Unmount(ctx, "usual", "", false))

		d = open("dm.basesize=512m")
		create(t, d, "later", "", 0)
		if got := room(t, mounted(t, d, "later")); got < usual+64<<20 {
			t.Errorf("after dm.basesize has grown a layer has %d bytes, before %d", got, usual)
		}
		must(t, d.Unmount(ctx, "later", "", false))
		if got := room(t, mounted(t, d, "usual")); got != usual {
			t.Errorf("a layer from before has %d bytes, it had %d", got, usual)
		}
	})
}

// A pool with little room takes no new layers, while those that there are can go on.
func TestMinFreeSpaceIsForNewLayers(t *testing.T) {
	devices(t, func(t *testing.T, open func(options ...string) driver.Driver) {
		d := open()
		create(t, d, "one", "", 0)
		d = open("dm.min_free_space=99%")
		at := mounted(t, d, "one")
		must(t, os.WriteFile(filepath.Join(at, "data"), make([]byte, 24<<20), 0o644))
		unix.Sync()
		if err := d.Create(ctx, "two", "", driver.CreateOptions{}); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "min_free_space") {
			t.Errorf("below the minimum: %v", err)
		}
		must(t, d.Unmount(ctx, "one", "", false))
		must(t, d.Commit(ctx, "one"))
		create(t, open("dm.min_free_space=0%"), "two", "one", 0)
	})
}

// A layer that a program still looks at can be removed; its device goes when the
// program ends.
func TestALayerInUseIsDeletedLater(t *testing.T) {
	devices(t, func(t *testing.T, open func(options ...string) driver.Driver) {
		d := open("dm.use_deferred_deletion=true")
		create(t, d, "it", "", 0)
		at := mounted(t, d, "it")
		must(t, os.WriteFile(filepath.Join(at, "file"), []byte("x"), 0o644))
		f, err := os.Open(filepath.Join(at, "file"))
		must(t, err)
		defer f.Close()
		must(t, d.Unmount(ctx, "it", "", true))
		defer func(p func()) { p() }(shorten())
		must(t, d.Remove(ctx, "it"))
		if ids, err := d.Layers(); err != nil || len(ids) > 0 {
			t.Errorf("%q, %v", ids, err)
		}
		doomed := func() string {
			fields, err := d.Status(ctx)
			must(t, err)
			i := slices.IndexFunc(fields, func(f driver.Field) bool { return f.Name == "Deferred Deleted Device Count" })
			return fields[i].Value
		}
		if got := doomed(); got != "1" {
			t.Errorf("%s devices wait to be deleted, want 1", got)
		}
		if b := make([]byte, 1); true {
			if _, err := f.ReadAt(b, 0); err != nil || b[0] != 'x' {
				t.Errorf("the open file reads %q, %v", b, err)
			}
		}
		f.Close()
		if swept, err := d.Cleanup(ctx); err != nil || len(swept) != 1 {
			t.Errorf("swept %q, %v", swept, err)
		}
		if got := doomed(); got != "0" {
			t.Errorf("%s devices wait to be deleted, want none", got)
		}

		d = open("dm.use_deferred_deletion=false")
		create(t, d, "that", "", 0)
		at = mounted(t, d, "that")
		f, err = os.Create(filepath.Join(at, "file"))
		must(t, err)
		must(t, d.Unmount(ctx, "that", "", true))
		if err := d.Remove(ctx, "that"); !errors.Is(err, unix.EBUSY) {
			t.Errorf("removed while in use: %v", err)
		}
		f.Close()
		must(t, d.Remove(ctx, "that"))
	})
}

// shorten has waiting for devices end soon, until the function is called that it
// returns.
func shorten() (back func()) {
	old := patience
	patience = old / 20
	return func() { patience = old }
}

// What is shared is not counted for a layer, and space comes back when it goes.
func TestUsageIsOfTheLayerAlone(t *testing.T) {
	devices(t, func(t *testing.T, open func(options ...string) driver.Driver) {
		d := open()
		create(t, d, "base", "", 0)
		must(t, os.WriteFile(filepath.Join(mounted(t, d, "base"), "big"), make([]byte, 32<<20), 0o644))
		must(t, d.Unmount(ctx, "base", "", false))
		must(t, d.Commit(ctx, "base"))
		used := func() space {
			s, err := d.(*volumes).pool.space(ctx)
			must(t, err)
			return s
		}
		before := used()
		create(t, d, "child", "base", 0)
		must(t, os.WriteFile(filepath.Join(mounted(t, d, "child"), "small"), make([]byte, 100<<10), 0o644))
		must(t, d.Unmount(ctx, "child", "", false))
		if u, err := d.Usage(ctx, "child"); err != nil || u.Bytes < 100<<10 || u.Bytes > 1<<20 || u.Inodes != 1 {
			t.Errorf("a child with 100K of its own takes %+v, %v", u, err)
		}
		if grown := used().dataUsed - before.dataUsed; grown > 8<<20 {
			t.Errorf("a child with 100K of its own has taken %d bytes of the pool", grown)
		}
		must(t, d.Remove(ctx, "child"))
		must(t, d.Remove(ctx, "base"))
		// A pool of lamina's takes volumes apart in the background.
		for end := time.Now().Add(20 * time.Second); used().dataUsed > before.dataUsed-24<<20; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("after 32M were removed the pool has %d bytes in use, before %d", used().dataUsed, before.dataUsed)
			}
		}
	})
}

// A committed layer can be seen in several places at once, and an active one be read
// while it is mounted.
func TestViewsBesideEachOther(t *testing.T) {
	devices(t, func(t *testing.T, open func(options ...string) driver.Driver) {
		d := open()
		create(t, d, "it", "", 0)
		v, err := d.View("it") // before it is mounted, and for longer
		must(t, err)
		at := mounted(t, d, "it")
		must(t, os.WriteFile(filepath.Join(at, "file"), []byte("text"), 0o644))
		second := t.TempDir()
		_, err = d.Mount(ctx, "it", driver.MountOptions{Target: second, ReadOnly: true})
		must(t, err)
		if got, err := os.ReadFile(filepath.Join(second, "file")); err != nil || string(got) != "text" {
			t.Errorf("%q, %v", got, err)
		}
		if err := os.WriteFile(filepath.Join(second, "file"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("writing through a read-only view: %v", err)
		}
		n, err := v.Find("file")
		must(t, err)
		n.Close()
		must(t, v.Close())
		var changed []string
		must(t, d.Changes(ctx, "it", func(c tree.Change) error { changed = append(changed, c.Path); return nil }))
		if !slices.Contains(changed, "file") {
			t.Errorf("changes while mounted: %q", changed)
		}
		must(t, d.Unmount(ctx, "it", "", false))
		must(t, d.Commit(ctx, "it"))
		for range 2 {
			dir := t.TempDir()
			_, err := d.Mount(ctx, "it", driver.MountOptions{Target: dir})
			must(t, err)
			if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "text" {
				t.Errorf("%q, %v", got, err)
			}
		}
		must(t, d.Unmount(ctx, "it", "", false))
	})
}

// The engine of a root stays what it was, and says so.
func TestTheEngineOfARootStays(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	small := []string{"dm.loopdatasize=512m", "dm.loopmetadatasize=64m", "dm.backing=dataset"}
	d, err := Open(driver.Config{Root: root, Engine: driver.Userspace, Options: small, PoolServer: drivertest.PoolCommand})
	if err != nil {
		t.Skipf("datasets are not to be had: %v", err)
	}
	must(t, d.Close())
	if d, err = Open(driver.Config{Root: root, Options: small[:2], PoolServer: drivertest.PoolCommand}); err != nil {
		t.Fatal(err)
	}
	if c := d.Engine(); c.Engine != driver.Userspace || c.Why == "" {
		t.Errorf("%+v", c)
	}
	must(t, d.Close())
	for _, cfg := range []driver.Config{{Engine: driver.Native}, {Engine: driver.Userspace, Options: []string{"dm.backing=loop"}}} {
		cfg.Root = root
		if _, err := Open(cfg); !errors.Is(err, driver.ErrUnsupported) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
