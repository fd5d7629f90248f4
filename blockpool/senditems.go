package blockpool

import (
	"bytes"
	"context"
	"errors"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/stream"
)

// A dataset is sent as its records, as those of a volume are, and then its items:
// those that differ, in the order of keys. A stream that was cut off among the items
// goes on with the first of them.

// items sends the items that are different.
func (s *sender) items(ctx context.Context, x *stream.Writer) error {
	for next := []byte{ItemCounted}; next != nil; {
		list, rest, err := s.p.itemChanges(s.from, s.to, next, itemRun)
		if err != nil {
			return err
		}
		for _, i := range list {
			if err := x.Item(string(i.Key), i.Value); err != nil {
				return err
			}
		}
		if next = rest; next != nil {
			if err := context.Cause(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// itemChanges is changes for items, from a key on. rest is nil at the end.
func (p *Pool) itemChanges(from, to *volume, next []byte, most int) (list []ItemChange, rest []byte, err error) {
	x, y := p.pair(from, to)
	defer y.release()
	err = btree.DiffFrom(y.epoch, x.root, y.entry.root, next, func(key, _, now []byte) error {
		if len(list) >= most {
			rest = bytes.Clone(key)
			return errEnough
		}
		list = append(list, ItemChange{Key: bytes.Clone(key), Value: bytes.Clone(now)})
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return list, rest, err
}

// item takes an item of a stream, to be stored together with others.
func (x *receiver) item(ctx context.Context, f stream.Frame) error {
	x.items = append(x.items, ItemChange{Key: []byte(f.Key), Value: bytes.Clone(f.Value)})
	if len(x.items) < itemRun {
		return nil
	}
	return x.flushItems(ctx)
}

// flushItems stores the items that were gathered. The intent log learns nothing of
// them, as of the records: see place.
func (x *receiver) flushItems(ctx context.Context) error {
	if len(x.items) == 0 {
		return nil
	}
	p, v := x.v.pool, x.v
	if err := p.throttle(ctx); err != nil {
		return err
	}
	if n := int64(len(x.items)); !p.metadataFits(n) {
		if err := p.Sync(ctx); err != nil {
			return err
		}
		if !p.metadataFits(n) {
			return p.noSpace(format.Data)
		}
	}
	err := p.enter(ctx, func(g *txg) error {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.dirtyIn(g).putItems(g, x.items)
		return nil
	})
	x.items = nil
	return err
}

// flushPacked is flush for a dataset: its records are packed as it has them packed,
// and end where zeros would follow.
func (x *receiver) flushPacked(ctx context.Context, n uint64, p []byte) error {
	v, size := x.v, int64(x.h.RecordSize)
	for ; len(p) > 0; n, p = n+1, p[size:] {
		if err := x.within(ctx, n); err != nil {
			return err
		}
		codec, content := v.entry.Load().encode(p[:size])
		own := int64(0)
		if target := v.pool.catalogue.get(x.owner); target != nil {
			own = target.pending.promisedTo()
		}
		at, err := v.pool.allocate(ctx, format.Data, int64(len(content)), own)
		if err != nil {
			return err
		}
		rec := format.Record{Addr: at, Size: uint32(len(content)), Codec: codec, Sum: format.Sum(content), Owner: x.owner}
		if err := x.placeAll(ctx, n, []format.Record{rec}, content, int64(len(content))); err != nil {
			return err
		}
	}
	return nil
}
