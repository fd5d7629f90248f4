package devicemapper

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivertest"
)

// What fuse2fs cannot do is refused with the reason, and never done half.
func TestFuse2fsRefusesWhatItCannotDo(t *testing.T) {
	if o := fuse2fsObstacle(); o != "" {
		t.Skip(o)
	}
	root := filepath.Join(t.TempDir(), "root")
	open := func(options ...string) (driver.Driver, error) {
		options = append([]string{"dm.loopdatasize=1g", "dm.loopmetadatasize=64m", "dm.basesize=64m", "dm.backing=fuse2fs"}, options...)
		return Open(driver.Config{Root: root, Options: options, Volatile: true, PoolServer: drivertest.PoolCommand})
	}
	for _, option := range []string{"dm.fs=xfs", "dm.xfs_nospace_max_retries=1", "dm.blocksize=1m"} {
		if _, err := open(option); !errors.Is(err, driver.ErrUnsupported) {
			t.Errorf("%s: %v", option, err)
		}
	}
	d, err := open()
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	if c := d.Engine(); c.Engine != driver.Userspace {
		t.Errorf("%+v", c)
	}
	create(t, d, "it", "", 0)
	if _, err := d.Mount(ctx, "it", driver.MountOptions{Options: []string{"discard"}}); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("an option of the kernel's ext4: %v", err)
	}
	at, err := d.Mount(ctx, "it", driver.MountOptions{})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(at, "file"), []byte("text"), 0o644))
	if _, err := d.Mount(ctx, "it", driver.MountOptions{Target: t.TempDir(), ReadOnly: true}); !errors.Is(err, driver.ErrUnsupported) || !strings.Contains(err.Error(), "second view") {
		t.Errorf("an active layer in two places: %v", err)
	}
	must(t, d.Unmount(ctx, "it", "", false))

	// One that is being read is not written to beside that.
	v, err := d.View("it")
	must(t, err)
	back := shorten()
	if _, err := d.Mount(ctx, "it", driver.MountOptions{}); !errors.Is(err, unix.EBUSY) {
		t.Errorf("mounted for writing while it is being read: %v", err)
	}
	back()
	must(t, v.Close())
	must(t, d.Commit(ctx, "it"))

	// A committed one is seen wherever it is wanted.
	for range 2 {
		at, err := d.Mount(ctx, "it", driver.MountOptions{Target: t.TempDir()})
		must(t, err)
		if got, err := os.ReadFile(filepath.Join(at, "file")); err != nil || string(got) != "text" {
			t.Errorf("%q, %v", got, err)
		}
		if err := os.WriteFile(filepath.Join(at, "other"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("writing to a committed layer: %v", err)
		}
	}
	must(t, d.Unmount(ctx, "it", "", false))
}
