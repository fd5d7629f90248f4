package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// How the kernel treats open volumes; see the package comment. FLUSH, which
// close(2) would send, has nothing to do.
const (
	directFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES | fuse.FOPEN_NOFLUSH
	cachedFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
)

func (v *volumeFS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	v.count.add(opOpen)
	n := v.nodes.get(in.NodeId)
	if n == nil {
		return stale
	}
	info, err := v.stat(n)
	if err != nil {
		return v.status(err)
	}
	b, err := n.open(func() (*openBlock, error) {
		block, err := v.volumes.Open(info.Name)
		if err != nil {
			return nil, err
		}
		return newOpenBlock(block, v.direct), nil
	}, func(off, length int64) {
		if n.cached.Load() {
			v.drop(n.id, off, length)
		}
	})
	if err != nil {
		return v.status(fmt.Errorf("open volume %s: %w", info.Name, err))
	}
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY && (b.readOnly || info.ReadOnly) {
		v.release(n)
		return fuse.EROFS
	}
	out.OpenFlags = directFlags
	if b.watched != nil && in.Flags&unix.O_DIRECT == 0 {
		out.OpenFlags = cachedFlags
	}
	return fuse.OK
}

// Release finds its node: the kernel forgets an inode only when RELEASE was
// answered (fs/fuse/file.c, fuse_release_common).
func (v *volumeFS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	v.count.add(opRelease)
	if n := v.nodes.get(in.NodeId); n != nil {
		v.release(n)
	}
}

func (v *volumeFS) release(n *node) {
	if err := n.release(); err != nil {
		v.log.Printf("close volume %s: %v", n.currentName(), err)
	}
}

func (v *volumeFS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// opened returns the volume of a request on an open file.
func (v *volumeFS) opened(id uint64) (*node, *openBlock) {
	n := v.nodes.get(id)
	if n == nil {
		return nil, nil
	}
	return n, n.block.Load()
}

// within returns how much of a range lies in a volume, in bytes.
func within(size int64, off, n uint64) int64 {
	if size < 0 || off >= uint64(size) {
		return 0
	}
	return int64(min(n, uint64(size)-off))
}

func (v *volumeFS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	v.count.add(opRead)
	n, b := v.opened(in.NodeId)
	if b == nil {
		return nil, stale
	}
	buf = buf[:within(b.Size(), in.Offset, uint64(min(len(buf), int(in.Size))))]
	if len(buf) == 0 {
		return fuse.ReadResultData(nil), fuse.OK
	}
	if b.watched != nil && in.ReadFlags&fuse.READ_LOCKOWNER == 0 {
		n.cached.Store(true) // before it is read: who changes it later knows
	}
	k, err := b.ReadAt(buf, int64(in.Offset))
	if err != nil && !(errors.Is(err, io.EOF) && k == len(buf)) {
		return nil, v.status(fmt.Errorf("read volume %s, %d bytes at %d: %w", n.currentName(), len(buf), in.Offset, err))
	}
	v.count.read.Add(uint64(k))
	return fuse.ReadResultData(buf[:k]), fuse.OK
}

// Write also flushes for descriptors with O_DSYNC or O_SYNC and for RWF_DSYNC: of
// what does not go by way of the page cache the kernel leaves that to the server,
// and says so in the flags (fs/fuse/file.c, fuse_write_flags); else FSYNC comes
// after it.
func (v *volumeFS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	v.count.add(opWrite)
	n, b := v.opened(in.NodeId)
	if b == nil {
		return 0, stale
	}
	data = data[:within(b.Size(), in.Offset, uint64(len(data)))]
	if len(data) == 0 {
		return 0, fuse.Status(unix.ENOSPC)
	}
	// Who passes by the page cache says whose locks it has (fuse_direct_io).
	direct := b.watched == nil || in.WriteFlags&fuse.WRITE_LOCKOWNER != 0
	if !direct {
		n.cached.Store(true)
	}
	k, err := b.WriteAt(data, int64(in.Offset))
	n.touch()
	if direct && n.cached.Swap(false) {
		// The kernel has dropped what it held before it sent this, and may have read
		// some of it again since. It may hold up the reply, so this waits for that.
		go v.drop(n.id, 0, math.MaxInt64)
	}
	v.count.written.Add(uint64(k))
	if err != nil {
		return 0, v.status(fmt.Errorf("write volume %s, %d bytes at %d: %w", n.currentName(), len(data), in.Offset, err))
	}
	if direct && in.Flags&unix.O_DSYNC != 0 {
		if err := b.Flush(context.Background()); err != nil {
			return 0, v.status(fmt.Errorf("flush volume %s: %w", n.currentName(), err))
		}
	}
	return uint32(k), fuse.OK
}

// until returns a context that ends with the program that asks.
func until(cancel <-chan struct{}) context.Context { return &fuse.Context{Cancel: cancel} }

// Fsync is not cut short by a signal: fsync(2) knows no EINTR, programs take any
// error of it for lost data, and a Go program gets signals all the time.
func (v *volumeFS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	v.count.add(opFsync)
	n, b := v.opened(in.NodeId)
	if b == nil {
		return stale
	}
	if err := b.Flush(context.Background()); err != nil {
		return v.status(fmt.Errorf("flush volume %s: %w", n.currentName(), err))
	}
	return fuse.OK
}

func (v *volumeFS) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	v.count.add(opFallocate)
	n, b := v.opened(in.NodeId)
	if b == nil {
		return stale
	}
	length := within(b.Size(), in.Offset, in.Length)
	beyond := uint64(length) < in.Length
	var what func(ctx context.Context, off, n int64) error
	switch in.Mode {
	case 0, unix.FALLOC_FL_KEEP_SIZE:
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE:
		what, beyond = b.Discard, false // there is nothing behind the end
	case unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE:
		what = b.Zero
	default:
		return fuse.Status(unix.EOPNOTSUPP)
	}
	if beyond {
		return fuse.Status(unix.ENOSPC)
	}
	if what == nil || length == 0 {
		return fuse.OK
	}
	err := what(until(cancel), int64(in.Offset), length)
	n.touch()
	if err != nil {
		return v.status(fmt.Errorf("zero volume %s, %d bytes at %d: %w", n.currentName(), length, in.Offset, err))
	}
	return fuse.OK
}

// Lseek finds data and holes; the end of a volume is a hole.
func (v *volumeFS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	v.count.add(opLseek)
	n, b := v.opened(in.NodeId)
	if b == nil {
		return stale
	}
	size := b.Size()
	if in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE {
		return fuse.EINVAL
	}
	if in.Offset >= uint64(size) {
		return fuse.Status(unix.ENXIO)
	}
	off, err := seek(b, int64(in.Offset), size, in.Whence == unix.SEEK_HOLE)
	if err != nil {
		return v.status(fmt.Errorf("look for data in volume %s from %d: %w", n.currentName(), in.Offset, err))
	}
	if off == size && in.Whence == unix.SEEK_DATA {
		return fuse.Status(unix.ENXIO)
	}
	out.Offset = uint64(off)
	return fuse.OK
}

// seek returns where the next hole or data begins, the size where there is none.
func seek(b *openBlock, off, size int64, hole bool) (int64, error) {
	if b.allocator == nil {
		if hole {
			return size, nil
		}
		return off, nil
	}
	for off < size {
		n, isHole, err := b.allocator.Allocated(off, size-off)
		if err != nil {
			return 0, err
		}
		if isHole == hole {
			return off, nil
		}
		if n <= 0 {
			return 0, fmt.Errorf("the volume tells of a run of %d bytes: %w", n, unix.EIO)
		}
		off += n
	}
	return size, nil
}
