package blockpool

import (
	"bytes"
	"context"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/stream"
)

// asStored takes a record of a dataset that is packed or short: it is stored as it
// came, if it means something.
func (x *receiver) asStored(ctx context.Context, f stream.Frame) error {
	if f.Codec != format.Plain {
		if _, err := unpacked(f.Codec, f.Data, int64(x.h.RecordSize)); err != nil {
			return err
		}
	}
	if err := x.v.pool.throttle(ctx); err != nil {
		return err
	}
	size, own := int64(len(f.Data)), int64(0)
	if err := x.within(ctx, f.Record, size); err != nil {
		return err
	}
	if charged := x.v.pool.catalogue.get(x.owner); charged != nil {
		own = charged.pending.promisedTo()
	}
	at, err := x.v.pool.allocate(ctx, format.Data, size, own)
	if err != nil {
		return err
	}
	rec := x.v.record(at, f.Codec, f.Data)
	rec.Owner = x.owner
	x.v.pending.Add(size)
	// Crash from here to the end of the txg: sectors that nothing names.
	return x.enter(ctx, f.Record, []format.Record{rec}, x.v.pool.writeStored(rec, f.Data))
}

// items takes items of a dataset. As with records, the intent log learns nothing of
// them.
func (x *receiver) items(ctx context.Context, list []stream.Item) error {
	changes := make([]ItemChange, len(list))
	for i, item := range list {
		changes[i].Key = bytes.Clone(item.Key)
		if !item.Deleted {
			changes[i].Value = append([]byte{}, item.Value...)
		}
	}
	a := &application{v: x.v, size: int64(x.h.RecordSize), batch: &Batch{Items: changes}}
	err := a.plan()
	if err == nil {
		err = x.v.pool.throttle(ctx)
	}
	if err == nil {
		err = a.admitItems(ctx)
	}
	if err == nil {
		err = x.v.pool.enter(ctx, func(g *txg) error {
			x.v.mu.Lock()
			defer x.v.mu.Unlock()
			x.v.dirtyIn(g).putItems(g, changes)
			return nil
		})
	}
	if err != nil {
		return err
	}
	// Others of the same position may follow.
	x.next = stream.Position(list[len(list)-1].Key)
	if x.done.Items += uint64(len(list)); x.o.Progress != nil {
		x.o.Progress(x.done)
	}
	return nil
}
