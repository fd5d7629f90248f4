package btrfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivertest"
)

// What cannot be honoured is refused with the reason, before anything is made.
func TestOptionsAreHonouredOrRefused(t *testing.T) {
	drivertest.Refused(t, Open, map[string]string{
		"data=raid10":    "any two devices",
		"data=raid0":     "spreads chunks",
		"metadata=dup":   "take raid1",
		"metadata=raid5": "take raid1",
		"data=jbod":      "accepted: single, raid1, raid5, raid6",
		"size=lots":      "is no size",
		"subvol=x":       "no such option",
	})
}

// A pool is made with the profile that was asked for, takes further devices while its
// layers are mounted, and bounds layers by what they refer to.
func TestDevicesAreAddedWhileLayersAreMounted(t *testing.T) {
	dir := t.TempDir()
	var devices []string
	for _, name := range []string{"a", "b", "c", "d"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 128<<20)); err != nil {
			t.Fatal(err)
		}
		devices = append(devices, path)
	}
	ctx := t.Context()
	open := func(n int) driver.Driver {
		t.Helper()
		d, err := Open(driver.Config{
			Root: filepath.Join(dir, "root"), Engine: driver.Userspace, PoolServer: drivertest.PoolCommand,
			Options: []string{"btrfs.data=raid1", "btrfs.min_space=64k", "btrfs.devices=" + strings.Join(devices[:n], ",")},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	status := func(d driver.Driver, name, want string) {
		t.Helper()
		fields, err := d.Status(ctx)
		if err != nil || !slices.Contains(fields, driver.Field{Name: name, Value: want}) {
			t.Errorf("%s is not %s: %+v, %v", name, want, fields, err)
		}
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d := open(2)
	status(d, "Devices", "2")
	status(d, "Data Profile", "raid1")
	status(d, "Metadata Profile", "raid1")
	ok(d.Create(ctx, "base", "", driver.CreateOptions{}))
	at, err := d.Mount(ctx, "base", driver.MountOptions{})
	if err != nil {
		t.Skipf("no FUSE mounts here: %v", err)
	}
	status(open(4), "Devices", "4")
	ok(os.WriteFile(at+"/f", make([]byte, 1<<20), 0o644))
	ok(d.Unmount(ctx, "base", "", false))
	ok(d.Commit(ctx, "base"))

	if err := d.Create(ctx, "tiny", "", driver.CreateOptions{Size: 4096}); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("a size below min_space: %v", err)
	}
	usage, err := d.Usage(ctx, "base")
	if err != nil || usage.Inodes != 2 { // the file and the root directory
		t.Errorf("usage %+v, %v", usage, err)
	}
}
