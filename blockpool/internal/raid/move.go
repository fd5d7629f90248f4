package raid

import (
	"context"
	"errors"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// copyPiece is how much Copy moves at a time, while writes to chunks that are
// moving wait.
const copyPiece = 1 << 20

// Copy fills the shadow of a column of a single or mirror chunk with what the
// column holds, or where it cannot be read, with what another copy holds.
// Writes to the chunk may run meanwhile and are not lost. progress, if it is not
// nil, is called with the bytes done after each piece.
//
// No write to the chunk as it was without the shadow may be under way. Bytes are
// copied as they are, wrong ones too; the records of the chunk are to be
// scrubbed when the shadow has become the column. The shadow is durable after
// the next [Array.SyncTouched].
func (a *Array) Copy(ctx context.Context, c *Chunk, column int, progress func(done int64)) error {
	if c.Profile.Parity() > 0 || column < 0 || column >= len(c.Columns) || c.Columns[column].Shadow == nil {
		return fmt.Errorf("copy column %d of %v chunk %d: it has no shadow, or parity", column, c.Profile, c.ID)
	}
	b := newBuffer(min(copyPiece, c.ColumnBytes()))
	defer b.free()
	for done := int64(0); done < c.ColumnBytes(); {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("copy column %d of chunk %d: %w", column, c.ID, err)
		}
		p := b.b[:min(int64(len(b.b)), c.ColumnBytes()-done)]
		if err := a.copyPiece(c, column, done, p); err != nil {
			return fmt.Errorf("copy column %d of chunk %d at %d: %w", column, c.ID, done, err)
		}
		if done += int64(len(p)); progress != nil {
			progress(done)
		}
	}
	return nil
}

func (a *Array) copyPiece(c *Chunk, column int, off int64, p []byte) error {
	a.copying.Lock() // or a write between our read and our write would be undone
	defer a.copying.Unlock()
	var causes []error
	for i := range c.Columns {
		from := c.Columns[(column+i)%len(c.Columns)]
		m, state := a.find(from.Device)
		if state != Online {
			causes = append(causes, fmt.Errorf("device %d: %w", from.Device, errNotOnline))
			continue
		}
		err := a.readCandidate(candidate{m, state, from.Start + off}, p, nil)
		if err == nil {
			return a.writeShadow(c, column, off, p)
		}
		causes = append(causes, fmt.Errorf("device %d: %w", from.Device, err))
	}
	return errors.Join(causes...)
}

// writeShadow writes to the shadow of a column, or if there is none to the
// column, off bytes from its start.
func (a *Array) writeShadow(c *Chunk, column int, off int64, p []byte) error {
	to := c.Columns[column].Place()
	if shadow := c.Columns[column].Shadow; shadow != nil {
		to = *shadow
	}
	m, state := a.find(to.Device)
	if state != Online {
		return fmt.Errorf("device %d: %w", to.Device, errNotOnline)
	}
	if _, err := m.dev.WriteAt(p, to.Start+off); err != nil {
		a.report(m, "write", err)
		return fmt.Errorf("device %d: %w", to.Device, err)
	}
	a.dirty.touch(to.Device)
	return nil
}

// Rebuild writes what a column holds of a record of n bytes anew: to the shadow
// of the column if it has one, else in place, as for a device that was away. The
// record is read from any columns and verified. A column that holds nothing of
// the record is left alone. It is durable after the next [Array.SyncTouched].
func (a *Array) Rebuild(c *Chunk, at format.Addr, n int, verify func([]byte) bool, column int) error {
	if err := c.holds(at, n); err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	s := c.stripe(at, n)
	for i := range s.pieces() {
		if s.all[i].column == column {
			return a.rebuildPiece(c, s, at, n, verify, i)
		}
	}
	return nil
}

func (a *Array) rebuildPiece(c *Chunk, s *stripe, at format.Addr, n int, verify func([]byte) bool, i int) error {
	data := newBuffer(int64(n))
	defer data.free()
	if err := a.Read(c, at, data.b, verify); err != nil {
		return fmt.Errorf("rebuild column %d: %w", s.all[i].column, err)
	}
	padded, done := pad(data.b)
	defer done()
	p := &s.all[i]
	b := p.of(padded)
	if i < s.parity {
		parity := newBuffer(int64(s.parity) * s.all[0].bytes())
		defer parity.free()
		a.encoders.encode(s, padded, parity.b)
		b = parity.b[int64(i)*p.bytes():][:p.bytes()]
	}
	if err := a.writeShadow(c, p.column, p.row*format.SectorSize, b); err != nil {
		return fmt.Errorf("rebuild column %d of chunk %d: %w", p.column, c.ID, err)
	}
	return nil
}
