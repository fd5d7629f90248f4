package dataset

import (
	"context"

	"github.com/laminafs/lamina/blockpool"
)

// A Tree is what the filesystem needs of a tree of the pool. A tree that is used
// after Close answers with an error.
type Tree interface {
	// Item returns the value of an item, nil if there is none.
	Item(key []byte) ([]byte, error)
	// Items calls f with the items from from up to and without to, nil being the
	// end, in the order of their keys. Both are valid during the call only, in
	// which the tree must not be used.
	Items(from, to []byte, f func(key, value []byte) error) error
	// ReadObject fills p with what an object has at off. What was never written is
	// zeros.
	ReadObject(object uint64, p []byte, off int64) error
	// NextRecords returns the next run of records that are there, of those from
	// number from on; none if first and end are the same.
	NextRecords(object, from uint64) (first, end uint64, err error)
	// Apply makes a change in one step: it is there for everybody when Apply
	// returns, and survives the end of the process.
	Apply(ctx context.Context, b *blockpool.Batch) error
	// Flush returns when all that was applied survives power loss.
	Flush(ctx context.Context) error
	// ShareRecords makes records of an object those of another one, in this tree or
	// another one of the same pool, in one step with a batch. Where the source has
	// holes the destination has them too.
	ShareRecords(ctx context.Context, b *blockpool.Batch, from Tree, s Share) error
	// Objects returns the number of items that are counted.
	Objects() uint64
	// RecordSize returns the size of records in bytes.
	RecordSize() int
	ReadOnly() bool
	// Name returns the name of the dataset or snapshot in the pool.
	Name() string
	Space() Space
	// ID returns the number of the tree in the pool, which it keeps.
	ID() uint64
	Close() error
}

// A Share names records: N from Src on of one object, which those from Dst on of
// another one shall be.
type Share struct {
	SrcObject, Src uint64
	DstObject, Dst uint64
	N              uint64
}

// Space is what a tree has and may have, in bytes.
type Space struct {
	Referenced uint64 // by its records
	Available  uint64 // that can still be written, limits considered
}
