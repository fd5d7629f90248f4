package devicemapper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/backends/devicemapper/dm"
	"github.com/laminafs/lamina/backends/devicemapper/loopdev"
	"github.com/laminafs/lamina/backends/driver"
)

// disk makes a block device of its own, with zeros on it.
func disk(t *testing.T, size int64) (path string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, os.Truncate(file, size))
	l, err := loopdev.Attach(file, loopdev.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l.Path()
}

// native runs a test of dm-thin. again opens a root below dir, and closes the driver that was
// open on it.
func native(t *testing.T, test func(t *testing.T, dir string, again func(root string, options ...string) (driver.Driver, error))) {
	t.Run("native", func(t *testing.T) {
		if o := nativeObstacles(true); len(o) > 0 {
			t.Skip(o[0] + "; run make vm-test")
		}
		dir := t.TempDir() // there until the drivers are closed
		opened := map[string]driver.Driver{}
		t.Cleanup(func() {
			for _, d := range opened {
				must(t, d.Close())
			}
		})
		test(t, dir, func(root string, options ...string) (driver.Driver, error) {
			if d := opened[root]; d != nil {
				must(t, d.Close())
				delete(opened, root)
			}
			options = append([]string{"dm.basesize=384m", "dm.fs=ext4"}, options...)
			d, err := Open(driver.Config{Root: root, Engine: driver.Native, Options: options})
			if err == nil {
				opened[root] = d
			}
			return d, err
		})
	})
}

// fill makes a committed layer with a file that says whose it is.
func fill(t *testing.T, d driver.Driver, id, text string) {
	t.Helper()
	create(t, d, id, "", 0)
	must(t, os.WriteFile(filepath.Join(mounted(t, d, id), "file"), []byte(text), 0o644))
	must(t, d.Unmount(ctx, id, "", false))
	must(t, d.Commit(ctx, id))
}

func has(t *testing.T, d driver.Driver, id, text string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(mounted(t, d, id), "file"))
	if err != nil || string(got) != text {
		t.Errorf("layer %s says %q, %v; want %q", id, got, err, text)
	}
	must(t, d.Unmount(ctx, id, "", false))
}

// A pool on disks of its own keeps its layers there, is as large as they are, and does
// not take a disk that another pool has.
func TestDataAndMetadataOnDisks(t *testing.T) {
	native(t, func(t *testing.T, dir string, again func(string, ...string) (driver.Driver, error)) {
		data, metadata := disk(t, 2<<30), disk(t, 64<<20)
		root := filepath.Join(dir, "root")
		options := []string{"dm.datadev=" + data, "dm.metadatadev=" + metadata}
		d, err := again(root, options...)
		must(t, err)
		fill(t, d, "image", "on disks")
		create(t, d, "child", "image", 0)
		if _, err := os.Stat(filepath.Join(root, "devicemapper", "data")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("there is a file for the data beside the disk: %v", err)
		}
		s, err := d.(*volumes).pool.space(ctx)
		if err != nil || s.dataTotal != 2<<30 || s.dataUsed == 0 {
			t.Errorf("the pool on a disk of 2G has %+v, %v", s, err)
		}
		fields, err := d.Status(ctx)
		must(t, err)
		for name, want := range map[string]string{"Data file": data, "Metadata file": metadata} {
			if got := field(fields, name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		d, err = again(root, options...)
		must(t, err)
		has(t, d, "image", "on disks")
		has(t, d, "child", "on disks")

		if _, err := again(filepath.Join(dir, "other"), options...); err == nil || !strings.Contains(err.Error(), "is not empty") {
			t.Errorf("a new root with the metadata of another: %v", err)
		}
		has(t, d, "image", "on disks")
	})
}

func field(fields []driver.Field, name string) string {
	for _, f := range fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// In a pool that others use too, two roots and a device that is somebody else's leave
// each other alone, and the pool stays when they are closed.
func TestAThinPoolThatOthersUse(t *testing.T) {
	native(t, func(t *testing.T, dir string, again func(string, ...string) (driver.Driver, error)) {
		control, err := dm.Open()
		must(t, err)
		t.Cleanup(func() { must(t, control.Close()) })
		const size = 2 << 30
		name := fmt.Sprint("lamina-test-", os.Getpid())
		params := fmt.Sprintf("%s %s 128 1024 1 skip_block_zeroing", disk(t, 64<<20), disk(t, size))
		_, err = control.Create(name, dm.Target{Sectors: size / dm.SectorSize, Type: "thin-pool", Params: params}, false)
		must(t, err)
		t.Cleanup(func() { must(t, control.Remove(name, true)) }) // with the last who has it open
		option := "dm.thinpooldev=/dev/mapper/" + name
		one, other := filepath.Join(dir, "one"), filepath.Join(dir, "other")
		first, err := again(one, option)
		must(t, err)
		second, err := again(other, option)
		must(t, err)
		fill(t, first, "image", "the first's")
		fill(t, second, "image", "the second's")
		has(t, first, "image", "the first's")
		has(t, second, "image", "the second's")
		if got := field(must2(first.Status(ctx))(t), "Pool Name"); got != name {
			t.Errorf("the pool is called %q, want %q", got, name)
		}

		// Numbers that others have are passed over.
		v := first.(*volumes)
		taken := must2(v.devices())(t)
		theirs := taken[len(taken)-1] + 1
		must(t, control.Message(name, fmt.Sprint("create_thin ", theirs)))
		for n, want := range map[uint32]bool{theirs: true, theirs + 1: false, second.(*volumes).format.Base: true} {
			if got, err := v.pool.holds(ctx, n); err != nil || got != want {
				t.Errorf("device %d is others': %v, %v", n, got, err)
			}
		}
		create(t, first, "child", "image", 0)
		if r, err := v.record("child"); err != nil || r.DeviceID != theirs+1 {
			t.Errorf("behind a device of somebody else's, %d, comes %+v, %v", theirs, r, err)
		}
		must(t, first.Remove(ctx, "child"))

		must(t, second.Remove(ctx, "image"))
		first, err = again(one, option)
		must(t, err)
		has(t, first, "image", "the first's")
		must(t, first.Remove(ctx, "image"))
		if held, err := first.(*volumes).pool.holds(ctx, theirs); err != nil || !held {
			t.Errorf("somebody else's device is there: %v, %v", held, err)
		}

		for _, bad := range []string{"nothing", one} {
			if _, err := again(filepath.Join(dir, "bad"), "dm.thinpooldev="+bad); err == nil || !strings.Contains(err.Error(), "no thin pool") {
				t.Errorf("dm.thinpooldev=%s: %v", bad, err)
			}
		}
	})
}

// must2 returns a value that comes with an error.
func must2[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}
