package raid

import (
	"errors"
	"fmt"
	"sync"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// parallelFrom is how many bytes make it worth while to write or read the
// columns of a record at the same time.
const parallelFrom = 64 << 10

// Write puts a record at an address. It returns nil when the record can be read
// back from devices that are online, after reporting what failed; the devices
// that failed are faulted then, since they lack what the others have. Durable
// it is after the next [Array.SyncTouched].
//
// When it fails, the bytes at the address are undefined and no device's state
// has changed. The error wraps the devices' errors (ENOSPC for example).
func (a *Array) Write(c *Chunk, at format.Addr, data []byte) error {
	if err := c.holds(at, len(data)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if c.shadowed() {
		a.copying.RLock()
		defer a.copying.RUnlock()
	}
	s := c.stripe(at, len(data))
	padded, done := pad(data)
	defer done()
	var parity buffer
	if s.parity > 0 {
		parity = newBuffer(int64(s.parity) * s.height() * format.SectorSize)
		defer parity.free()
		a.encoders.encode(s, padded, parity.b)
	}
	w := a.planWrite(c, s, padded, parity.b)
	w.run(len(data))
	return a.conclude(c, at, len(data), w)
}

// A write is what a record's write asks of devices.
type write struct {
	epoch uint64
	ops   []writeOp
}

type writeOp struct {
	id     DeviceID
	column int
	shadow bool
	m      *member // nil if it is not online
	off    int64
	p      []byte
	err    error
}

// planWrite finds the devices that take part, all in one look at the set.
func (a *Array) planWrite(c *Chunk, s *stripe, data, parity []byte) *write {
	w := &write{ops: make([]writeOp, 0, s.count)}
	a.mu.RLock()
	defer a.mu.RUnlock()
	w.epoch = a.epoch
	for i := range s.pieces() {
		p := &s.all[i]
		col, b := &c.Columns[p.column], p.of(data)
		if i < s.parity {
			b = parity[int64(i)*p.bytes():][:p.bytes()]
		}
		w.add(a, col.Place(), p, false, b)
		if col.Shadow != nil {
			w.add(a, *col.Shadow, p, true, b)
		}
	}
	return w
}

func (w *write) add(a *Array, at Place, p *piece, shadow bool, b []byte) {
	op := writeOp{id: at.Device, column: p.column, shadow: shadow, off: p.off(at.Start), p: b, err: errNotOnline}
	if m := a.members[at.Device]; m != nil && m.state == Online {
		op.m, op.err = m, nil
	}
	w.ops = append(w.ops, op)
}

// run does the writes, those of large records in parallel.
func (w *write) run(n int) {
	if len(w.ops) == 1 || n < parallelFrom {
		for i := range w.ops {
			w.ops[i].run()
		}
		return
	}
	var wg sync.WaitGroup
	for i := range w.ops[1:] {
		wg.Go(w.ops[1+i].run)
	}
	w.ops[0].run()
	wg.Wait()
}

func (op *writeOp) run() {
	if op.m != nil && !(mutant.Breaks(mutant.AllCopies) && op.column > 0 && op.off%(64<<10) == 0) {
		_, op.err = op.m.dev.WriteAt(op.p, op.off)
	}
}

// conclude decides whether enough was written, faults what missed it, and
// remembers what the next sync has to make durable.
func (a *Array) conclude(c *Chunk, at format.Addr, n int, w *write) error {
	g := group{chunk: c, epoch: w.epoch}
	var failed []*writeOp
	for i := range w.ops {
		op := &w.ops[i]
		g.count(op.column, op.shadow, op.err == nil)
		if op.err != nil {
			failed = append(failed, op)
		}
	}
	enough := true
	if len(failed) > 0 {
		enough = a.faultMissed(g, failed)
	}
	var causes []error
	for _, op := range failed {
		if op.err != errNotOnline {
			a.report(op.m, "write", op.err)
		}
		causes = append(causes, fmt.Errorf("device %d: %w", op.id, op.err))
	}
	if enough {
		a.dirty.add(g)
		return nil
	}
	return fmt.Errorf("write %d bytes at sector %d of %v chunk %d: %w", n, at, c.Profile, c.ID, errors.Join(causes...))
}

// faultMissed faults the devices that missed a write, if the write can be read
// from others that are online still. The lock makes that a decision in turn, so
// that two writes never fault each other's only copies.
func (a *Array) faultMissed(g group, failed []*writeOp) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !g.readable(a.onlineSinceLocked(g.epoch)) {
		return false
	}
	for _, op := range failed {
		if op.m != nil {
			a.faultLocked(op.m)
		}
	}
	return true
}

// onlineSinceLocked returns which devices are online without a break since an
// epoch.
func (a *Array) onlineSinceLocked(epoch uint64) func(DeviceID) bool {
	return func(id DeviceID) bool {
		m := a.members[id]
		return m != nil && m.state == Online && m.since <= epoch
	}
}
