// Package vdev opens what a pool keeps its bytes on: regular files and block
// devices. It knows nothing of pools; it adds to the system calls what somebody
// who stores other people's data needs of them.
//
//	pool, raid, labels
//	        │ Device
//	   ┌────┴─────┬───────────────┐
//	regular file  block device    memdev.Device (tests)
//	flock         flock + O_EXCL
//
// # Invariants
//
//   - A device is open at most once, on the whole machine.
//   - A read fills its buffer or fails. A write that returned nil is what later
//     reads see; it survives a power failure only after the next Sync.
//   - A Sync that failed is never followed by one that succeeds, until the
//     device is closed and opened anew. The kernel reports a failed write-back
//     once and then holds the pages for clean, so a second fdatasync that
//     returns 0 says nothing about the bytes that the first one lost
//     (https://lwn.net/Articles/752063/, "PostgreSQL's fsync() surprise").
//   - The size of a device changes only by Grow.
//
// All methods may be called at the same time from several goroutines. Sync
// calls of one device wait for each other.
package vdev

import (
	"errors"
	"io"
)

// A Device is a fixed number of bytes that can be read and written anywhere.
// Errors name the operation, the device and the offset.
type Device interface {
	// ReadAt fills p from off. Fewer bytes than len(p) are an error that wraps
	// io.ErrUnexpectedEOF, never a bare io.EOF.
	io.ReaderAt
	// WriteAt writes all of p or fails. It never makes the device longer: what
	// lies beyond the end is refused as [ErrBeyondEnd].
	io.WriterAt
	// Sync makes every write, discard and Grow that returned before the call
	// durable, as fdatasync(2). After one failure each later call fails with
	// [ErrSyncFailed].
	Sync() error
	// Discard tells the device that n bytes at off are not needed any more.
	// What they read as is not defined: zeros from a file, anything from a
	// block device. A device that cannot do it returns [ErrNoDiscard].
	Discard(off, n int64) error
	// Size returns the length in bytes.
	Size() int64
	// Grow makes a file size bytes long, without allocating. It reads the
	// length of a block device again, which must be at least size then. It
	// never shrinks.
	Grow(size int64) error
	// Path returns the name that the device was opened by.
	Path() string
	// Close gives the device back without a Sync. A second call does nothing.
	Close() error
}

var (
	// ErrNoDiscard tells that a device, or the filesystem of a file, cannot
	// discard.
	ErrNoDiscard = errors.New("discard is not supported")
	// ErrSyncFailed tells that a Sync of this device failed, now or earlier, so
	// that bytes which were written since the last good one may be lost.
	ErrSyncFailed = errors.New("bytes written may not be on the device")
	// ErrInUse tells that somebody else has the device open.
	ErrInUse = errors.New("in use by another process")
	// ErrNotDevice tells that a path is neither a regular file nor a block
	// device.
	ErrNotDevice = errors.New("neither a regular file nor a block device")
	// ErrBeyondEnd tells that a range does not lie within the device.
	ErrBeyondEnd = errors.New("range beyond the end of the device")
)

// InRange tells whether n bytes at off lie within size bytes.
func InRange(off, n, size int64) bool {
	return off >= 0 && n >= 0 && off <= size && n <= size-off
}
