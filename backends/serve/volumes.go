package serve

import (
	"context"
	"io"
	"time"
)

// Volumes is what is served: a pool's volumes by name. Methods are called side by
// side. Errors carry an errno, found by errors.Is; those without one are EIO.
type Volumes interface {
	// List returns all volumes and snapshots in any order.
	List() ([]VolumeInfo, error)
	// Stat returns one of them, or ENOENT. It is asked for every name that a
	// program looks up, so it does not list.
	Stat(name string) (VolumeInfo, error)
	// Open opens one for as long as somebody has its file open. If the block is an
	// [io.Closer] it is closed then.
	Open(name string) (Block, error)
}

// A Capacity is a [Volumes] that knows how much space it has.
type Capacity interface {
	// Capacity returns the space for data in bytes, all of it and what is free.
	Capacity() (total, free int64, err error)
}

// A VolumeInfo describes a volume or snapshot.
type VolumeInfo struct {
	// ID is unique among all volumes there ever were, and below 1<<62.
	ID uint64
	// Name may contain "/". One that is no relative path of at most 255 bytes
	// between two slashes, or that lies below the name of another volume, has no
	// file.
	Name string
	// Size is the virtual size, Used what the volume takes of the pool, in bytes.
	Size, Used int64
	ReadOnly   bool // a snapshot
	Created    time.Time
	Modified   time.Time // last written to; zero: unknown
	// BlockSize is the unit in which discarding frees space, a power of two of
	// bytes; 0: 4096. Loop devices tell it to the filesystems above them.
	BlockSize int64
}

// A Block is an open volume: bytes from 0 to Size. Methods are called side by
// side, with ranges that lie within the size and are aligned to nothing.
//
// A context ends with the program that asked: what waits for space or for other
// writers then returns its error.
type Block interface {
	io.ReaderAt
	io.WriterAt
	// Zero makes a range read as zeros. Space that it has may stay allocated.
	Zero(ctx context.Context, off, n int64) error
	// Discard makes a range read as zeros and gives back its space.
	Discard(ctx context.Context, off, n int64) error
	// Flush returns when all that was written before it is durable.
	Flush(ctx context.Context) error
	Size() int64
}

// An Allocator is a [Block] that knows its holes.
type Allocator interface {
	// Allocated tells whether the bytes from off on are a hole, and how many of
	// them are alike, at least 1 and at most n. It may stop short of a change.
	Allocated(off, n int64) (length int64, hole bool, err error)
}

// A ReadOnlyBlock is a [Block] that may refuse to be written.
type ReadOnlyBlock interface {
	ReadOnly() bool
}

// A WatchedBlock is a [Block] that tells what others change of it. Of such a one
// the kernel may keep data in its page cache.
type WatchedBlock interface {
	// Watch has f called after each change that was not made through this block,
	// before the one who made it is told that it is done, until the block is closed.
	Watch(f func(off, n int64))
	// Changes returns a number that is another one after each change, whoever made
	// it.
	Changes() uint64
}
