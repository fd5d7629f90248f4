package blockpool

import (
	"context"
	"errors"

	"github.com/cespare/xxhash/v2"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/intent"
)

// writeThrough is the size from which a whole record goes to its final address
// at once, and only a pointer to the log. Smaller changes go to the log whole and
// to their address when the txg closes.
const writeThrough = 16 << 10

// write stores p at off, record by record.
func (v *volume) write(ctx context.Context, p []byte, off int64) (done int, err error) {
	size := v.entry.Load().recordSize
	for done < len(p) {
		at := off + int64(done)
		n, within := uint64(at/size), at%size
		part := p[done:min(int64(len(p)), int64(done)+size-within)]
		if err := v.writeRecord(ctx, n, within, part, size); err != nil {
			return done, err
		}
		done += len(part)
	}
	return done, nil
}

// writeRecord changes part of record n, or all of it.
func (v *volume) writeRecord(ctx context.Context, n uint64, within int64, p []byte, size int64) error {
	unlock := v.pool.locks.lock(v.id, n, n+1)
	defer unlock()
	if int64(len(p)) == size && size >= writeThrough {
		return v.putThrough(ctx, n, p)
	}
	return v.putBuffered(ctx, n, within, p, size)
}

// putThrough writes a whole record to its address and then the pointer to the
// log.
func (v *volume) putThrough(ctx context.Context, n uint64, p []byte) error {
	at, err := v.admit(ctx, n, int64(len(p)))
	if err != nil {
		return err
	}
	rec := format.Record{Addr: at, Size: uint32(len(p)), Sum: xxhash.Sum64(p), Owner: v.id}
	// Crash from here to the pointer: sectors that nothing names.
	if err = v.pool.writeStored(rec, p); err == nil {
		err = v.pool.enter(ctx, func(g *txg) error {
			rec.Birth = g.number
			pointer := intent.AppendPointer(nil, intent.PointerRecord{Volume: v.id, Number: n, Record: rec})
			if _, err := v.pool.log.Append(g.number, intent.Pointer, pointer); err != nil {
				return err
			}
			v.put(g, n, &dirtyRecord{at: at, rec: rec})
			return nil
		})
	}
	if err != nil {
		v.retract(at, int64(len(p)))
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
	r := &dirtyRecord{at: at, buf: make([]byte, size)}
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
	d := v.dirtyIn(g)
	if old := d.records[n]; old != nil {
		v.supersede(g, old)
	}
	d.records[n] = r
	g.bytes.Add(v.entry.Load().recordSize)
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
	size := v.entry.Load().recordSize
	v.pending.Add(-size)
	e := v.pool.space.extent(old.at, size)
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
			if err := v.writeRecord(ctx, n, within, make([]byte, part), size); err != nil {
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
