package vdev

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// device is a regular file or a block device.
type device struct {
	file  *os.File
	path  string
	block bool
	size  atomic.Int64

	fdatasync func(fd int) error // unix.Fdatasync; tests have it fail

	// syncing is held over fdatasync. The kernel tells a failed write-back to
	// one caller only, so a second one must not run, and succeed, beside the
	// one that is about to learn of it.
	syncing  sync.Mutex
	failed   error // what the first failed Sync said
	growing  sync.Mutex
	closing  sync.Once
	closeErr error
}

var _ Device = (*device)(nil)

func (d *device) Path() string { return d.path }

func (d *device) Size() int64 { return d.size.Load() }

func (d *device) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.file.ReadAt(p, off)
	if err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("read %d bytes of %s at %d: %w", len(p), d.path, off, cause(err))
}

func (d *device) WriteAt(p []byte, off int64) (int, error) {
	if !InRange(off, int64(len(p)), d.Size()) {
		return 0, fmt.Errorf("write %d bytes of %s at %d: %w (%d bytes)", len(p), d.path, off, ErrBeyondEnd, d.Size())
	}
	n, err := d.file.WriteAt(p, off)
	if err != nil {
		return n, fmt.Errorf("write %d bytes of %s at %d: %w", len(p), d.path, off, cause(err))
	}
	return n, nil
}

func (d *device) Sync() error {
	d.syncing.Lock()
	defer d.syncing.Unlock()
	if d.failed != nil {
		return fmt.Errorf("sync %s: %w since an earlier failure: %w", d.path, ErrSyncFailed, d.failed)
	}
	err := control(d.file, func(fd int) error { return ignoringEINTR(func() error { return d.fdatasync(fd) }) })
	if err == nil {
		return nil
	}
	d.failed = err
	return fmt.Errorf("sync %s: %w: %w", d.path, ErrSyncFailed, err)
}

func (d *device) Discard(off, n int64) error {
	if !InRange(off, n, d.Size()) {
		return fmt.Errorf("discard %d bytes of %s at %d: %w (%d bytes)", n, d.path, off, ErrBeyondEnd, d.Size())
	}
	if n == 0 {
		return nil
	}
	err := control(d.file, func(fd int) error {
		return ignoringEINTR(func() error {
			if d.block {
				return blkDiscard(fd, off, n)
			}
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		})
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) {
		err = ErrNoDiscard
	}
	if err != nil {
		return fmt.Errorf("discard %d bytes of %s at %d: %w", n, d.path, off, err)
	}
	return nil
}

func (d *device) Grow(size int64) error {
	d.growing.Lock()
	defer d.growing.Unlock()
	have, err := d.measure()
	if err != nil {
		return err
	}
	if d.block {
		if have < size {
			return fmt.Errorf("grow %s: the device has %d bytes, not %d: enlarge it first", d.path, have, size)
		}
		d.size.Store(max(have, d.Size()))
		return nil
	}
	if size < have {
		return fmt.Errorf("grow %s: it has %d bytes already, more than %d", d.path, have, size)
	}
	if err := d.file.Truncate(size); err != nil {
		return fmt.Errorf("grow %s to %d bytes: %w", d.path, size, cause(err))
	}
	d.size.Store(size)
	return nil
}

func (d *device) Close() error {
	d.closing.Do(func() {
		if err := d.file.Close(); err != nil {
			d.closeErr = fmt.Errorf("close %s: %w", d.path, cause(err))
		}
	})
	return d.closeErr
}

// measure asks the kernel how long the device is.
func (d *device) measure() (int64, error) {
	if d.block {
		var size uint64
		err := control(d.file, func(fd int) error { return ioctl(fd, unix.BLKGETSIZE64, unsafe.Pointer(&size)) })
		if err != nil {
			return 0, fmt.Errorf("size of %s: %w", d.path, err)
		}
		return int64(size), nil
	}
	info, err := d.file.Stat()
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", d.path, cause(err))
	}
	return info.Size(), nil
}

// blkDiscard rounds the range inwards to the sectors of 512 bytes that the
// kernel accepts.
func blkDiscard(fd int, off, n int64) error {
	const sector = 512
	start, end := (off+sector-1)/sector*sector, (off+n)/sector*sector
	if start >= end {
		return nil
	}
	span := [2]uint64{uint64(start), uint64(end - start)}
	return ioctl(fd, unix.BLKDISCARD, unsafe.Pointer(&span))
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// control runs f with the descriptor, which cannot be closed, and its number
// reused, meanwhile.
func control(file *os.File, f func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return cause(err)
	}
	var result error
	if err := conn.Control(func(fd uintptr) { result = f(int(fd)) }); err != nil {
		return os.ErrClosed // the only reason for not calling f
	}
	return result
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// cause strips what an os.PathError repeats of our own message.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
