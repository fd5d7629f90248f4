package blockpool

import (
	"context"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A Share says which records of one object another has from then on too.
type Share struct {
	SrcObject uint64 // the object that has them
	Src       uint64 // number of the first of them
	DstObject uint64 // the object that gets them
	Dst       uint64 // number of the first of them there
	N         uint64 // how many
}

// ShareRecords gives an object of the dataset records that an object of from, a
// dataset or snapshot of the same pool with records of the same size, has: from then
// on both have them, until one of the two changes. What was there is gone, and holes
// stay holes. The items of the batch, which must have nothing else, change in the
// same transaction group; ShareRecords returns when that is durable. Nobody else may
// change either range, or the items, meanwhile.
//
// It fails with [ErrInvalid], [ErrQuota] or [ErrReadOnly].
func (t *Tree) ShareRecords(ctx context.Context, b *Batch, from *Tree, share Share) error {
	err := t.changeable()
	if err == nil {
		err = t.shareable(from, share, b)
	}
	if err == nil {
		err = t.v.pool.do(ctx, &task{run: func(s *pass) error { return s.shareRecords(t.v, from.v, share, b) }})
	}
	if err != nil {
		return t.failed("share records with", err)
	}
	return nil
}

// shareable refuses what cannot be shared.
func (t *Tree) shareable(from *Tree, share Share, b *Batch) error {
	const most = 1 << objectShift
	switch {
	case from.usable() != nil:
		return from.usable()
	case from.v.pool != t.v.pool:
		return invalidf("%s is in another pool", from.Name())
	case from.RecordSize() != t.RecordSize():
		return invalidf("records of %d and of %d bytes", from.RecordSize(), t.RecordSize())
	case share.SrcObject == 0 || share.SrcObject > MaxObject || share.DstObject == 0 || share.DstObject > MaxObject,
		share.N > most, share.Src > most-share.N, share.Dst > most-share.N:
		return invalidf("%d records from %d of object %d to %d of object %d", share.N, share.Src, share.SrcObject, share.Dst, share.DstObject)
	case len(b.Writes)+len(b.Zeros) > 0:
		return invalidf("a batch of more than items")
	}
	return (&application{v: t.v, size: int64(t.RecordSize()), batch: b}).plan()
}

// shareRecords is the task of [Tree.ShareRecords].
func (s *pass) shareRecords(v, from *volume, share Share, b *Batch) error {
	e, src := s.change(v.id), s.peek(from.id)
	if e == nil || src == nil {
		return ErrNotFound
	}
	var records []format.Record
	var numbers []uint64
	bytes := int64(0)
	base := share.SrcObject<<objectShift + share.Src
	err := btree.Scan(s.nodes, src.root, recordKey(base), recordKey(base+share.N), func(key, value []byte) error {
		n, err := parseKey64(key)
		if err != nil {
			return err
		}
		rec, err := format.ParseRecord(value)
		records, numbers = append(records, rec), append(numbers, n-base)
		bytes += stored(rec)
		return err
	})
	if err != nil {
		return err
	}
	if e.refquota > 0 && e.referenced+bytes > e.refquota {
		return fmt.Errorf("refquota of %d bytes: %w", e.refquota, ErrQuota)
	}
	// Nobody refers to them once more before all of it is known to be possible.
	for _, rec := range records {
		if err := s.p.counts.Retain(uint64(rec.Addr)); err != nil {
			return s.fatal(err)
		}
	}
	tree := btree.Open(s.nodes, s, e.root)
	to := share.DstObject<<objectShift + share.Dst
	if err := s.cut(tree, e, to, to+share.N); err != nil {
		return s.fatal(err)
	}
	for i, rec := range records {
		e.referenced += stored(rec)
		if _, err := tree.Put(recordKey(to+numbers[i]), format.AppendRecord(nil, rec)); err != nil {
			return s.fatal(err)
		}
	}
	d := newDirty()
	d.putItems(s.g, b.Items)
	if err := s.putItems(tree, e, &d.items); err != nil {
		return s.fatal(err)
	}
	e.root, e.writtenTxg = tree.Root(), s.g.number
	return nil
}
