package blockpool

import (
	"context"
	"errors"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/intent"
	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// writeThrough is the size from which whole records go to their final address at
// once, and only pointers to the log. Smaller changes go to the log whole and to
// their address when the txg closes.
const writeThrough = 16 << 10

// maxRun bounds how many bytes of records are written at once.
const maxRun = 1 << 20

// write stores p at off, record by record, or whole records together.
func (v *volume) write(ctx context.Context, p []byte, off int64) (done int, _ error) {
	size := v.entry.Load().recordSize
	for done < len(p) {
		at, left := off+int64(done), int64(len(p)-done)
		n, within := uint64(at/size), at%size
		if whole := min(left, maxRun) / size * size; within == 0 && whole >= writeThrough {
			written, err := v.writeRun(ctx, n, p[done:int64(done)+whole], size)
			done += written
			if err != nil {
				return done, err
			}
			continue
		}
		part := p[done : int64(done)+min(left, size-within)]
		if err := v.writePart(ctx, n, within, part, size); err != nil {
			return done, err
		}
		done += len(part)
	}
	return done, nil
}

// writePart changes part of record n, or all of it.
func (v *volume) writePart(ctx context.Context, n uint64, within int64, p []byte, size int64) error {
	unlock := v.pool.locks.lock(v.id, n, n+1)
	defer unlock()
	return v.putBuffered(ctx, n, within, p, size)
}

// writeRun changes whole records from n on: together if there is a place for
// them in a row, else one after the other. It returns how many bytes it changed.
func (v *volume) writeRun(ctx context.Context, n uint64, p []byte, size int64) (done int, err error) {
	count := int64(len(p)) / size
	unlock := v.pool.locks.lock(v.id, n, n+uint64(count))
	defer unlock()
	if err := v.pool.throttle(ctx); err != nil {
		return 0, err
	}
	if count > 1 && !v.pending.limited() && v.pool.metadataFits(count) {
		if at, err := v.pool.space.allocate(format.Data, size, count, v.pending.promisedTo(), false); err == nil {
			v.pending.Add(int64(len(p)))
			if err := v.putThrough(ctx, n, at, p, size); err != nil {
				return 0, err
			}
			return len(p), nil
		}
	}
	for ; done < len(p); n, done = n+1, done+int(size) {
		at, err := v.admit(ctx, n, size)
		if err != nil {
			return done, err
		}
		if err := v.putThrough(ctx, n, at, p[done:][:size], size); err != nil {
			return done, err
		}
	}
	return done, nil
}

// putThrough writes whole records to the sectors that were allocated for them
// and then the pointer to the log.
func (v *volume) putThrough(ctx context.Context, n uint64, at format.Addr, p []byte, size int64) error {
	epoch := v.pool.epochs.hold() // from the look at the chunk to the txg
	defer epoch.release()
	records := make([]format.Record, int64(len(p))/size)
	stride := format.Addr(v.pool.space.extent(at, size).n)
	for i := range records {
		sum := format.Sum(p[int64(i)*size:][:size])
		records[i] = format.Record{Addr: at + format.Addr(i)*stride, Size: uint32(size), Sum: sum, Owner: v.id}
	}
	// Crash from here to the pointer: sectors that nothing names.
	var err error
	if !mutant.Breaks(mutant.DataBeforePointer) {
		err = v.pool.writeRun(records, p, size)
	}
	if err == nil {
		err = v.pool.enter(ctx, func(g *txg) error {
			for i := range records {
				records[i].Birth = g.number
			}
			pointer := intent.AppendPointer(nil, intent.PointerRecord{Volume: v.id, Number: n, Records: records})
			if _, err := v.pool.log.Append(g.number, intent.Pointer, pointer); err != nil {
				return err
			}
			for i, rec := range records {
				v.put(g, n+uint64(i), &dirtyRecord{at: rec.Addr, admitted: size, rec: rec})
			}
			return nil
		})
	}
	if mutant.Breaks(mutant.DataBeforePointer) && err == nil {
		time.Sleep(time.Millisecond)
		err = v.pool.writeRun(records, p, size)
	}
	if err != nil {
		for _, rec := range records {
			v.retract(rec.Addr, size)
		}
	}
	return err
}

// errClosedMeanwhile says that the txg in which a record was buffered has
// closed, so that a buffer of its own is needed.
var errClosedMeanwhile = errors.New("the transaction group closed meanwhile")

// putBuffered changes part of a record in memory and writes the change to the
// log.
func (v *volume) putBuffered(ctx context.Context, n uint64, within int64, p []byte, size int64) error {
	var fresh *dirtyRecord
	for {
		if fresh == nil && v.buffered(n) == nil {
			var err error
			if fresh, err = v.prepare(ctx, n, within, p, size); err != nil {
				return err
			}
		}
		err := v.pool.enter(ctx, func(g *txg) error {
			r := v.buffered(n)
			if r == nil && fresh == nil {
				return errClosedMeanwhile
			}
			change := intent.AppendWrite(nil, intent.WriteRecord{Volume: v.id, Offset: n*uint64(size) + uint64(within), Data: p})
			if _, err := v.pool.log.Append(g.number, intent.Write, change); err != nil {
				return err
			}
			if r == nil {
				copy(fresh.buf[within:], p)
				v.put(g, n, fresh)
				fresh = nil
				return nil
			}
			v.mu.Lock()
			copy(r.buf[within:], p)
			v.mu.Unlock()
			return nil
		})
		if errors.Is(err, errClosedMeanwhile) {
			continue
		}
		if fresh != nil {
			v.retract(fresh.at, size)
		}
		return err
	}
}

// buffered returns the record as the open txg has it in memory, or nil. Only who
// holds the record's lock may rely on the answer, and on a record only while the
// gate is shared.
func (v *volume) buffered(n uint64) *dirtyRecord {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if r, _ := v.open.find(n); r != nil && r.buf != nil {
		return r
	}
	return nil
}

// prepare allocates sectors for a record and reads what of it p does not cover.
func (v *volume) prepare(ctx context.Context, n uint64, within int64, p []byte, size int64) (*dirtyRecord, error) {
	at, err := v.admit(ctx, n, size)
	if err != nil {
		return nil, err
	}
	r := &dirtyRecord{at: at, admitted: size, buf: make([]byte, size)}
	if within != 0 || int64(len(p)) != size {
		if err := v.readRecord(n, 0, r.buf); err != nil {
			v.retract(at, size)
			return nil, err
		}
	}
	return r, nil
}

// put makes r the record's content in the open txg.
func (v *volume) put(g *txg, n uint64, r *dirtyRecord) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.putLocked(g, n, r)
}

func (v *volume) putLocked(g *txg, n uint64, r *dirtyRecord) {
	d := v.dirtyIn(g)
	if old := d.records[n]; old != nil {
		v.supersede(g, old)
	}
	d.records[n] = r
	g.bytes.Add(r.admitted)
	g.records.Add(1)
}

// dirtyIn returns the volume's changes in the open txg. v.mu is held.
func (v *volume) dirtyIn(g *txg) *dirty {
	if v.open == nil {
		v.open = newDirty()
		g.join(v)
	}
	return v.open
}

// supersede gives back what a change in the same txg had allocated. v.mu is held.
func (v *volume) supersede(g *txg, old *dirtyRecord) {
	v.pending.Add(-old.admitted)
	e := v.pool.space.extent(old.at, old.admitted)
	if old.buf != nil {
		v.pool.space.release(e) // nothing was written there, and the log has no pointer to it
		return
	}
	g.supersede(e)
}

// zero makes n bytes from off a hole, and zeros at its edges.
func (v *volume) zero(ctx context.Context, off, n int64) error {
	size := v.entry.Load().recordSize
	first, end := uint64((off+size-1)/size), uint64((off+n)/size)
	if off+n == v.entry.Load().size {
		end = recordsIn(off+n, size)
	}
	if first >= end {
		return v.zeroBytes(ctx, off, off+n, size)
	}
	if err := v.zeroBytes(ctx, off, int64(first)*size, size); err != nil {
		return err
	}
	if err := v.punch(ctx, first, end, size); err != nil {
		return err
	}
	if mutant.Breaks(mutant.ZeroEdges) {
		return nil
	}
	return v.zeroBytes(ctx, int64(end)*size, off+n, size)
}

// zeroBytes writes zeros where there is no hole.
func (v *volume) zeroBytes(ctx context.Context, off, end, size int64) error {
	for off < end {
		n, within := uint64(off/size), off%size
		part := min(size-within, end-off)
		hole, err := v.isHole(n)
		if err != nil {
			return err
		}
		if !hole {
			if err := v.writePart(ctx, n, within, make([]byte, part), size); err != nil {
				return err
			}
		}
		off += part
	}
	return nil
}

// punch makes records first to end-1 a hole.
func (v *volume) punch(ctx context.Context, first, end uint64, size int64) error {
	if err := v.pool.throttle(ctx); err != nil {
		return err
	}
	unlock := v.pool.locks.lock(v.id, first, end)
	defer unlock()
	return v.cut(ctx, first, end, size)
}

// cut makes records first to end-1, whose locks are held, a hole.
func (v *volume) cut(ctx context.Context, first, end uint64, size int64) error {
	return v.pool.enter(ctx, func(g *txg) error {
		change := intent.AppendRange(nil, intent.RangeRecord{Volume: v.id, Offset: first * uint64(size), Length: (end - first) * uint64(size)})
		if _, err := v.pool.log.Append(g.number, intent.Zero, change); err != nil {
			return err
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, old := range v.dirtyIn(g).cut(first, end) {
			v.supersede(g, old)
		}
		return nil
	})
}

// writeStored writes the bytes of a record to its address.
func (p *Pool) writeStored(rec format.Record, b []byte) error {
	c, err := p.space.chunk(rec.Addr)
	if err != nil {
		return err
	}
	return p.array.Write(&c.Chunk, rec.Addr, b)
}

// writeRun writes records of one size that lie in a row: together, unless each
// has parity of its own.
func (p *Pool) writeRun(records []format.Record, b []byte, size int64) error {
	c, err := p.space.chunk(records[0].Addr)
	if err != nil {
		return err
	}
	if c.Profile.Parity() == 0 {
		return p.array.Write(&c.Chunk, records[0].Addr, b)
	}
	for i, rec := range records {
		if err := p.array.Write(&c.Chunk, rec.Addr, b[int64(i)*size:][:size]); err != nil {
			return err
		}
	}
	return nil
}
