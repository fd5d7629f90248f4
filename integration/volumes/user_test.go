//go:build integration

package volumes

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func timeout() <-chan time.Time { return time.After(30 * time.Second) }

// Ordinary users have no loop devices; their tools work on the file.
func TestToolsOfOrdinaryUsers(t *testing.T) {
	need(t, "fusermount3", "dd", "cmp")
	s := start(t, nobody)
	file := s.create("dir/vol", 64<<20)
	image := filepath.Join(s.files, "image")
	data := make([]byte, 8<<20+4321)
	rand.Read(data)
	if err := os.WriteFile(image, data, 0o644); err != nil {
		t.Fatal(err)
	}
	s.run(nobody, "dd", "if="+image, "of="+file, "bs=1M", "conv=notrunc,fsync")
	s.run(nobody, "cmp", "-n", "8392929", image, file)
	s.run(nobody, "dd", "if="+file, "of="+image+".back", "bs=1000k", "iflag=direct", "count=4")
	s.run(nobody, "cmp", "-n", "4096000", image, image+".back")

	t.Run("qemu-img", func(t *testing.T) {
		need(t, "qemu-img")
		var info struct {
			Size int64 `json:"virtual-size"`
		}
		if err := json.Unmarshal([]byte(s.run(nobody, "qemu-img", "info", "--output=json", file)), &info); err != nil || info.Size != 64<<20 {
			t.Errorf("qemu-img sees %d bytes (%v)", info.Size, err)
		}
		s.run(nobody, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file, s.create("copy", 64<<20))
		s.run(nobody, "cmp", file, filepath.Join(s.target, "copy"))
	})
	t.Run("fuse2fs", func(t *testing.T) {
		need(t, "fuse2fs", "mkfs.ext4", "e2fsck")
		s.run(nobody, "mkfs.ext4", "-q", "-F", "-E", "root_owner=65534:65534", file)
		dir := filepath.Join(s.files, "fs")
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		os.Chown(dir, nobody, nobody)
		cmd := s.command(nobody, "fuse2fs", "-o", "rw", file, dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("fuse2fs does not mount here: %v: %s", err, out)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		s.run(nobody, "cp", image, filepath.Join(dir, "image"))
		s.run(nobody, "cmp", image, filepath.Join(dir, "image"))
		s.run(nobody, "fusermount3", "-u", dir)
		eventually(t, "fuse2fs to end", func() bool { return s.stats().Opened == 0 })
		s.run(nobody, "e2fsck", "-fn", file)
	})
	t.Run("root is kept out", func(t *testing.T) {
		if _, err := os.Stat(file); err == nil {
			t.Error("root sees the mount of an ordinary user who has not asked for allow_other")
		}
	})
}

func TestSnapshotsAreReadOnly(t *testing.T) {
	s := start(t, 0)
	file := s.create("vol@snap", 1<<20)
	st, err := os.Stat(file)
	if err != nil || st.Mode() != 0o400 {
		t.Errorf("mode %v (%v), want 0400", st.Mode(), err)
	}
	if _, err := unix.Open(file, unix.O_RDWR, 0); err != unix.EROFS {
		t.Errorf("opening for writing: %v, want EROFS", err)
	}
	need(t, "losetup")
	dev := s.loop(file)
	if ro := s.run(0, "losetup", "-n", "-O", "RO", dev); strings.TrimSpace(ro) != "1" {
		t.Errorf("the loop device is not read-only: %q", ro)
	}
}

func TestNamesFollowThePool(t *testing.T) {
	s := start(t, 0)
	list := func(dir string) string {
		t.Helper()
		entries, err := os.ReadDir(filepath.Join(s.target, dir))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return strings.Join(names, " ")
	}
	for _, name := range []string{"a", "a@1", "d/b", "d/e/c"} {
		s.create(name, 1<<20)
	}
	if got := list(""); got != "a a@1 d" {
		t.Errorf("root: %s", got)
	}
	if got := list("d"); got != "b e" {
		t.Errorf("d: %s", got)
	}
	if _, err := os.Stat(filepath.Join(s.target, "new")); !os.IsNotExist(err) {
		t.Errorf("new: %v", err)
	}
	old, err := unix.Open(s.create("new", 2<<20), unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(old)
	s.ask("remove", "new", 0, nil)
	if _, err := os.Stat(filepath.Join(s.target, "new")); !os.IsNotExist(err) {
		t.Errorf("a removed volume: %v", err)
	}
	if _, err := unix.Pwrite(old, []byte("still there"), 0); err != nil {
		t.Errorf("writing to a volume that was removed while open: %v", err)
	}
	s.create("new", 3<<20)
	if st, err := os.Stat(filepath.Join(s.target, "new")); err != nil || st.Size() != 3<<20 {
		t.Errorf("another volume of that name: %v, %v", st, err)
	}
	buf := make([]byte, 11)
	if n, err := unix.Pread(old, buf, 0); err != nil || string(buf[:n]) != "still there" {
		t.Errorf("the open volume reads %q (%v)", buf[:n], err)
	}
	s.ask("remove", "d/b", 0, nil)
	s.ask("remove", "d/e/c", 0, nil)
	if got := list(""); got != "a a@1 new" {
		t.Errorf("root at the end: %s", got)
	}
	s.ask("resize", "a", 5<<20, nil)
	if st, err := os.Stat(filepath.Join(s.target, "a")); err != nil || st.Size() != 5<<20 {
		t.Errorf("after resizing: %v, %v", st, err)
	}
}
