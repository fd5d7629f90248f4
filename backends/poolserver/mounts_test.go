package poolserver

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs"
)

// mountable makes a dataset and a directory to mount it on.
func (b *bench) mountable(c *Client, name string) (dir string) {
	b.Helper()
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		b.Skipf("no FUSE here: %v", err)
	} else {
		f.Close()
	}
	must[Dataset](b)(DatasetCreate.Call(ctx, c, CreateDataset{Name: name}))
	return b.TempDir()
}

// mount mounts a dataset until the test ends.
func (b *bench) mount(c *Client, name, dir, options string) {
	b.Helper()
	_, err := DatasetMount.Call(ctx, c, MountDataset{Name: name, Target: dir, Options: options})
	if err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, os.ErrNotExist) {
			b.Skipf("this user cannot mount: %v", err)
		}
		b.Fatal(err)
	}
	b.Cleanup(func() { fusefs.Unmount(dir, true) })
}

// umount(8) returns before the server knows of it: whoever mounts again at once, there
// or elsewhere, must not be told that the dataset is mounted.
func TestADatasetIsMountedAgainAsSoonAsItIsUnmounted(t *testing.T) {
	b := newBench(t)
	c := b.start(0)
	dir, other := b.mountable(c, "set"), t.TempDir()
	b.mount(c, "set", dir, "")
	for i := range 40 {
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := fusefs.Unmount(dir, false); err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 {
			dir, other = other, dir
		}
		if _, err := DatasetMount.Call(ctx, c, MountDataset{Name: "set", Target: dir}); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		t.Cleanup(func() { fusefs.Unmount(dir, true) })
	}
}

// What was unmounted lazily and is in use cannot be mounted again; the message says so
// and does not speak of a mount that nobody can see.
func TestWhatWasUnmountedLazilyIsInUse(t *testing.T) {
	b := newBench(t)
	c := b.start(0)
	dir := b.mountable(c, "set")
	b.mount(c, "set", dir, "")
	f := must[*os.File](t)(os.Create(filepath.Join(dir, "f")))
	defer f.Close()
	if err := fusefs.Unmount(dir, true); err != nil {
		t.Fatal(err)
	}
	_, err := DatasetMount.Call(ctx, c, MountDataset{Name: "set", Target: dir})
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "still in use") {
		t.Errorf("mounting it: %v", err)
	}
	f.Close()
	b.mount(c, "set", dir, "")
}
