package devicemapper

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/fs/fusefs"
)

// With dm.backing=fuse2fs a volume is a file that the program fuse2fs serves the ext4
// of, so that an ordinary user has a filesystem within a fixed size. The server of a
// device has its number's file in ROOT/devices locked for as long as it lives (flock:
// exclusive when it writes, else shared): that is how others see whether it has ended.
//
//	volume ── FUSE ──> file ── fuse2fs, -o subdir=/rootfs ──> view
//
// There is no kernel's filesystem that several mounts share. So a view of a committed
// layer is a server of its own, an active layer has one view at a time, and one that
// only looks keeps it from being mounted for writing.

// fuse2fsObstacle says why fuse2fs cannot be had, "" when it can.
func fuse2fsObstacle() string {
	for _, p := range [][2]string{{"fuse2fs", "fuse2fs"}, {"fusermount", "fuse3"}, {"mkfs.ext4", "e2fsprogs"}, {"e2fsck", "e2fsprogs"}, {"resize2fs", "e2fsprogs"}} {
		if _, err := lookProgram(p[0]); err != nil {
			return fmt.Sprintf("%s is missing (Debian: %s)", p[0], p[1])
		}
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Sprintf("no %v", err)
	}
	f.Close()
	return ""
}

// fuse2fsCan tells why fuse2fs cannot do what the options ask for.
func fuse2fsCan(set *settings) error {
	switch o := fuse2fsObstacle(); {
	case o != "":
		return fmt.Errorf("dm.backing=fuse2fs is %w: %s", driver.ErrUnsupported, o)
	case set.filesystem == xfs:
		return fmt.Errorf("dm.fs=xfs is %w by fuse2fs, which has ext4", driver.ErrUnsupported)
	case set.xfsRetries != "":
		return fmt.Errorf("dm.xfs_nospace_max_retries is %w by fuse2fs, which has ext4", driver.ErrUnsupported)
	}
	return nil
}

// byFuse2fs tells whether that serves the devices of the root.
func (d *volumes) byFuse2fs() bool { return d.set.backing == backingFuse2fs }

// fuse2fs mounts the filesystem of a device, or a directory of it, on dir. EBUSY tells
// that another server has the device.
func (d *volumes) fuse2fs(id uint32, file, dir, sub string, readOnly bool, options []string) error {
	lock, err := os.OpenFile(d.devicePath(id), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer lock.Close() // the server has it
	if err := claim(lock, file, readOnly); err != nil {
		return err
	}
	program, err := lookProgram("fuse2fs")
	if err != nil {
		return err
	}
	// fakeroot has it let files be given away; use_ino has names of one file tell so.
	with := []string{"fakeroot,use_ino", "rw"}
	if readOnly {
		with[1] = "ro"
	}
	if sub != "" {
		with = append(with, "modules=subdir", "subdir=/"+sub)
	}
	for _, list := range options {
		for o := range strings.SplitSeq(list, ",") {
			if _, known := mountFlags[o]; o == "" || o == "volatile" || o == "defaults" || o == "relatime" || o == "lazytime" {
				continue // what fuse2fs does anyway
			} else if !known {
				return fmt.Errorf("mount option %s is %w by fuse2fs", o, driver.ErrUnsupported)
			}
			with = append(with, o)
		}
	}
	cmd := exec.Command(program, "-o", strings.Join(with, ","), file, dir)
	cmd.ExtraFiles = []*os.File{lock}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fuse2fs %s: %w: %s", file, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// claim takes the lock of a device, and mends a filesystem that a server has left which
// was killed: it has no journal.
func claim(lock *os.File, file string, shared bool) error {
	how := unix.LOCK_EX
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if shared && unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
			how = unix.LOCK_SH
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return fmt.Errorf("%s is served by another fuse2fs: %w; unmount the layer first", file, unix.EBUSY)
		}
	}
	if how == unix.LOCK_SH {
		return nil // whoever was first has seen to it
	}
	if err := e2fsck(file); err != nil || !shared {
		return err
	}
	return unix.Flock(int(lock.Fd()), unix.LOCK_SH)
}

// e2fsck mends a filesystem that was not unmounted.
func e2fsck(file string) error {
	program, err := lookProgram("e2fsck")
	if err != nil {
		return err
	}
	out, err := exec.Command(program, "-y", file).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil // mended
	}
	if err != nil {
		return fmt.Errorf("e2fsck -y %s: %w: %s", file, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// unserved waits a little until no server has a device.
func unserved(lockPath string) error {
	lock, err := os.Open(lockPath)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("a fuse2fs serves it: %w", unix.EBUSY)
		}
	}
}

// busyFor is how long a mount that is busy is tried again.
const busyFor = 500 * time.Millisecond

// unmountView takes a mount away, whoever has made it.
func (d *volumes) unmountView(target string, lazy bool) error {
	if d.byFuse2fs() {
		// Seen on a machine with much to do: the mount is busy for a moment after its
		// last file was closed.
		for end := time.Now().Add(busyFor); ; time.Sleep(10 * time.Millisecond) {
			err := fusefs.Unmount(target, lazy)
			if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
				return err
			}
		}
	}
	flags := 0
	if lazy {
		flags = unix.MNT_DETACH
	}
	if err := unix.Unmount(target, flags); err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}
