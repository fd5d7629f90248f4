package blockpool

import (
	"context"
	"errors"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/intent"
	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// Apply does all of a batch, or nothing. It returns when that is in the intent log:
// it survives the end of the process, and with the next [Tree.Flush] a crash of the
// machine. A crash leaves some of the batches that were applied, those that came
// first, each whole. It waits while the pool is busy writing out what came before,
// and, where the pool's policy is [FullQueue], for space; ctx ends the wait.
//
// Of batches that change the same item or record at the same time either may win:
// who calls orders them.
//
// It fails with [ErrInvalid], also when items and parts of records are more than a
// MiB together, [ErrNoSpace], [ErrQuota] or [ErrReadOnly].
func (t *Tree) Apply(ctx context.Context, b *Batch) error {
	err := t.changeable()
	if err == nil {
		err = t.v.apply(ctx, b)
	}
	if err != nil {
		return t.failed("change", err)
	}
	return nil
}

// An application is a batch as the records of a dataset see it.
type application struct {
	v     *volume
	size  int64 // of records
	batch *Batch
	parts []*part
	runs  []*run
	holes []span
}

// apply does a batch.
func (v *volume) apply(ctx context.Context, b *Batch) error {
	a := &application{v: v, size: v.entry.Load().recordSize, batch: b}
	if err := a.plan(); err != nil {
		return err
	}
	if err := v.pool.throttle(ctx); err != nil {
		return err
	}
	if err := a.admitItems(ctx); err != nil {
		return err
	}
	unlock := v.pool.locks.lockAll(v.id, a.spans()...)
	defer unlock()
	epoch := v.pool.epochs.hold() // from the look at the chunks to the txg
	defer epoch.release()
	err := a.writeRuns(ctx)
	for err == nil {
		if err = a.prepare(ctx); err != nil {
			break
		}
		err = v.pool.enter(ctx, a.enter)
		if !errors.Is(err, errClosedMeanwhile) {
			break
		}
		err = nil
	}
	if err != nil {
		a.retract()
	}
	return err
}

// admitItems makes sure that the metadata has room for the items.
func (a *application) admitItems(ctx context.Context) error {
	n := int64(len(a.batch.Items))
	if n == 0 || a.batch.Frees {
		return nil
	}
	for range 2 {
		if a.v.pool.metadataFits(n) {
			return nil
		}
		if err := a.v.pool.Sync(ctx); err != nil { // then what is counted in full is counted as it is
			return err
		}
	}
	if !a.v.pool.metadataFits(n) {
		return a.v.pool.noSpace(format.Data)
	}
	return nil
}

// admit allocates sectors for n bytes of a record.
func (a *application) admit(ctx context.Context, record uint64, n int64) (format.Addr, error) {
	if a.batch.Frees {
		at, err := a.v.pool.space.allocate(format.Data, n, 1, 0, true)
		if err == nil {
			a.v.pending.Add(n)
			return at, nil
		}
	}
	return a.v.admit(ctx, record, n)
}

// writeRuns writes whole records to sectors of their own.
//
// Crash from here to the batch in the log: sectors that nothing names.
func (a *application) writeRuns(ctx context.Context) error {
	for _, r := range a.runs {
		if err := a.writeRun(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (a *application) writeRun(ctx context.Context, r *run) error {
	e, p := a.v.entry.Load(), a.v.pool
	count := int64(len(r.data)) / a.size
	if e.compression == CompressionOff && !a.v.pending.limited() && p.metadataFits(count) {
		if at, err := p.space.allocate(format.Data, a.size, count, a.v.pending.promisedTo(), false); err == nil {
			a.v.pending.Add(int64(len(r.data)))
			stride := format.Addr(p.space.extent(at, a.size).n)
			records := make([]format.Record, count)
			for i := range records {
				records[i] = a.v.record(at+format.Addr(i)*stride, format.Plain, r.data[int64(i)*a.size:][:a.size])
				r.records = append(r.records, &dirtyRecord{at: records[i].Addr, admitted: a.size, rec: records[i]})
			}
			return p.writeRun(records, r.data, a.size)
		}
	}
	packed := make([]packedRecord, count)
	sideBySide(e.compression != CompressionOff, int(count), func(i int) {
		packed[i].codec, packed[i].stored = e.encode(r.data[int64(i)*a.size:][:a.size])
	})
	for i, k := range packed {
		n := int64(len(k.stored))
		at, err := a.admit(ctx, r.n+uint64(i), n)
		if err != nil {
			return err
		}
		rec := a.v.record(at, k.codec, k.stored)
		r.records = append(r.records, &dirtyRecord{at: at, admitted: n, rec: rec})
		if err := p.writeStored(rec, k.stored); err != nil {
			return err
		}
	}
	return nil
}

// record returns the record that is stored at an address. Its birth is not known
// yet.
func (v *volume) record(at format.Addr, codec format.Codec, stored []byte) format.Record {
	return format.Record{Addr: at, Size: uint32(len(stored)), Codec: codec, Sum: format.Sum(stored), Owner: v.id}
}

// prepare brings the records that are changed in part into memory, where they are
// not, or too short.
func (a *application) prepare(ctx context.Context) error {
	for _, c := range a.parts {
		old := a.v.buffered(c.n)
		if c.fresh != nil || old != nil && int64(len(old.buf)) >= c.need() {
			continue
		}
		content, err := a.v.contentFor(c, old, a.size)
		if err != nil {
			return err
		}
		at, err := a.admit(ctx, c.n, int64(len(content)))
		if err != nil {
			return err
		}
		c.fresh = &dirtyRecord{at: at, admitted: int64(len(content)), buf: content}
		c.writeTo(content)
	}
	return nil
}

// contentFor returns what a record has, as a buffer long enough for a change and of
// whole sectors. One that grows and grows gets room for more.
func (v *volume) contentFor(c *part, old *dirtyRecord, size int64) ([]byte, error) {
	var had []byte
	room := c.need()
	switch {
	case old != nil:
		had, room = old.buf, max(room, min(2*int64(len(old.buf)), size))
	case c.within == 0 && int64(len(c.data)) == size:
	default:
		whole := v.pool.buffers.get(size)
		defer v.pool.buffers.put(whole)
		if err := v.readRecord(c.n, 0, whole); err != nil {
			return nil, err
		}
		had = trimZeros(whole)
	}
	room = format.Sectors(max(room, int64(len(had)), 1)) * format.SectorSize
	content := make([]byte, min(room, size))
	copy(content, had)
	return content, nil
}

// enter makes the batch part of the open txg. It fails with errClosedMeanwhile when
// a record that was in memory is not any more.
func (a *application) enter(g *txg) error {
	v := a.v
	for _, c := range a.parts {
		if old := v.buffered(c.n); c.fresh == nil && (old == nil || int64(len(old.buf)) < c.need()) {
			return errClosedMeanwhile
		}
	}
	logged := a.logged(g)
	if mutant.Breaks(mutant.WholeBatches) && len(logged.Items) > 0 {
		_, _ = v.pool.log.Append(g.number, intent.Batch, intent.AppendBatch(nil, intent.BatchRecord{Volume: v.id, Items: logged.Items}))
		logged.Items = nil
	}
	_, err := v.pool.log.Append(g.number, intent.Batch, intent.AppendBatch(nil, logged))
	if errors.Is(err, intent.ErrTooLarge) {
		err = fmt.Errorf("batch whose items and parts of records are more than can be done in one step: %w: %w", ErrInvalid, err)
	}
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	d := v.dirtyIn(g)
	for _, h := range a.holes {
		for _, old := range d.cut(h.first, h.end) {
			v.supersede(g, old)
		}
	}
	for _, r := range a.runs {
		for i, rec := range r.records {
			v.putLocked(g, r.n+uint64(i), rec)
		}
	}
	for _, c := range a.parts {
		if c.fresh != nil {
			v.putLocked(g, c.n, c.fresh)
		} else {
			c.writeTo(d.records[c.n].buf)
		}
	}
	d.putItems(g, a.batch.Items)
	return nil
}

// putItems makes items what they are to be.
func (d *dirty) putItems(g *txg, items []ItemChange) {
	for _, i := range items {
		d.items.Set(string(i.Key), i.Value)
		g.bytes.Add(int64(len(i.Key) + len(i.Value)))
	}
	g.records.Add(int64(len(items)))
}

// logged returns the batch as the log has it.
func (a *application) logged(g *txg) intent.BatchRecord {
	l := intent.BatchRecord{Volume: a.v.id}
	for _, i := range a.batch.Items {
		l.Items = append(l.Items, intent.Item{Key: i.Key, Value: i.Value, Deleted: i.Value == nil})
	}
	for _, c := range a.parts {
		l.Parts = append(l.Parts, intent.Part{Number: c.n, Within: uint64(c.within), Data: c.data, Zeros: uint64(c.zeros)})
	}
	for _, r := range a.runs {
		p := intent.PointerRecord{Number: r.n}
		for _, rec := range r.records {
			rec.rec.Birth = g.number
			p.Records = append(p.Records, rec.rec)
		}
		l.Pointers = append(l.Pointers, p)
	}
	for _, h := range a.holes {
		l.Holes = append(l.Holes, intent.Hole{First: h.first, End: h.end})
	}
	return l
}

// retract gives back what was allocated for a batch that will not be.
func (a *application) retract() {
	for _, c := range a.parts {
		if c.fresh != nil {
			a.v.retract(c.fresh.at, c.fresh.admitted)
		}
	}
	for _, r := range a.runs {
		for _, rec := range r.records {
			a.v.retract(rec.at, rec.admitted)
		}
	}
}

// againBatch does a batch of the log again, in memory.
func (p *Pool) againBatch(b intent.BatchRecord) error {
	v := p.catalogue.get(b.Volume)
	if v != nil && v.entry.Load().content != contentObjects {
		return damagedf("batch for %s, which is no dataset", v.entry.Load().name)
	}
	if v != nil {
		v.mu.Lock()
		d := v.dirtyIn(p.open)
		for _, h := range b.Holes {
			for _, old := range d.cut(h.First, min(h.End, v.entry.Load().records())) {
				v.supersede(p.open, old)
			}
		}
		v.mu.Unlock()
	}
	for _, r := range b.Pointers {
		if err := p.againPointer(r); err != nil {
			return err
		}
	}
	if v == nil {
		return nil
	}
	for _, c := range b.Parts {
		if err := v.againPart(c); err != nil {
			return err
		}
	}
	items := make([]ItemChange, len(b.Items))
	for i, x := range b.Items {
		if len(x.Key) > MaxItemKey || !isItem(x.Key) || len(x.Value) > MaxItemValue {
			return damagedf("item with a key of %d bytes and a value of %d", len(x.Key), len(x.Value))
		}
		items[i].Key = append([]byte{}, x.Key...)
		if !x.Deleted {
			items[i].Value = append([]byte{}, x.Value...)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dirtyIn(p.open).putItems(p.open, items)
	return nil
}

// againPart makes a change within a record again.
func (v *volume) againPart(c intent.Part) error {
	e := v.entry.Load()
	most := uint64(e.recordSize)
	if c.Number >= e.records() || c.Within > most || uint64(len(c.Data)) > most-c.Within || c.Zeros > most-c.Within {
		return damagedf("change of %d bytes at %d of record %d", max(uint64(len(c.Data)), c.Zeros), c.Within, c.Number)
	}
	again := &part{n: c.Number, within: int64(c.Within), data: c.Data, zeros: int64(c.Zeros)}
	if old := v.buffered(c.Number); old != nil && int64(len(old.buf)) >= again.need() {
		again.writeTo(old.buf)
		return nil
	}
	content, err := v.contentFor(again, v.buffered(c.Number), e.recordSize)
	if err != nil {
		return err
	}
	again.writeTo(content)
	at, err := v.pool.space.allocate(format.Data, int64(len(content)), 1, 0, true)
	if err != nil {
		return err
	}
	v.pending.Add(int64(len(content)))
	v.put(v.pool.open, c.Number, &dirtyRecord{at: at, admitted: int64(len(content)), buf: content})
	return nil
}
