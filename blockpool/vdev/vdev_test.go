package vdev

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func create(t *testing.T, size int64) *device {
	t.Helper()
	d, err := Create(filepath.Join(t.TempDir(), "disk"), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d.(*device)
}

func TestWhatIsWrittenIsThereAfterReopening(t *testing.T) {
	d := create(t, 1<<20)
	want := []byte("kept")
	if _, err := d.WriteAt(want, 1<<20-4); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatalf("second close: %v", err)
	}
	again, err := Open(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Size() != 1<<20 {
		t.Errorf("size %d", again.Size())
	}
	got := make([]byte, 4)
	if _, err := again.ReadAt(got, 1<<20-4); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAFileIsSparse(t *testing.T) {
	d := create(t, 1<<40)
	var st unix.Stat_t
	if err := unix.Stat(d.Path(), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != 1<<40 || st.Blocks > 64 {
		t.Errorf("%d bytes in %d blocks", st.Size, st.Blocks)
	}
}

func TestNothingHappensBeyondTheEnd(t *testing.T) {
	d := create(t, 4096)
	n, err := d.ReadAt(make([]byte, 10), 4090)
	if n != 6 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read across the end: %d, %v", n, err)
	}
	if _, err := d.ReadAt(make([]byte, 1), 4096); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read at the end: %v", err)
	}
	for _, off := range []int64{4090, 4096, 1 << 62, -1} {
		if _, err := d.WriteAt(make([]byte, 10), off); !errors.Is(err, ErrBeyondEnd) {
			t.Errorf("write at %d: %v", off, err)
		}
		if err := d.Discard(off, 1<<62); !errors.Is(err, ErrBeyondEnd) {
			t.Errorf("discard at %d: %v", off, err)
		}
	}
	if info, err := os.Stat(d.Path()); err != nil || info.Size() != 4096 {
		t.Errorf("the file has changed: %v, %v", info.Size(), err)
	}
}

func TestASecondOpenIsToldWhoHasTheDevice(t *testing.T) {
	d := create(t, 4096)
	link := filepath.Join(t.TempDir(), "alias")
	if err := os.Symlink(d.Path(), link); err != nil {
		t.Fatal(err)
	}
	_, err := Open(link)
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("opened twice: %v", err)
	}
	if !strings.HasPrefix(err.Error(), "open device "+link+": in use by another process: ") {
		t.Errorf("the message is %q", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(link)
	if err != nil {
		t.Fatalf("after the first was closed: %v", err)
	}
	again.Close()
}

func TestHolderIsFoundInProcLocks(t *testing.T) {
	const locks = `1: POSIX  ADVISORY  WRITE 11 fe:01:77 0 EOF
2: FLOCK  ADVISORY  WRITE 12 fe:01:78 0 EOF
2: -> FLOCK  ADVISORY  WRITE 13 fe:01:77 0 EOF
3: FLOCK  ADVISORY  WRITE 14 fe:01:77 0 EOF
4: FLOCK
`
	if pid := flockHolder(strings.NewReader(locks), 0xfe, 1, 77); pid != 14 {
		t.Errorf("holder is %d", pid)
	}
	if pid := flockHolder(strings.NewReader(locks), 0xfe, 1, 79); pid != 0 {
		t.Errorf("nobody holds it, but %d is named", pid)
	}
}

func TestCreateDoesNotTouchWhatIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(path, 4096); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "data" {
		t.Errorf("it holds %q now", b)
	}
}

func TestOnlyFilesAndBlockDevicesAreDevices(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, t.TempDir(), "/dev/null"} {
		if _, err := Open(path); !errors.Is(err, ErrNotDevice) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func TestASyncThatFailedNeverSucceedsLater(t *testing.T) {
	d := create(t, 4096)
	d.fdatasync = func(int) error { return unix.EIO }
	if err := d.Sync(); !errors.Is(err, ErrSyncFailed) || !errors.Is(err, unix.EIO) {
		t.Fatalf("first: %v", err)
	}
	d.fdatasync = unix.Fdatasync // which would succeed, as the kernel's does
	for range 3 {
		if err := d.Sync(); !errors.Is(err, ErrSyncFailed) || !errors.Is(err, unix.EIO) {
			t.Fatalf("later: %v", err)
		}
	}
}

func TestAnInterruptedSyncIsRepeated(t *testing.T) {
	d := create(t, 4096)
	calls := 0
	d.fdatasync = func(int) error {
		if calls++; calls < 3 {
			return unix.EINTR
		}
		return nil
	}
	if err := d.Sync(); err != nil || calls != 3 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

func TestDiscardGivesTheSpaceOfAFileBack(t *testing.T) {
	d := create(t, 1<<20)
	if _, err := d.WriteAt(bytes.Repeat([]byte{7}, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	err := d.Discard(4096, 512<<10)
	if errors.Is(err, ErrNoDiscard) {
		t.Skip("the filesystem of the temporary directory cannot punch holes")
	}
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1<<20)
	if _, err := d.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if got[4095] != 7 || got[4096] != 0 || got[4096+512<<10-1] != 0 || got[4096+512<<10] != 7 {
		t.Error("other bytes than those discarded have changed")
	}
}

func TestAFileGrowsAndNeverShrinks(t *testing.T) {
	d := create(t, 4096)
	if err := d.Grow(8192); err != nil || d.Size() != 8192 {
		t.Fatalf("%v, size %d", err, d.Size())
	}
	if _, err := d.WriteAt([]byte{1}, 8191); err != nil {
		t.Error(err)
	}
	if err := d.Grow(4096); err == nil || d.Size() != 8192 {
		t.Errorf("shrunk: %v, size %d", err, d.Size())
	}
}

func TestAClosedDeviceFailsAndDoesNotPanic(t *testing.T) {
	d := create(t, 4096)
	d.Close()
	if _, err := d.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := d.WriteAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write: %v", err)
	}
	if err := d.Sync(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("sync: %v", err)
	}
}

func TestBlockDevice(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a loop device needs root")
	}
	back := filepath.Join(t.TempDir(), "back")
	if err := os.WriteFile(back, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", back).Output()
	if err != nil {
		t.Skipf("no loop device to be had: %v", err)
	}
	loop := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "--detach", loop).Run()
	d, err := Open(loop)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Size() != 1<<20 {
		t.Errorf("size %d", d.Size())
	}
	if _, err := Open(loop); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if _, err := d.WriteAt([]byte("x"), 1<<20-1); err != nil {
		t.Error(err)
	}
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
	if err := d.Discard(0, 64<<10); err != nil && !errors.Is(err, ErrNoDiscard) {
		t.Error(err)
	}
	if err := d.Grow(2 << 20); err == nil {
		t.Error("a device of 1 MiB was taken for one of 2 MiB")
	}
	if err := os.Truncate(back, 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("losetup", "--set-capacity", loop).Run(); err != nil {
		t.Fatal(err)
	}
	if err := d.Grow(2 << 20); err != nil || d.Size() != 2<<20 {
		t.Errorf("after enlarging: %v, size %d", err, d.Size())
	}
}
