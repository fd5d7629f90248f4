package blockpool

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/intent"
	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// logArea is where the intent log lies: a chunk of its own, whole on each of its
// devices.
type logArea struct {
	p     *Pool
	chunk atomic.Pointer[chunk]
}

var _ intent.Area = (*logArea)(nil)

// Size returns the bytes of the log.
func (a *logArea) Size() int64 { return a.chunk.Load().ColumnBytes() }

// WriteAt writes to every copy.
func (a *logArea) WriteAt(b []byte, off int64) (int, error) {
	if err := a.p.array.WriteRaw(&a.chunk.Load().Chunk, off, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// ReadAt reads from the first copy that is there.
func (a *logArea) ReadAt(b []byte, off int64) (n int, err error) {
	for i := range a.Copies() {
		if n, err = a.ReadCopyAt(i, b, off); err == nil {
			break
		}
	}
	return n, err
}

// Sync flushes the log, and with it every device that a pointer of the log may
// point to.
func (a *logArea) Sync(ctx context.Context) error {
	if mutant.Breaks(mutant.FlushSyncs) {
		return nil
	}
	return a.p.array.SyncTouched(ctx)
}

// Copies implements [intent.Copier].
func (a *logArea) Copies() int { return len(a.chunk.Load().Columns) }

// ReadCopyAt implements [intent.Copier].
func (a *logArea) ReadCopyAt(i int, b []byte, off int64) (int, error) {
	return a.p.array.ReadRaw(&a.chunk.Load().Chunk, i, off, b)
}

// replay brings back what was written after the last durable txg, and commits it.
// It is what opening a pool after a crash costs.
func (p *Pool) replay() error {
	n, last, err := p.claim()
	if err != nil {
		return fmt.Errorf("intent log: %w (if it cannot be read any more, repair makes a new one, which gives up what is in this one)", err)
	}
	p.open = newTxg(last + 1)
	if n > 0 {
		if err := p.records(n, p.again); err != nil {
			return fmt.Errorf("replay the intent log: %w", err)
		}
		p.events.add(Event{Kind: EventRecovered, Text: fmt.Sprintf("%d changes came back from the intent log", n)})
	}
	// A txg beyond all that the log shows makes it empty for good.
	p.later(&task{run: func(*pass) error { return nil }})
	return p.syncOpen()
}

// errEnough ends a replay early.
var errEnough = errors.New("enough")

// claim returns how many records of the log count, and the highest txg that it
// shows. Every sector that a pointer among them names is taken, so that what is
// written anew goes elsewhere. A pointer to bytes that never came to be is the end:
// it was not flushed.
func (p *Pool) claim() (n int, last uint64, err error) {
	last, err = intent.Replay(p.logArea, p.guid, p.meta.Txg(), func(_ uint64, kind intent.Kind, payload []byte) error {
		if kind == intent.Pointer || kind == intent.Batch {
			if err := p.claimPointers(kind, payload); errors.Is(err, ErrDamaged) {
				if mutant.Breaks(mutant.StopAtLostPointer) {
					n++
					return nil
				}
				return errEnough
			} else if err != nil {
				return err
			}
		}
		n++
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return n, last, err
}

// claimPointers takes the sectors that a record of the log points to.
func (p *Pool) claimPointers(kind intent.Kind, payload []byte) error {
	var records []format.Record
	if kind == intent.Pointer {
		r, err := intent.ParsePointer(payload)
		if err != nil {
			return err
		}
		records = r.Records
	} else {
		b, err := intent.ParseBatch(payload)
		if err != nil {
			return err
		}
		for _, r := range b.Pointers {
			records = append(records, r.Records...)
		}
	}
	for _, rec := range records { // all, before any of them is taken
		if err := p.wholeEverywhere(rec); err != nil {
			return err
		}
	}
	for _, rec := range records {
		if mutant.Breaks(mutant.ClaimBeforeReplay) {
			break
		}
		if err := p.space.reserve(p.space.extent(rec.Addr, int64(rec.Size))); err != nil {
			return err
		}
	}
	return nil
}

// wholeEverywhere makes sure that a record is what it must be on every copy. A
// crash may have kept some copies from a device, or it was faulted and nobody came
// to note it, and the txg that takes the record in is the last to know.
func (p *Pool) wholeEverywhere(rec format.Record) error {
	c, err := p.space.chunk(rec.Addr)
	if err == nil {
		_, err = p.array.Scrub(&c.Chunk, rec.Addr, int(rec.Size), fits(rec))
	}
	return err
}

// records calls f with the first n records of the log.
func (p *Pool) records(n int, f func(intent.Kind, []byte) error) error {
	err := intent.ReplayAgain(p.logArea, p.guid, p.meta.Txg(), func(_ uint64, kind intent.Kind, payload []byte) error {
		if n == 0 {
			return errEnough
		}
		n--
		return f(kind, payload)
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// again makes one change of the log again, in memory.
func (p *Pool) again(kind intent.Kind, payload []byte) error {
	switch kind {
	case intent.Pointer:
		r, err := intent.ParsePointer(payload)
		if err != nil {
			return err
		}
		return p.againPointer(r)
	case intent.Write:
		w, err := intent.ParseWrite(payload)
		if err != nil {
			return err
		}
		return p.againWrite(w)
	case intent.Zero, intent.Discard:
		r, err := intent.ParseRange(payload)
		if err != nil {
			return err
		}
		return p.againZero(r)
	case intent.Batch:
		b, err := intent.ParseBatch(payload)
		if err != nil {
			return err
		}
		return p.againBatch(b)
	}
	return damagedf("record of kind %d", kind)
}

func (p *Pool) againPointer(r intent.PointerRecord) error {
	v := p.catalogue.get(r.Volume)
	for i, rec := range r.Records {
		n := r.Number + uint64(i)
		if v == nil || n >= v.entry.Load().records() {
			// The volume is gone, or has shrunk.
			p.open.supersede(p.space.extent(rec.Addr, int64(rec.Size)))
			continue
		}
		if !v.entry.Load().fits(rec) {
			return damagedf("record of %d bytes of volume %s", rec.Size, v.entry.Load().name)
		}
		v.pending.Add(int64(rec.Size))
		v.put(p.open, n, &dirtyRecord{at: rec.Addr, admitted: int64(rec.Size), rec: rec})
	}
	return nil
}

func (p *Pool) againWrite(w intent.WriteRecord) error {
	v := p.catalogue.get(w.Volume)
	if v == nil {
		return nil
	}
	e := v.entry.Load()
	size := uint64(e.recordSize)
	n, within := w.Offset/size, w.Offset%size
	switch {
	case within+uint64(len(w.Data)) > size:
		return damagedf("change of %d bytes at %d of records of %d", len(w.Data), w.Offset, size)
	case n >= e.records():
		return nil
	}
	r := v.buffered(n)
	if r == nil {
		at, err := p.space.allocate(format.Data, e.recordSize, 1, 0, true)
		if err != nil {
			return err
		}
		r = &dirtyRecord{at: at, admitted: e.recordSize, buf: make([]byte, size)}
		if err := v.readRecord(n, 0, r.buf); err != nil {
			return err
		}
		v.pending.Add(e.recordSize)
		v.put(p.open, n, r)
	}
	copy(r.buf[within:], w.Data)
	return nil
}

func (p *Pool) againZero(r intent.RangeRecord) error {
	v := p.catalogue.get(r.Volume)
	if v == nil {
		return nil
	}
	e := v.entry.Load()
	size := uint64(e.recordSize)
	if r.Offset%size != 0 || r.Length%size != 0 || r.Offset+r.Length < r.Offset {
		return damagedf("%d bytes at %d made zero in records of %d", r.Length, r.Offset, size)
	}
	first, end := min(r.Offset/size, e.records()), min((r.Offset+r.Length)/size, e.records())
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, old := range v.dirtyIn(p.open).cut(first, end) {
		v.supersede(p.open, old)
	}
	return nil
}
