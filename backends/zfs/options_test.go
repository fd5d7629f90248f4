package zfs

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
		"vdev=raidz9":                    "raidz9",
		"property=compression":           "NAME=VALUE",
		"property=compression=bzip2":     "bzip2",
		"property=no.such=1":             "no.such",
		"size=lots":                      "is no size",
		"inodes=many":                    "is no size",
		"fsname=nobodys/images":          "nobodys",
		"fsname=tank/images poolsize=1g": "the pool is there already",
		"fsname=tank/images vdev=mirror": "the pool is there already",
		"mountpoint=/x":                  "no such option",
	})
}

// A pool is made of the devices and in the way that was asked for, its layers inherit
// the properties, and status says so.
func TestPoolsAreMadeAsAskedFor(t *testing.T) {
	dir := t.TempDir()
	var devices []string
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 128<<20)); err != nil {
			t.Fatal(err)
		}
		devices = append(devices, path)
	}
	ctx := t.Context()
	d, err := Open(driver.Config{Root: filepath.Join(dir, "root"), Engine: driver.Userspace, PoolServer: drivertest.PoolCommand, Options: []string{
		"zfs.vdev=mirror", "zfs.devices=" + strings.Join(devices, ","), "zfs.property=compression=zstd,atime=off", "zfs.size=16m", "zfs.inodes=100",
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fields, err := d.Status(ctx)
	for name, want := range map[string]string{"Vdev": "mirror", "Compression": "zstd", "Parent Quota": "no"} {
		if !slices.Contains(fields, driver.Field{Name: name, Value: want}) {
			t.Errorf("%s is not %s: %+v, %v", name, want, fields, err)
		}
	}
	if err := d.Create(ctx, "it", "", driver.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if l, err := d.Layer("it"); err != nil || l.Size != 16<<20 || l.Inodes != 100 {
		t.Errorf("a layer without limits of its own: %+v, %v", l, err)
	}
}

// What zpool and zfs are told themselves is refused natively, and so is a dataset of
// nobody's.
func TestNativeOptionsAreRefusedWithTheReason(t *testing.T) {
	for option, says := range map[string]string{"poolsize=1g": "lamina's own pools", "vdev=mirror": "lamina's own pools", "property=atime=off": "lamina's own pools", "inodes=5": "lamina's own pools"} {
		_, err := Open(driver.Config{Root: filepath.Join(t.TempDir(), "root"), Engine: driver.Native, Options: []string{option}})
		if !errors.Is(err, driver.ErrUnsupported) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want %q", option, err, says)
		}
	}
}
