package vdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Open opens the file or block device at path for reading and writing, alone:
// while it is open, every other Open of the same file fails as [ErrInUse],
// whatever the path, and so does mounting a block device.
func Open(path string) (Device, error) {
	info, err := os.Stat(path) // first, because to open a tape or a FIFO has effects
	if err != nil {
		return nil, fmt.Errorf("open device: %w", err)
	}
	block, err := isBlock(path, info)
	if err != nil {
		return nil, err
	}
	flags := os.O_RDWR
	if block {
		flags |= os.O_EXCL // without O_CREATE: fails while mounted or claimed
	}
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("open device %s: %w: it is mounted, swap, part of a dm, md or loop device, or of another pool", path, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("open device: %w", err)
	}
	d, err := take(f, path, info, block)
	if err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// Create makes a sparse file of size bytes and opens it as [Open] does. A path
// that exists is refused with an error that is fs.ErrExist. When Create
// returns, the name survives a power failure.
//
// Crash before the directory is synced: no file, or an empty one, or all of it;
// no label is in it yet, so no pool takes it for its own.
func Create(path string, size int64) (Device, error) {
	if size < 0 {
		return nil, fmt.Errorf("create device %s: size %d is negative", path, size)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create device: %w", err)
	}
	d, err := fill(f, path, size)
	if err != nil {
		f.Close()
		os.Remove(path) // ours, and empty; the first error is the one to tell
		return nil, fmt.Errorf("create device %s: %w", path, err)
	}
	return d, nil
}

func fill(f *os.File, path string, size int64) (Device, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return take(f, path, info, false)
}

// take locks the opened file and makes a device of it. info is what was at the
// path before it was opened.
func take(f *os.File, path string, info fs.FileInfo, block bool) (Device, error) {
	now, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open device: %w", err)
	}
	if !os.SameFile(info, now) {
		return nil, fmt.Errorf("open device %s: it was replaced while it was opened", path)
	}
	if err := lock(f, path, now, block); err != nil {
		return nil, err
	}
	d := &device{file: f, path: path, block: block, fdatasync: unix.Fdatasync}
	size, err := d.measure()
	if err != nil {
		return nil, err
	}
	d.size.Store(size)
	return d, nil
}

func isBlock(path string, info fs.FileInfo) (bool, error) {
	switch m := info.Mode(); {
	case m.IsRegular():
		return false, nil
	case m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0:
		return true, nil
	default:
		return false, fmt.Errorf("open device %s: it is %w (%v)", path, ErrNotDevice, m.Type())
	}
}

// udevPatience is how long a lock of a block device is waited for. systemd-udevd
// holds a shared one for a moment after each close of a device that was open
// for writing, to look at what is on it.
const udevPatience = 2 * time.Second

// lock takes the flock that keeps other pools out. It belongs to the open file,
// so the kernel drops it when the process dies, however it dies.
func lock(f *os.File, path string, info fs.FileInfo, block bool) error {
	deadline := time.Now()
	if block {
		deadline = deadline.Add(udevPatience)
	}
	for {
		err := control(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("lock device %s: %w", path, err)
		case time.Now().After(deadline):
			return fmt.Errorf("open device %s: %w: %s", path, ErrInUse, holder(info))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
