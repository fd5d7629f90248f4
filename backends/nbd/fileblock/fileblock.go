// Package fileblock makes a block device of a file, or of another block device:
// what lamina exports when there is a raw image instead of a volume.
//
//	Zero     fallocate PUNCH_HOLE or ZERO_RANGE, else zeros are written
//	Discard  fallocate PUNCH_HOLE
//	Flush    fdatasync
//	holes    lseek SEEK_DATA, SEEK_HOLE
package fileblock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A Block is an open file. Its methods are safe for use at once.
type Block struct {
	file     *os.File
	size     int64
	readOnly bool
}

// New returns the device that a file is. The file stays open while the
// device is in use, and is the caller's to close.
func New(f *os.File) (*Block, error) {
	size, err := f.Seek(0, io.SeekEnd) // Stat says 0 of a block device
	if err != nil {
		return nil, fmt.Errorf("fileblock: size of %s: %w", f.Name(), err)
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return nil, fmt.Errorf("fileblock: open mode of %s: %w", f.Name(), err)
	}
	return &Block{f, size, flags&unix.O_ACCMODE == unix.O_RDONLY}, nil
}

// Size returns the size in bytes when New was called.
func (b *Block) Size() int64 { return b.size }

// ReadOnly tells whether the file was opened for reading alone.
func (b *Block) ReadOnly() bool { return b.readOnly }

// ReadAt implements io.ReaderAt.
func (b *Block) ReadAt(p []byte, off int64) (int, error) { return b.file.ReadAt(p, off) }

// WriteAt implements io.WriterAt.
func (b *Block) WriteAt(p []byte, off int64) (int, error) { return b.file.WriteAt(p, off) }

// Flush makes what was written survive a crash.
func (b *Block) Flush(context.Context) error {
	if err := unix.Fdatasync(int(b.file.Fd())); err != nil {
		return fmt.Errorf("fileblock: fdatasync %s: %w", b.file.Name(), err)
	}
	return nil
}

const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE

// Discard gives the space of a range back. The error is errors.ErrUnsupported
// where the file cannot have holes.
func (b *Block) Discard(_ context.Context, off, n int64) error {
	return b.fallocate(punch, off, n)
}

// Zero makes a range read as zeros.
func (b *Block) Zero(ctx context.Context, off, n int64) error {
	err := b.fallocate(punch, off, n)
	if errors.Is(err, errors.ErrUnsupported) {
		err = b.fallocate(unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	zeros := make([]byte, min(n, 256<<10))
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		m := min(n, int64(len(zeros)))
		if _, err := b.file.WriteAt(zeros[:m], off); err != nil {
			return err
		}
		off, n = off+m, n-m
	}
	return nil
}

func (b *Block) fallocate(mode uint32, off, n int64) error {
	for {
		err := unix.Fallocate(int(b.file.Fd()), mode, off, n)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("fileblock: fallocate %s: %w", b.file.Name(), err)
		}
		return nil
	}
}

// Allocated returns how many of n bytes at off are alike, and whether they are
// a hole. A file that cannot tell is all data.
func (b *Block) Allocated(off, n int64) (int64, bool, error) {
	data, err := unix.Seek(int(b.file.Fd()), off, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO:
		return n, true, nil // a hole up to the end
	case err == unix.EINVAL || err == unix.EOPNOTSUPP:
		return n, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("fileblock: SEEK_DATA %s at %d: %w", b.file.Name(), off, err)
	case data > off:
		return min(data-off, n), true, nil
	}
	hole, err := unix.Seek(int(b.file.Fd()), off, unix.SEEK_HOLE)
	if err != nil {
		return 0, false, fmt.Errorf("fileblock: SEEK_HOLE %s at %d: %w", b.file.Name(), off, err)
	}
	if hole <= off {
		return n, false, nil // a hole was made between the two calls; data is never a wrong answer
	}
	return min(hole-off, n), false, nil
}
