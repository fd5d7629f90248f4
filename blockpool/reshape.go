package blockpool

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// A chunk of one copy becomes one of several, and the other way round, without a
// change to any tree: sector i is sector i of each column.
//
// A column more is a move (move.go) whose shadow becomes another column instead of
// taking the place of one. Crash before that: the shadow is of no use.
//
// A column less is one txg, when what stays was found to be right.

// widen gives chunks of one copy, or too few, another one.
func (p *Pool) widen(ctx context.Context, chunks []*chunk, pace *pace) (lost uint64, err error) {
	var shifts []shift
	if err := p.do(ctx, &task{run: func(s *pass) (err error) {
		empty := p.freezeEmpty()
		isEmpty := func(c *chunk) bool { return slices.Contains(empty, c) }
		shifts, err = planCopies(slices.DeleteFunc(slices.Clone(chunks), isEmpty), p.targets(nil), slices.DeleteFunc(s.allChunks(), isEmpty))
		_, clearErr := s.clear(empty, func(c *chunk) bool { return overlaps(c, shifts) })
		if err = cmp.Or(err, clearErr); err != nil {
			return err
		}
		for _, sh := range shifts {
			s.moveChunk(sh.chunk)
		}
		return nil
	}}); err != nil || len(shifts) == 0 {
		return 0, err
	}
	return p.shift(ctx, shifts, false, pace)
}

// planCopies finds places on targets for another column of chunks, beside what is
// taken. It plans as many as there is room for, and fails when there is none.
func planCopies(chunks []*chunk, targets []*device, taken []*chunk) (shifts []shift, err error) {
	for _, c := range chunks {
		wide := &chunk{Chunk: c.Chunk, free: c.free}
		wide.Columns = slices.Clone(c.Columns)
		place, err := findPlace(&wide.Chunk, targets, slices.Concat(taken, shadowed(shifts)))
		if err != nil && len(shifts) > 0 {
			return shifts, nil
		}
		if err != nil {
			return nil, err
		}
		wide.Columns[0].Shadow = place
		shifts = append(shifts, shift{chunk: wide, column: 0, widens: true})
	}
	return shifts, nil
}

// narrow takes a column from each of some chunks, when every record of them was read
// and is right on the others. A record that is on none stays as lost as it is.
func (p *Pool) narrow(ctx context.Context, chunks []*chunk, pace *pace) (lost uint64, err error) {
	gone := map[format.Addr]int{} // which column
	for _, c := range chunks {
		gone[c.Base] = p.fullest(c)
	}
	faults := p.allFaults()
	txg, err := p.settle(ctx)
	if err != nil {
		return 0, err
	}
	lost, err = p.rebuild(ctx, txg, func(c *chunk, rec format.Record, _ func(int) error) error {
		column, ok := gone[c.Base]
		if !ok {
			return nil
		}
		p.moves.did(int64(rec.Size))
		if err := pace.pay(ctx, int64(rec.Size)); err != nil {
			return err
		}
		return p.rightWithout(c, rec, column)
	})
	if err != nil {
		return lost, err
	}
	return lost, p.do(ctx, &task{run: func(s *pass) error {
		if err := p.noFaultsSince(faults); err != nil {
			return err
		}
		for _, c := range chunks {
			thin := &chunk{Chunk: c.Chunk, free: c.free}
			thin.Columns = slices.Delete(slices.Clone(c.Columns), gone[c.Base], gone[c.Base]+1)
			if len(thin.Columns) == 1 {
				thin.Profile = Single
			}
			s.moveChunk(thin)
		}
		return nil
	}})
}

// rightWithout makes sure that a record is right on every column but one, and mends
// it there.
func (p *Pool) rightWithout(c *chunk, rec format.Record, column int) error {
	result, err := p.array.Scrub(&c.Chunk, rec.Addr, int(rec.Size), fits(rec))
	if err != nil {
		return err
	}
	for id, t := range result {
		if t.Unrecoverable > 0 && id != c.Columns[column].Device {
			return fmt.Errorf("record at %d cannot be mended on device %d: replace that first: %w", rec.Addr, id, ErrIncomplete)
		}
	}
	return nil
}

// fullest returns which column of a chunk lies on the device that has the least room.
func (p *Pool) fullest(c *chunk) (column int) {
	least := int64(-1)
	chunks := p.space.all()
	for i, col := range c.Columns {
		free := int64(0)
		if d := p.devices.get(uint32(col.Device)); d != nil {
			for _, g := range d.gaps(chunks) {
				free += g.n
			}
		}
		if least < 0 || free < least {
			column, least = i, free
		}
	}
	return column
}

// allFaults returns how often each device was faulted.
func (p *Pool) allFaults() map[uint32]uint64 {
	counts := map[uint32]uint64{}
	for _, d := range p.devices.all() {
		counts[d.id] = d.faults.Load()
	}
	return counts
}

// noFaultsSince refuses to go on when a device has failed since its faults were
// counted: it may lack what was written, and nobody would know.
func (p *Pool) noFaultsSince(faults map[uint32]uint64) error {
	for id, n := range faults {
		if d := p.devices.get(id); d == nil || !p.online(d) || d.faults.Load() != n {
			return fmt.Errorf("device %d has failed meanwhile: %w", id, ErrIncomplete)
		}
	}
	return nil
}

// asColumns returns the columns that a chunk has when its shadows are columns.
func (sh shift) asColumns() []raid.Column {
	columns := slices.Clone(sh.chunk.Columns)
	shadow := columns[sh.column].Shadow
	there := raid.Column{Device: shadow.Device, Start: shadow.Start}
	if sh.widens {
		columns[sh.column].Shadow = nil
		return append(columns, there)
	}
	columns[sh.column] = there
	return columns
}
