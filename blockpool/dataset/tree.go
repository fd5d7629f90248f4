package dataset

import (
	"context"
	"fmt"

	"github.com/laminafs/lamina/blockpool"
)

// A Tree is what the filesystem needs of a tree of the pool; [PoolTree] makes one of
// that. A tree that is used after Close answers with an error.
type Tree interface {
	// Item returns the value of an item, nil if there is none.
	Item(key []byte) ([]byte, error)
	// Items calls f with the items from from up to and without to, nil being the
	// end, in the order of their keys. Both are valid during the call only. An
	// error of f ends it and is returned.
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
	// another one of the same pool, in one step with a batch that has items only.
	// Where the source has holes the destination has them too. When it returns,
	// that and all that was applied before is durable.
	ShareRecords(ctx context.Context, b *blockpool.Batch, from Tree, s blockpool.Share) error
	// Objects returns the number of items that are counted, of those that are
	// durable.
	Objects() uint64
	// RecordSize returns the size of records in bytes.
	RecordSize() int
	ReadOnly() bool
	// Name returns the name of the dataset or snapshot in the pool.
	Name() string
	Space() blockpool.Space
	// ID returns the number of the tree in the pool, which it keeps.
	ID() uint64
	Close() error
}

// PoolTree returns a tree of the pool as the filesystem needs it.
func PoolTree(t *blockpool.Tree) Differ { return poolTree{t} }

type poolTree struct{ *blockpool.Tree }

func (t poolTree) ShareRecords(ctx context.Context, b *blockpool.Batch, from Tree, s blockpool.Share) error {
	src, ok := from.(poolTree)
	if !ok {
		return fmt.Errorf("share records of %s, which is of no pool: %w", from.Name(), blockpool.ErrInvalid)
	}
	return t.Tree.ShareRecords(ctx, b, src.Tree, s)
}

func (t poolTree) DiffFrom(old Tree, f func(key, old, new []byte) error) error {
	from, ok := old.(poolTree)
	if !ok {
		return fmt.Errorf("compare with %s, which is of no pool: %w", old.Name(), blockpool.ErrInvalid)
	}
	return blockpool.DiffTrees(from.Tree, t.Tree, f)
}
