package blockpool

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A Tree is an open dataset, or a snapshot of one: records of objects and items in
// one tree. What they mean is said in package dataset. Its methods may be called
// side by side; who reads at the same time sees a [Batch] before it or after it.
type Tree struct {
	v      *volume
	closed atomic.Bool
}

// DatasetOptions are what may be said of a new dataset; zero values stand for the
// pool's or for no limit. Sizes are in bytes.
type DatasetOptions struct {
	RecordSize  int64 // 4K to 128K, a power of two
	Compression Compression
	Quota       int64 // limit of what it and its snapshots use
	Refquota    int64 // limit of what it references
	Reservation int64 // kept free for it
}

// CreateDataset makes a dataset that has nothing in it. It fails with [ErrExists],
// and with [ErrNoSpace] when less of the pool is free than its minimum.
func (p *Pool) CreateDataset(ctx context.Context, name string, o DatasetOptions) error {
	if o.RecordSize == 0 {
		o.RecordSize = p.Config().RecordSize
	}
	err := checkRecordSize(o.RecordSize)
	switch {
	case err != nil:
	case CheckName(name) != nil:
		err = CheckName(name)
	case o.Compression.check() != nil:
		err = o.Compression.check()
	case o.Quota < 0 || o.Refquota < 0 || o.Reservation < 0:
		err = invalidf("a limit below 0")
	default:
		err = p.do(ctx, &task{run: func(s *pass) error {
			if err := s.mayCreate(name, KindVolume, true); err != nil {
				return err
			}
			if err := s.mayReserve(&entry{name: name, recordSize: o.RecordSize}, o.Reservation); err != nil {
				return err
			}
			e := s.newEntry(name, KindVolume)
			e.content, e.recordSize, e.compression = contentObjects, o.RecordSize, o.Compression
			e.quota, e.refquota, e.reservation = o.Quota, o.Refquota, o.Reservation
			e.props = local{"compression": o.Compression.String()}
			return nil
		}})
	}
	return failed("create", name, err)
}

// OpenTree opens the dataset or snapshot of that name, DATASET or DATASET@SNAPSHOT.
// It fails with [ErrNotFound], with [ErrBusy] while it is being received or
// destroyed, and with [ErrInvalid] for a volume.
func (p *Pool) OpenTree(name string) (*Tree, error) {
	v, err := p.catalogue.hold(name)
	if err == nil && v.entry.Load().content != contentObjects {
		v.handles.Add(-1)
		err = invalidf("it is a volume and no dataset")
	}
	if err != nil {
		return nil, fmt.Errorf("open dataset %s: %w", name, err)
	}
	return &Tree{v: v}, nil
}

// Close gives the handle back. It does not flush.
func (t *Tree) Close() error {
	if t.closed.Swap(true) {
		return ErrClosed
	}
	t.v.handles.Add(-1)
	return nil
}

// Name returns the name as it is now.
func (t *Tree) Name() string { return t.v.entry.Load().name }

// ID returns the number of the dataset or snapshot in its pool, which no other will
// have.
func (t *Tree) ID() uint64 { return t.v.id }

// RecordSize returns how many bytes a record has, unless it is the last of its
// object or ends with zeros.
func (t *Tree) RecordSize() int { return int(t.v.entry.Load().recordSize) }

// ReadOnly reports whether it is a snapshot, or the pool can only be read.
func (t *Tree) ReadOnly() bool {
	return t.v.entry.Load().kind == KindSnapshot || t.v.pool.readOnly() != nil
}

// Stat returns what the pool knows of it, changes that are not yet durable aside.
func (t *Tree) Stat() VolumeInfo { return t.v.info() }

// Objects returns how many counted items it had when the last transaction group
// became durable. Right after the pool was opened these are all.
func (t *Tree) Objects() uint64 { return t.v.entry.Load().objects }

// Space tells how full a dataset is, in bytes. Changes on their way to the disk
// count in full.
type Space struct {
	Referenced int64 // by the dataset itself
	Used       int64 // what it has written, snapshots included
	Available  int64 // to it, within its limits, those above it, and what is free
}

// Space returns how full the dataset is.
func (t *Tree) Space() Space {
	e, pending := t.v.entry.Load(), t.v.pending.Load()
	return Space{
		Referenced: e.referenced + pending, Used: e.used + pending,
		Available: t.v.pending.room(t.v.pool.unpromisedBytes(e.recordSize)),
	}
}

// Item returns the value of an item, nil if there is none. It belongs to the tree
// and must not be changed.
func (t *Tree) Item(key []byte) ([]byte, error) {
	if err := t.usable(); err != nil {
		return nil, t.failed("read", err)
	}
	value, err := t.v.item(key)
	if err != nil {
		return nil, t.failed("read", err)
	}
	return value, nil
}

// Items calls f with each item from one key up to another, which is not among them,
// in the order of keys; to may be nil, which is the end. Items that change meanwhile
// may be seen as they were or as they are. An error of f ends it and is returned.
func (t *Tree) Items(from, to []byte, f func(key, value []byte) error) error {
	if err := t.usable(); err != nil {
		return t.failed("read", err)
	}
	var own error
	err := t.v.items(from, to, func(key, value []byte) error {
		own = f(key, value)
		return own
	})
	if err != nil && own == nil {
		return t.failed("read", err)
	}
	return err
}

// LastItem returns the last key from one up to another, which is not counted in; nil
// if there is none. Only what is durable is looked at.
func (t *Tree) LastItem(from, to []byte) ([]byte, error) {
	if err := t.usable(); err != nil {
		return nil, t.failed("read", err)
	}
	epoch := t.v.pool.epochs.hold()
	defer epoch.release()
	c := btree.NewCursor(epoch, t.v.entry.Load().root)
	ok := c.Seek(to)
	if ok {
		ok = c.Prev()
	} else if c.Err() == nil {
		ok = c.Last()
	}
	switch {
	case c.Err() != nil:
		return nil, t.failed("read", c.Err())
	case !ok || string(c.Key()) < string(from):
		return nil, nil
	}
	return append([]byte{}, c.Key()...), nil
}

// ReadObject fills p with what an object has from off on. Holes are zeros, and so
// is all that lies behind its last record. It fails with [ErrDamaged] where no copy
// fits its checksum.
func (t *Tree) ReadObject(object uint64, p []byte, off int64) error {
	n, err := t.number(object, off, int64(len(p)))
	if err == nil {
		_, err = t.v.readFrom(n, off%int64(t.RecordSize()), p)
	}
	if err != nil {
		return t.failed(fmt.Sprintf("read object %d of", object), err)
	}
	return nil
}

// NextRecords returns the next records of an object that are there, those from
// number first to end-1, first being from or more. When there are none first and end
// are equal.
func (t *Tree) NextRecords(object, from uint64) (first, end uint64, err error) {
	if _, err := t.number(object, 0, 0); err != nil {
		return 0, 0, t.failed("map", err)
	}
	base := object << objectShift
	last := base + 1<<objectShift
	at := base + min(from, 1<<objectShift)
	for window := uint64(mapFirst); at < last; window = wider(window) {
		data, next, err := t.v.mapped(at, min(last, at+min(window, last-at)))
		if err != nil {
			return 0, 0, t.failed("map", err)
		}
		if len(data) > 0 {
			return data[0].first - base, data[0].end - base, nil
		}
		at = next
	}
	return 0, 0, nil
}

// Flush returns when everything that was applied before survives a crash of the
// machine. Calls that come together share one flush of the devices.
func (t *Tree) Flush(ctx context.Context) error {
	err := t.usable()
	if err == nil {
		err = t.v.pool.flush(ctx)
	}
	if err != nil {
		return t.failed("flush", err)
	}
	return nil
}

// DiffTrees calls f with each key that two datasets or snapshots of one pool have
// different values at, in order; nil stands for none. Only what is durable is
// compared, and parts that the two share are not read. The key of a record is eight
// bytes, see [ObjectOf].
func DiffTrees(a, b *Tree, f func(key, old, new []byte) error) error {
	for _, t := range []*Tree{a, b} {
		if err := t.usable(); err != nil {
			return t.failed("compare", err)
		}
	}
	if a.v.pool != b.v.pool {
		return a.failed("compare", invalidf("%s is in another pool", b.Name()))
	}
	a.v.pool.view.RLock()
	epoch, from, to := a.v.pool.epochs.hold(), a.v.entry.Load().root, b.v.entry.Load().root
	a.v.pool.view.RUnlock()
	defer epoch.release()
	var own error
	err := btree.Diff(epoch, from, to, func(key, old, new []byte) error {
		own = f(key, old, new)
		return own
	})
	if err != nil && own == nil {
		return a.failed("compare", err)
	}
	return err
}

// ObjectOf returns the object and number that the key of a record names; ok is false
// for that of an item.
func ObjectOf(key []byte) (object, number uint64, ok bool) {
	n, err := parseKey64(key)
	if err != nil || isItem(key) {
		return 0, 0, false
	}
	return n >> objectShift, n & (1<<objectShift - 1), true
}

// StoredSize returns how many bytes the record takes that is the value of a key in
// [DiffTrees], redundancy aside. It fails with [ErrDamaged].
func StoredSize(value []byte) (int64, error) {
	r, err := format.ParseRecord(value)
	return int64(r.Size), err
}

// usable refuses a closed handle, and one of a closed pool.
func (t *Tree) usable() error {
	if t.closed.Load() || t.v.pool.closed.Load() {
		return ErrClosed
	}
	return nil
}

// changeable refuses a change that cannot be.
func (t *Tree) changeable() error {
	if err := t.usable(); err != nil {
		return err
	}
	if err := t.v.pool.readOnly(); err != nil {
		return err
	}
	if t.v.entry.Load().kind == KindSnapshot {
		return fmt.Errorf("a snapshot is %w", ErrReadOnly)
	}
	return nil
}

// number returns the number of the record that has byte off of an object, and makes
// sure that the object can have n bytes from there.
func (t *Tree) number(object uint64, off, n int64) (uint64, error) {
	if err := t.usable(); err != nil {
		return 0, err
	}
	size := t.v.entry.Load().recordSize
	if object == 0 || object > MaxObject || off < 0 || n < 0 || off > size<<objectShift-n {
		return 0, invalidf("%d bytes at %d of object %d", n, off, object)
	}
	return object<<objectShift + uint64(off/size), nil
}

// MaxObjectSize returns the most bytes that an object can have.
func (t *Tree) MaxObjectSize() int64 { return t.v.entry.Load().recordSize << objectShift }

// failed says what was done to which dataset.
func (t *Tree) failed(op string, err error) error {
	return fmt.Errorf("%s %s: %w", op, t.Name(), err)
}
