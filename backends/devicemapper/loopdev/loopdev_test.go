package loopdev

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A device shows its file, and is gone with who held it.
func TestALoopDeviceEndsWithItsHolder(t *testing.T) {
	if f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0); err != nil {
		t.Skipf("loop devices are for root, with the module loop: %v", err)
	} else {
		f.Close()
	}
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, bytes.Repeat([]byte("lamina!\n"), 1<<17), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{}, {ReadOnly: true}, {Direct: true}} {
		l, err := Attach(file, o)
		if err != nil {
			t.Fatal(err)
		}
		if over, err := Over(file); err != nil || len(over) != 1 || over[0] != l.Path() {
			t.Errorf("%+v: over the file are %q, %v; want %s", o, over, err, l.Path())
		}
		if err := WaitFree(file, 20*time.Millisecond); !errors.Is(err, unix.EBUSY) {
			t.Errorf("waiting for a device that stays: %v", err)
		}
		got := make([]byte, 8)
		dev, err := os.Open(l.Path())
		if err != nil {
			t.Fatal(err)
		}
		if ro, err := unix.IoctlGetInt(int(dev.Fd()), unix.BLKROGET); err != nil || (ro == 1) != o.ReadOnly {
			t.Errorf("%+v: read-only is %d, %v", o, ro, err)
		}
		if _, err := dev.ReadAt(got, 4096); err != nil || string(got) != "lamina!\n" {
			t.Errorf("%+v: %q, %v", o, got, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if over, err := Over(file); err != nil || len(over) != 1 {
			t.Errorf("%+v: it went while it was open: %q, %v", o, over, err)
		}
		dev.Close()
		if err := WaitFree(file, 10*time.Second); err != nil {
			t.Error(err)
		}
	}
	if _, err := Attach(file+".none", Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
