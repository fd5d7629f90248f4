package raid

import (
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// WriteRaw puts bytes at an offset of every column of a single or mirror chunk,
// whole sectors or not. It is for a log, which has an order and checksums of its
// own; what [Array.Write] says of success and faults holds here too.
func (a *Array) WriteRaw(c *Chunk, off int64, p []byte) error {
	if err := c.raw(off, len(p)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if c.shadowed() {
		a.copying.RLock()
		defer a.copying.RUnlock()
	}
	w := a.planRaw(c, off, p)
	w.run(len(p))
	if mutant.Breaks(mutant.FlushSyncsLog) {
		return nil
	}
	return a.conclude(c, c.Base+format.Addr(off/format.SectorSize), len(p), w)
}

// planRaw finds the devices that take part, all in one look at the set.
func (a *Array) planRaw(c *Chunk, off int64, p []byte) *write {
	w := &write{ops: make([]writeOp, 0, 4)}
	a.mu.RLock()
	defer a.mu.RUnlock()
	w.epoch = a.epoch
	add := func(column int, at Place, shadow bool) {
		op := writeOp{id: at.Device, column: column, shadow: shadow, off: at.Start + off, p: p, err: errNotOnline}
		if m := a.members[at.Device]; m != nil && m.state == Online {
			op.m, op.err = m, nil
		}
		w.ops = append(w.ops, op)
	}
	for i := range c.Columns {
		add(i, c.Columns[i].Place(), false)
		if s := c.Columns[i].Shadow; s != nil {
			add(i, *s, true)
		}
	}
	return w
}

// ReadRaw fills p from an offset of one column of a single or mirror chunk. The
// bytes are what the device has, right or wrong.
func (a *Array) ReadRaw(c *Chunk, column int, off int64, p []byte) (int, error) {
	if err := c.raw(off, len(p)); err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	col := &c.Columns[column]
	m, _ := a.find(col.Device)
	if m == nil {
		return 0, fmt.Errorf("read column %d of chunk %d: device %d: %w", column, c.ID, col.Device, errNotOnline)
	}
	n, err := m.dev.ReadAt(p, col.Start+off)
	if err != nil {
		a.report(m, "read", err)
	}
	return n, err
}

// raw tells whether n bytes at an offset lie within the columns of a chunk whose
// columns are all the same.
func (c *Chunk) raw(off int64, n int) error {
	if c.Profile.Parity() > 0 || off < 0 || int64(n) > c.ColumnBytes()-off {
		return fmt.Errorf("%d bytes at %d of the columns of %v chunk %d: %w", n, off, c.Profile, c.ID, format.ErrDamaged)
	}
	return nil
}

// TryRead fills data with records that lie in a row on a single or mirror chunk,
// from the copy that is read first, and tells whether verify is true. It mends and
// reports nothing: who gets false reads each record by itself.
func (a *Array) TryRead(c *Chunk, at format.Addr, data []byte, verify func([]byte) bool) bool {
	if c.Profile.Parity() > 0 || c.holds(at, len(data)) != nil {
		return false
	}
	var room [8]candidate
	list := a.candidates(c, c.stripe(at, len(data)), room[:0], false)
	if len(list) == 0 {
		return false
	}
	_, err := list[0].m.dev.ReadAt(data, list[0].off)
	return err == nil && verify(data)
}
