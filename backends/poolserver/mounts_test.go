package poolserver

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
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

// create makes a file on a mount that this process serves. Package os would poll it while
// the garbage collector waits for the thread, and the server for the garbage collector.
func create(t *testing.T, path string) (fd int) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// umount(8) returns before the server knows of it: whoever mounts again at once, there
// or elsewhere, must not be told that the dataset is mounted.
func TestADatasetIsMountedAgainAsSoonAsItIsUnmounted(t *testing.T) {
	b := newBench(t)
	c := b.start(0)
	dir, other := b.mountable(c, "set"), t.TempDir()
	b.mount(c, "set", dir, "")
	for i := range 40 {
		unix.Close(create(t, filepath.Join(dir, "f")))
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

// What was unmounted is not listed: a layer that was mounted a moment ago can be removed.
func TestADatasetIsNotListedOnceItIsUnmounted(t *testing.T) {
	b := newBench(t)
	c := b.start(0)
	dir := b.mountable(c, "set")
	for i := range 100 {
		b.mount(c, "set", dir, "")
		if _, err := DatasetUnmount.Call(ctx, c, UnmountDataset{Target: dir}); err != nil {
			t.Fatal(err)
		}
		if list, err := DatasetMounts.Call(ctx, c, None{}); err != nil || len(list) > 0 {
			t.Fatalf("round %d: mounted are %+v, %v", i, list, err)
		}
	}
}

// What was unmounted lazily and is in use cannot be mounted again; the message says so
// and does not speak of a mount that nobody can see.
func TestWhatWasUnmountedLazilyIsInUse(t *testing.T) {
	b := newBench(t)
	c := b.start(0)
	dir := b.mountable(c, "set")
	b.mount(c, "set", dir, "")
	f := create(t, filepath.Join(dir, "f"))
	if err := fusefs.Unmount(dir, true); err != nil {
		t.Fatal(err)
	}
	_, err := DatasetMount.Call(ctx, c, MountDataset{Name: "set", Target: dir})
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "still in use") {
		t.Errorf("mounting it: %v", err)
	}
	unix.Close(f)
	b.mount(c, "set", dir, "")
}

// Whoever sets a property need not know what is mounted: it is in force at once, as with
// zfs, also where it is inherited, and in a nested subvolume.
func TestPropertiesReachWhatIsMounted(t *testing.T) {
	b := newBench(t)
	c := b.start(0)
	dir := b.mountable(c, "set")
	b.mount(c, "set", dir, "writeback=1")
	must[Subvolume](t)(SubvolumeCreate.Call(ctx, c, Spot{Target: dir, DirIno: 1, Name: []byte("sub")}))
	set := func(name string, properties ...string) error {
		t.Helper()
		values := map[string]string{}
		for _, p := range properties {
			key, value, _ := strings.Cut(p, "=")
			values[key] = value
		}
		_, err := DatasetSet.Call(ctx, c, SetDatasets{Names: []string{name}, Properties: values})
		return err
	}
	mustSet := func(name string, properties ...string) {
		t.Helper()
		if err := set(name, properties...); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755) }
	want := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	want("at first", write("f", "text"), nil)

	open := must[*os.File](t)(os.OpenFile(filepath.Join(dir, "f"), os.O_RDWR, 0))
	defer open.Close()
	open.WriteString("held")
	mustSet("", "readonly=on")
	want("making a file in what inherits readonly", write("g", ""), unix.EROFS)
	want("making one in a subvolume", write("sub/g", ""), unix.EROFS)
	if _, err := open.WriteString("more"); err == nil {
		err = open.Sync()
		want("writing to an open file", err, unix.EROFS)
	}
	open.Close()
	if got := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "f"))); !strings.HasPrefix(string(got), "held") {
		t.Errorf("what was written before is %q", got)
	}
	mustSet("", "readonly=off")
	want("making a file again", write("g", ""), nil)
	want("making one in a subvolume again", write("sub/g", ""), nil)
	mustSet("set/sub", "readonly=on")
	want("making one in a subvolume that is read-only", write("sub/h", ""), unix.EROFS)
	want("making one beside it", write("h", ""), nil)
	mustSet("set/sub", "readonly=off")

	mustSet("set", "inodes=6")
	made := 0
	for ; made < 10 && write("n"+string(rune('0'+made)), "") == nil; made++ {
	}
	if made >= 10 {
		t.Error("a bound of inodes is not kept")
	}
	want("a file in a subvolume, which has a bound of its own", write("sub/i", ""), nil)
	mustSet("set/sub", "inodes=3")
	want("a file in it that is too many", write("sub/j", ""), unix.EDQUOT)
	mustSet("set", "inodes=none", "snapdir=visible")
	want("one more", write("more", ""), nil)
	if _, err := os.Stat(filepath.Join(dir, ".lamina")); err != nil {
		t.Error(err)
	}
	if list := must[[]os.DirEntry](t)(os.ReadDir(dir)); list[0].Name() != ".lamina" {
		t.Errorf("the directory of snapshots is not listed, but %v", list)
	}

	mustSet("set", "refquota=1M")
	f := must[*os.File](t)(os.Create(filepath.Join(dir, "large")))
	_, err := f.Write(randomBytes(2 << 20))
	err = errors.Join(err, f.Sync(), f.Close())
	want("writing past a quota", err, unix.EDQUOT)
	os.Remove(f.Name())
	mustSet("set", "refquota=none", "atime=off")
	if o := must[[]MountInfo](t)(DatasetMounts.Call(ctx, c, None{}))[0].Options; o["atime"] != "noatime" {
		t.Errorf("atime is %q", o["atime"])
	}

	want("a program", write("program", "#!/bin/sh\nexit 0\n"), nil)
	if err := exec.Command(filepath.Join(dir, "program")).Run(); err != nil {
		t.Fatal(err)
	}
	err = set("set", "exec=off")
	if os.Geteuid() != 0 {
		want("a flag that only root can change", err, unix.EPERM)
		return
	}
	want("exec=off", err, nil)
	want("running a program", exec.Command(filepath.Join(dir, "program")).Run(), unix.EACCES)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}
