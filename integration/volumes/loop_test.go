//go:build integration

package volumes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs"
)

func TestExt4OnALoopDevice(t *testing.T) {
	need(t, "mkfs.ext4", "e2fsck", "fstrim")
	s := start(t, 0)
	file := s.create("ext4", 1<<30)
	dev := s.loop(file)
	s.run(0, "mkfs.ext4", "-q", dev)
	s.work(s.mount(dev))
	s.run(0, "e2fsck", "-fn", dev)
	s.detach(dev)
	s.run(0, "e2fsck", "-fn", file) // and without the loop device
}

func TestXFSOnALoopDevice(t *testing.T) {
	need(t, "mkfs.xfs", "xfs_repair", "fstrim")
	s := start(t, 0)
	dev := s.loop(s.create("xfs", 1<<30))
	s.run(0, "mkfs.xfs", "-q", dev)
	s.work(s.mount(dev))
	s.run(0, "xfs_repair", "-n", dev)
	s.detach(dev)
}

// work uses a filesystem, has it discard what it no longer needs and unmounts it.
func (s *server) work(dir string) {
	s.t.Helper()
	for i := range 200 {
		name := filepath.Join(dir, fmt.Sprint("file", i))
		if err := os.WriteFile(name, []byte(strings.Repeat(name, 5000)), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	s.run(0, "sync", "-f", dir)
	before := s.stats()
	if before.Flushes == 0 {
		s.t.Error("a synced filesystem has flushed nothing")
	}
	for i := range 100 {
		if err := os.Remove(filepath.Join(dir, fmt.Sprint("file", i))); err != nil {
			s.t.Fatal(err)
		}
	}
	s.run(0, "sync", "-f", dir)
	s.run(0, "fstrim", dir)
	if after := s.stats(); after.Discarded <= before.Discarded {
		s.t.Errorf("fstrim has discarded nothing: %+v, then %+v", before, after)
	}
	for i := 100; i < 200; i++ {
		name := filepath.Join(dir, fmt.Sprint("file", i))
		if got, err := os.ReadFile(name); err != nil || string(got) != strings.Repeat(name, 5000) {
			s.t.Errorf("%s is not what was written (%v)", name, err)
		}
	}
	s.run(0, "umount", dir)
}

func (s *server) detach(dev string) {
	s.t.Helper()
	s.run(0, "losetup", "-d", dev)
	eventually(s.t, "the volume to be closed", func() bool { return s.stats().Opened == 0 })
}

// A flush that is lost loses data in a power cut, and one too many is slow.
func TestEveryFsyncIsOneFlush(t *testing.T) {
	s := start(t, 0)
	file := s.create("vol", 1<<20)
	fd, err := unix.Open(file, unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	flushes := func(what string, want int64, do func() error) {
		t.Helper()
		before := s.stats().Flushes
		if err := do(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := s.stats().Flushes - before; got != want {
			t.Errorf("%s: %d flushes, want %d", what, got, want)
		}
	}
	flushes("write", 0, func() error { _, err := unix.Pwrite(fd, make([]byte, 8192), 0); return err })
	flushes("fsync", 1, func() error { return unix.Fsync(fd) })
	flushes("fsync without a write", 1, func() error { return unix.Fsync(fd) })
	flushes("fdatasync", 1, func() error { return unix.Fdatasync(fd) })
	flushes("close", 0, func() error { return unix.Close(fd) })
	flushes("write with O_DSYNC", 1, func() error {
		fd, err := unix.Open(file, unix.O_WRONLY|unix.O_DSYNC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.Pwrite(fd, make([]byte, 4096), 0)
		return err
	})
	dev := s.loop(file)
	flushes("fsync of the loop device", 1, func() error {
		fd, err := unix.Open(dev, unix.O_RDWR|unix.O_DIRECT, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Fsync(fd)
	})
}

func TestBusyMountNamesTheLoopDevices(t *testing.T) {
	need(t, "mkfs.ext4")
	s := start(t, 0)
	dev := s.loop(s.create("vol", 64<<20))
	s.run(0, "mkfs.ext4", "-q", dev)
	dir := s.mount(dev)
	c, err := fusefs.Dial(s.target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Unmount(false)
	if !errors.Is(err, unix.EBUSY) {
		t.Fatalf("unmounting below a loop device: %v, want EBUSY", err)
	}
	for _, word := range []string{dev, "umount " + dir, "losetup -d " + dev} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the refusal %q does not say %q", err, word)
		}
	}
	// Ended by a signal, as at shutdown, it serves until nobody needs it.
	if err := unix.Kill(s.pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the mount to go out of sight", func() bool {
		var st unix.Statfs_t
		return unix.Statfs(s.target, &st) == nil && st.Type != unix.FUSE_SUPER_MAGIC
	})
	if err := os.WriteFile(filepath.Join(dir, "late"), make([]byte, 1<<20), 0o644); err != nil {
		t.Error(err)
	}
	s.run(0, "umount", dir)
	s.run(0, "e2fsck", "-fn", dev)
	s.run(0, "losetup", "-d", dev)
	eventually(t, "the server to end with the last loop device", func() bool { return !alive(s.pid) })
}

// Whoever uses a filesystem above a killed server gets errors and can clean up.
func TestKilledServerHangsNobody(t *testing.T) {
	need(t, "mkfs.ext4", "dd")
	s := start(t, 0)
	dev := s.loop(s.create("vol", 256<<20))
	s.run(0, "mkfs.ext4", "-q", dev)
	dir := s.mount(dev)
	writer := s.command(0, "dd", "if=/dev/zero", "of="+filepath.Join(dir, "big"), "bs=1M", "count=1000", "conv=fsync")
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- writer.Wait() }()
	eventually(t, "the writer to write", func() bool {
		c, err := fusefs.Dial(s.target)
		if err != nil {
			return false
		}
		defer c.Close()
		n, err := c.Counters()
		return err == nil && n.BytesWritten > 16<<20
	})
	if err := unix.Kill(s.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the writer has written to nobody, and heard of no error")
		}
	case <-timeout():
		t.Fatal("the writer hangs")
	}
	eventually(t, "the mount to go away", func() bool {
		var st unix.Statfs_t
		return unix.Statfs(s.target, &st) == nil && st.Type != unix.FUSE_SUPER_MAGIC
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.command(0, "umount", dir).Run() // with or without an error
		s.command(0, "losetup", "-d", dev).Run()
	}()
	select {
	case <-done:
	case <-timeout():
		t.Fatal("unmounting what lies on the killed server hangs")
	}
}

// A thread of the server that frees memory by writing to a loop device above its
// own volume waits for itself.
func TestServerDoesNotFreeMemoryThroughItself(t *testing.T) {
	if info, ok := debug.ReadBuildInfo(); !ok || slices.Contains(info.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "1"}) {
		t.Skip("only a program without cgo can say it for all of its threads; run with CGO_ENABLED=0")
	}
	s := start(t, 0)
	if unix.Prctl(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0) == unix.EPERM {
		t.Skip("root has no CAP_SYS_RESOURCE here")
	}
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.pid))
	if err != nil || len(stats) < 2 {
		t.Fatalf("threads of the server: %q (%v)", stats, err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		const (
			flagsField     = 6          // behind the name; number 9 in proc_pid_stat(5)
			pfMemallocNoIO = 0x00080000 // include/linux/sched.h
		)
		if flags, err := strconv.ParseUint(fields[flagsField], 10, 64); err != nil || flags&pfMemallocNoIO == 0 {
			t.Errorf("%s: flags %#x (%v)", path, flags, err)
		}
	}
}

// What is large should stay large: every request costs a round trip.
func TestLargeTransfersAreOneRequest(t *testing.T) {
	s := start(t, 0)
	fd, err := unix.Open(s.create("vol", 8<<20), unix.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(buf)
	for _, do := range []func(int, []byte, int64) (int, error){unix.Pwrite, unix.Pread} {
		if n, err := do(fd, buf, 1<<20); n != len(buf) || err != nil {
			t.Fatal(n, err)
		}
	}
	c, err := fusefs.Dial(s.target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Counters(); err != nil || n.Requests["WRITE"] != 1 || n.Requests["READ"] != 1 {
		t.Errorf("a megabyte each way is %d WRITE and %d READ (%v)", n.Requests["WRITE"], n.Requests["READ"], err)
	}
}
