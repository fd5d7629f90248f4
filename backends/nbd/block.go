package nbd

import (
	"context"
	"io"
	"io/fs"
	"maps"
	"slices"
)

// A Block is what an export shows: bytes from 0 to Size. All its methods may be
// called at once from many goroutines, with any alignment, for ranges that lie
// inside Size.
//
// Several connections may have the same export open. Whether they get one Block
// or several, they must see each other's writes, and Flush of one must cover
// what was written through all (NBD_FLAG_CAN_MULTI_CONN is always set).
//
// The client is told of an error by the NBD error value that fits an errno
// which errors.Is finds in it, and by its text.
type Block interface {
	io.ReaderAt
	io.WriterAt
	// Zero makes n bytes at off read as zeros; it may leave a hole there.
	Zero(ctx context.Context, off, n int64) error
	// Discard says that nobody needs n bytes at off any more. It may do
	// nothing, and an error that is errors.ErrUnsupported counts as that.
	Discard(ctx context.Context, off, n int64) error
	// Flush returns when everything written, zeroed and discarded by calls
	// that have returned will survive a crash.
	Flush(ctx context.Context) error
	// Size returns the number of bytes. A connection keeps the size that it
	// was told at its start: NBD has no message for a change.
	Size() int64
}

// A ReadOnlyBlock may refuse to be changed. If ReadOnly returns true when a
// connection starts, clients are told so and none of the changing methods is
// called.
type ReadOnlyBlock interface {
	ReadOnly() bool
}

// A RecordBlock knows the size in bytes of the records that it stores; aligned
// requests of that size are the efficient ones. What is no power of two, or
// less than 512, is not passed on.
type RecordBlock interface {
	RecordSize() int
}

// An AllocatedBlock knows its holes. Allocated says of n bytes at off how many,
// from the first on, are alike, and whether these are a hole, which reads as
// zeros. Its result may be more than n; less than 1 is an error.
//
// It is what "base:allocation" is made from, the metadata context that
// qemu-img map and nbdcopy ask for.
type AllocatedBlock interface {
	Allocated(off, n int64) (length int64, hole bool, err error)
}

// A FastZeroBlock can tell whether Zero would be quicker than writing zeros
// (NBD_CMD_FLAG_FAST_ZERO). Clients that copy a sparse image use it to zero the
// whole export first, and then write data only.
type FastZeroBlock interface {
	FastZero(off, n int64) bool
}

// Exports are what clients may ask for, by name.
type Exports interface {
	// Open returns the block that has a name. The server calls release, if it
	// is not nil, when the connection no longer uses the block. An error is
	// reported to the client; errors.Is fs.ErrPermission tells it that the export
	// exists.
	Open(ctx context.Context, name string) (b Block, release func(), err error)
	// List returns the names that Open knows, in the order in which clients
	// shall see them.
	List(ctx context.Context) ([]string, error)
}

// A Map holds exports that stay the same while they are served.
type Map map[string]Block

var _ Exports = Map(nil)

// Open returns the block with that name, or fs.ErrNotExist.
func (m Map) Open(_ context.Context, name string) (Block, func(), error) {
	b, ok := m[name]
	if !ok {
		return nil, nil, fs.ErrNotExist
	}
	return b, nil, nil
}

// List returns the names in alphabetical order.
func (m Map) List(context.Context) ([]string, error) {
	return slices.Sorted(maps.Keys(m)), nil
}

// An export is a block as one connection uses it: what can be known at the
// start has been asked for once.
type export struct {
	Block
	name      string
	size      int64
	readOnly  bool
	preferred uint32         // block size
	allocated AllocatedBlock // nil: cannot tell
	fastZero  FastZeroBlock  // nil: cannot tell
	release   func()
}

// Sizes in bytes that clients are told (NBD_INFO_BLOCK_SIZE). Any alignment
// works, so the smallest is 1.
const (
	minimumBlock   = 1
	preferredBlock = 4096 // where the Block does not say
	leastPreferred = 512
)

func newExport(name string, b Block, release func(), maxRequest int) *export {
	if release == nil {
		release = func() {}
	}
	x := &export{Block: b, name: name, size: max(b.Size(), 0), preferred: preferredBlock, release: release}
	if r, ok := b.(ReadOnlyBlock); ok {
		x.readOnly = r.ReadOnly()
	}
	if r, ok := b.(RecordBlock); ok {
		n := r.RecordSize()
		if n >= leastPreferred && n <= maxRequest && n&(n-1) == 0 {
			x.preferred = uint32(n)
		}
	}
	x.allocated, _ = b.(AllocatedBlock)
	x.fastZero, _ = b.(FastZeroBlock)
	return x
}

// flags returns the transmission flags of the export. DF belongs to structured
// replies and may not be offered without them.
func (x *export) flags(structured bool) uint16 {
	f := flagHasFlags | flagSendFlush | flagSendFUA | flagCanMultiConn | flagSendCache
	if structured {
		f |= flagSendDF
	}
	if x.readOnly {
		return f | flagReadOnly
	}
	f |= flagSendTrim | flagSendWriteZeroes
	if x.fastZero != nil {
		f |= flagSendFastZero
	}
	return f
}
