package btrfs

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/datasets"
	"github.com/laminafs/lamina/backends/drivertest"
	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/backends/tree"
)

// inPool opens a driver with a pool of its own.
func inPool(t *testing.T) driver.Driver {
	t.Helper()
	d, err := Open(driver.Config{
		Root: filepath.Join(t.TempDir(), "root"), Engine: driver.Userspace, Options: []string{"poolsize=512m"}, PoolServer: drivertest.PoolCommand,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// mounted makes and mounts a layer, and skips where nothing can be mounted.
func mounted(t *testing.T, d driver.Driver, id, parent string) string {
	t.Helper()
	if err := d.Create(t.Context(), id, parent, driver.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	at, err := d.Mount(t.Context(), id, driver.MountOptions{})
	if err != nil {
		t.Skipf("no FUSE mounts here: %v", err)
	}
	t.Cleanup(func() { _ = d.Unmount(t.Context(), id, "", true) }) // it is unmounted already when all went well
	return at
}

// Killing the server of the pool loses nothing that was acknowledged: the next thing
// that is asked starts another one, which mounts again what was mounted.
func TestLayersSurviveTheirServer(t *testing.T) {
	d := inPool(t)
	ctx := t.Context()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := mounted(t, d, "work", "")
	ok(os.WriteFile(at+"/f", []byte("written"), 0o644))
	st, err := datasets.Ask(ctx, d.(*datasets.Driver), poolserver.PoolStatus, poolserver.None{})
	ok(err)
	ok(unix.Kill(st.Server.PID, unix.SIGKILL))
	if again, err := d.Mounts("work"); err != nil || !slices.Contains(again, at) {
		t.Errorf("mounted on %q, %v; want %s", again, err, at)
	}
	text, err := os.ReadFile(at + "/f")
	if err != nil || string(text) != "written" {
		t.Errorf("%q, %v", text, err)
	}
	ok(d.Unmount(ctx, "work", "", false))
	ok(d.Commit(ctx, "work"))
	l, err := d.Layer("work")
	if err != nil || !l.Committed {
		t.Errorf("%+v, %v", l, err)
	}
}

// What differs is found by what changed in the pool, and told as a comparison of all
// names would tell it: each name of a file that has several, what lies in a directory
// that was moved, and what is in one that took the place of another.
func TestChangesOfNamesThatDidNotChangeThemselves(t *testing.T) {
	d := inPool(t)
	ctx := t.Context()
	at := mounted(t, d, "base", "")
	steps := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	steps(os.WriteFile(at+"/one", []byte("1"), 0o644), os.Link(at+"/one", at+"/two"),
		os.MkdirAll(at+"/moved/deep", 0o755), os.WriteFile(at+"/moved/deep/f", nil, 0o644),
		os.Mkdir(at+"/old", 0o755), os.WriteFile(at+"/old/gone", nil, 0o644), os.WriteFile(at+"/old/same", nil, 0o644),
		os.Mkdir(at+"/new", 0o755), os.WriteFile(at+"/new/came", nil, 0o644),
		os.Mkdir(at+"/quiet", 0o755), os.WriteFile(at+"/quiet/f", nil, 0o644),
		d.Unmount(ctx, "base", "", false), d.Commit(ctx, "base"))
	at = mounted(t, d, "top", "base")
	f, err := os.OpenFile(at+"/two", os.O_WRONLY|os.O_APPEND, 0)
	steps(err)
	_, err = f.WriteString("2")
	steps(err, f.Close(), os.Rename(at+"/moved", at+"/here"),
		os.RemoveAll(at+"/old"), os.Rename(at+"/new", at+"/old"), d.Unmount(ctx, "top", "", false))
	var got []string
	steps(d.Changes(ctx, "top", func(c tree.Change) error {
		got = append(got, string(c.Kind)+" "+c.Path)
		return nil
	}))
	want := []string{"A here", "A here/deep", "A here/deep/f", "D moved", "D new", "C old", "A old/came", "D old/gone", "D old/same", "C one", "C two"}
	if !slices.Equal(got, want) {
		t.Errorf("changes %q\nwant %q", got, want)
	}
	usage, err := d.Usage(ctx, "top")
	if err != nil || usage.Bytes == 0 || usage.Bytes > 1<<20 || usage.Inodes == 0 {
		t.Errorf("usage %+v, %v", usage, err)
	}
}
