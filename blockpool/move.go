package blockpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// Chunks move while they are in use, column by column:
//
//  1. a txg gives the column a shadow, the place that it moves to: from then on
//     whatever is written goes to both;
//  2. when nobody is left who knows the chunk without its shadow, and what such
//     writers have written is committed, every record of the chunk is read, by
//     its checksum, and its part of the column is written to the shadow;
//  3. a txg makes the shadow the column.
//
// Crash before 3: the column is where it was. The shadow is of no use, since it
// may lack what only the intent log brings back, and is filled anew.
// Crash after 3: the column is where it has moved to.

// moveBatch is how many chunks move together. Each batch reads all nodes of all
// trees once, and is what a crash has done again.
const moveBatch = 64

// A shift is a column of a chunk on its way.
type shift struct {
	chunk  *chunk // with the shadow
	column int
	widens bool // the shadow becomes another column, of a mirror
}

// vacate moves everything that a device holds to others: to heir if it is not
// nil, else to any. It returns how many records were lost because they could not
// be read any more; with strict it stops before that.
func (p *Pool) vacate(ctx context.Context, d, heir *device, strict bool) (lost uint64, err error) {
	for {
		shifts, empty, err := p.castShadows(ctx, d, heir)
		if err != nil {
			return lost, err
		}
		if len(shifts) == 0 {
			if empty {
				continue
			}
			if heir == nil || d.state.Load().leaving {
				return lost, nil
			}
			if err := p.handOver(ctx, d, heir); err != nil {
				return lost, err
			}
			continue // with chunks that came up to then
		}
		n, err := p.shift(ctx, shifts, strict, &pace{})
		lost += n
		if err != nil {
			return lost, errors.Join(err, p.dropShadows(ctx))
		}
	}
}

// castShadows begins with the next chunks that lie on a device. Chunks that hold
// nothing are removed from it, and where their place is needed, also from others.
// It says when it has removed some.
func (p *Pool) castShadows(ctx context.Context, d, heir *device) (shifts []shift, removed bool, err error) {
	err = p.do(ctx, &task{run: func(s *pass) error {
		var empty []*chunk
		if heir == nil || d.state.Load().leaving {
			empty = p.freezeEmpty()
		}
		isEmpty := func(c *chunk) bool { return slices.Contains(empty, c) }
		current := slices.DeleteFunc(p.space.all(), isEmpty)
		shifts, err = planMoves(d, p.targets(heir), current, slices.DeleteFunc(s.allChunks(), isEmpty), moveBatch)
		if err != nil {
			shifts = nil
		}
		n, clearErr := s.clear(empty, func(c *chunk) bool { return err == nil && c.column(d.id) >= 0 || overlaps(c, shifts) })
		if err = cmp.Or(err, clearErr); err != nil {
			return err
		}
		removed = n > 0
		for _, sh := range shifts {
			s.moveChunk(sh.chunk)
		}
		return nil
	}})
	return shifts, removed, err
}

// handOver has new chunks go to the heir, and none to the device, which has none
// now, or only those of this txg.
func (p *Pool) handOver(ctx context.Context, d, heir *device) error {
	return p.do(ctx, &task{run: func(s *pass) error {
		from, to := s.deviceState(d), s.deviceState(heir)
		from.leaving, to.heirOf = true, 0
		s.saveDevice(d, from)
		s.saveDevice(heir, to)
		s.after = append(s.after, p.updateRoom)
		return nil
	}})
}

// targets returns where columns may move to.
func (p *Pool) targets(heir *device) (list []*device) {
	if heir == nil {
		list = p.devices.usable()
	} else if heir = p.devices.get(heir.id); heir != nil {
		list = []*device{heir}
	}
	return slices.DeleteFunc(list, func(d *device) bool { return !d.sound() || !p.online(d) })
}

// freezeEmpty returns the chunks that hold nothing, and keeps records out of
// them. Nobody reads or writes there, so their place can be used at once.
func (p *Pool) freezeEmpty() (empty []*chunk) {
	for _, c := range p.space.all() {
		if c.Class == format.Log {
			continue
		}
		p.space.freeze(c, true)
		if c.empty() {
			empty = append(empty, c)
		} else {
			p.space.freeze(c, false)
		}
	}
	return empty
}

// clear removes those of the chunks that freezeEmpty has returned whose place is
// needed, and lets records into the others again.
func (s *pass) clear(empty []*chunk, needed func(*chunk) bool) (removed int, err error) {
	for _, c := range empty {
		if err == nil && needed(c) {
			removed++
			err = s.removeChunk(c)
		} else {
			s.p.space.freeze(c, false)
		}
	}
	return removed, err
}

// empty reports whether nothing of a chunk is in use, nor was a moment ago.
func (c *chunk) empty() bool { return c.Class != format.Log && int64(c.free.Free()) == c.Sectors }

// overlaps reports whether a chunk lies where shadows are to lie.
func overlaps(c *chunk, shifts []shift) bool {
	for _, sh := range shifts {
		to := sh.chunk.Columns[sh.column].Shadow
		if i := c.column(uint32(to.Device)); i >= 0 {
			at := c.Columns[i].Start
			if at < to.Start+sh.chunk.ColumnBytes() && to.Start < at+c.ColumnBytes() {
				return true
			}
		}
	}
	return false
}

// planMoves finds places on targets for the columns that chunks have on a device,
// for so many chunks at most, beside what is taken. A shadow that a column has
// already stays where it may.
func planMoves(from *device, targets []*device, chunks, taken []*chunk, most int) (shifts []shift, err error) {
	for _, c := range chunks {
		i := c.column(from.id)
		if i < 0 || len(shifts) == most {
			continue
		}
		moved := &chunk{Chunk: c.Chunk, free: c.free}
		moved.Columns = slices.Clone(c.Columns)
		old := c.Columns[i].Shadow
		if old == nil || !slices.ContainsFunc(targets, func(t *device) bool { return t.id == uint32(old.Device) }) {
			moved.Columns[i].Shadow = nil
			place, err := findPlace(&moved.Chunk, targets, slices.Concat(taken, shadowed(shifts)))
			if err != nil {
				return nil, err
			}
			moved.Columns[i].Shadow = place
		}
		shifts = append(shifts, shift{chunk: moved, column: i})
	}
	return shifts, nil
}

// shadowed returns the chunks of shifts.
func shadowed(shifts []shift) (chunks []*chunk) {
	for _, sh := range shifts {
		chunks = append(chunks, sh.chunk)
	}
	return chunks
}

// findPlace finds room for another column of a chunk, on the device with most of
// it.
func findPlace(c *raid.Chunk, targets []*device, chunks []*chunk) (*raid.Place, error) {
	var best *raid.Place
	most, others := int64(0), 0
	for _, t := range targets {
		if slices.ContainsFunc(c.Columns, func(col raid.Column) bool {
			return uint32(col.Device) == t.id || col.Shadow != nil && uint32(col.Shadow.Device) == t.id
		}) {
			continue
		}
		others++
		free, at := int64(0), int64(-1)
		for _, g := range t.gaps(chunks) {
			free += g.n
			if at < 0 && g.n >= c.ColumnBytes() {
				at = g.at
			}
		}
		if at >= 0 && free > most {
			best, most = &raid.Place{Device: raid.DeviceID(t.id), Start: at}, free
		}
	}
	switch {
	case best != nil:
		return best, nil
	case others == 0:
		return nil, fmt.Errorf("%v chunk %d needs %d devices, and there is no other for what it has on this one: add a device first: %w",
			c.Profile, c.ID, len(c.Columns), ErrNoSpace)
	default:
		return nil, fmt.Errorf("%d bytes of %v chunk %d fit on no other device: add or grow a device first: %w", c.ColumnBytes(), c.Profile, c.ID, ErrNoSpace)
	}
}

// column returns which column of a chunk lies on a device, -1 for none.
func (c *chunk) column(device uint32) int {
	return slices.IndexFunc(c.Columns, func(col raid.Column) bool { return uint32(col.Device) == device })
}

// shift fills shadows and makes them the columns.
func (p *Pool) shift(ctx context.Context, shifts []shift, strict bool, pace *pace) (lost uint64, err error) {
	faults := p.faultCounts(shifts)
	txg, err := p.settle(ctx)
	if err != nil {
		return 0, err
	}
	// Crash up to the flip: the shadows are filled anew.
	if lost, err = p.fillShadows(ctx, txg, shifts, pace); err != nil {
		return lost, err
	}
	if lost > 0 && strict {
		return lost, fmt.Errorf("%d records cannot be read; destroy or rewrite what they belong to (see the events) or replace the device: %w", lost, ErrDamaged)
	}
	return lost, p.do(ctx, &task{run: func(s *pass) error { return s.flip(shifts, faults) }})
}

// faultCounts returns how often the devices of shadows were faulted.
func (p *Pool) faultCounts(shifts []shift) map[uint32]uint64 {
	counts := map[uint32]uint64{}
	for _, sh := range shifts {
		if d := p.devices.get(uint32(sh.chunk.Columns[sh.column].Shadow.Device)); d != nil {
			counts[d.id] = d.faults.Load()
		}
	}
	return counts
}

// settle returns when nobody is left who knows a state before the committed one,
// and all that they have written is committed, in that txg or one before.
func (p *Pool) settle(ctx context.Context) (txg uint64, err error) {
	over := make(chan struct{})
	err = p.do(ctx, &task{run: func(s *pass) error {
		s.over = append(s.over, func() { close(over) })
		return nil
	}})
	if err == nil {
		err = p.wait(ctx, over)
	}
	if err != nil {
		return 0, err
	}
	return p.syncTo(ctx)
}

// fillShadows writes what was committed up to a txg to the shadows.
func (p *Pool) fillShadows(ctx context.Context, txg uint64, shifts []shift, pace *pace) (lost uint64, err error) {
	columns := map[format.Addr]int{}
	for _, sh := range shifts {
		columns[sh.chunk.Base] = sh.column
		if sh.chunk.Class == format.Log {
			if err := p.array.Copy(ctx, &p.logArea.chunk.Load().Chunk, sh.column, nil); err != nil {
				return 0, err
			}
		}
	}
	return p.rebuild(ctx, txg, func(c *chunk, rec format.Record, f func(column int) error) error {
		i, ok := columns[c.Base]
		if !ok {
			return nil
		}
		if err := pace.pay(ctx, int64(rec.Size)); err != nil {
			return err
		}
		return f(i)
	})
}

// rebuild writes columns of records anew, those that which calls f with. It counts
// the records that no set of columns has any more, and goes on.
func (p *Pool) rebuild(ctx context.Context, upto uint64, which func(c *chunk, rec format.Record, f func(column int) error) error) (lost uint64, err error) {
	t := p.startTour(&tour{upto: upto, bad: func(id btree.NodeID, err error) {
		lost++
		p.events.add(Event{Kind: EventDamaged, Object: fmt.Sprintf("node %d", id), Text: err.Error()})
	}}, nil)
	defer t.stop()
	for done := false; !done; {
		if done, err = t.step(ctx, scrubStep, func(rec format.Record) error {
			c, err := p.space.chunk(rec.Addr)
			if err == nil {
				err = which(c, rec, func(column int) error {
					p.moves.did(int64(rec.Size))
					return p.array.Rebuild(&c.Chunk, rec.Addr, int(rec.Size), fits(rec), column)
				})
			}
			if errors.Is(err, ErrDamaged) {
				lost++
				p.events.add(Event{Kind: EventDamaged, Object: p.ownerName(rec), Text: err.Error()})
				return nil
			}
			return err
		}); err != nil {
			return lost, err
		}
		if err := p.readOnly(); err != nil {
			return lost, err
		}
	}
	return lost, nil
}

// flip makes shadows the columns. What was written to them is flushed: a txg
// flushes before its tasks run.
func (s *pass) flip(shifts []shift, faults map[uint32]uint64) error {
	for id, n := range faults {
		if d := s.p.devices.get(id); d == nil || !s.p.online(d) || d.faults.Load() != n {
			return fmt.Errorf("device %d has failed meanwhile: %w", id, ErrIncomplete)
		}
	}
	for _, sh := range shifts {
		c := &chunk{Chunk: sh.chunk.Chunk, free: sh.chunk.free}
		if c.Columns = sh.asColumns(); sh.widens {
			c.Profile = Mirror
		}
		s.moveChunk(c)
	}
	return nil
}

// dropShadows gives up all shadows. When the pool closes they stay, for who goes
// on.
func (p *Pool) dropShadows(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), ErrClosed) {
		return nil
	}
	return p.do(context.WithoutCancel(ctx), &task{run: func(s *pass) error {
		for _, c := range p.space.all() {
			if !slices.ContainsFunc(c.Columns, func(col raid.Column) bool { return col.Shadow != nil }) {
				continue
			}
			bare := &chunk{Chunk: c.Chunk, free: c.free}
			bare.Columns = slices.Clone(c.Columns)
			for i := range bare.Columns {
				bare.Columns[i].Shadow = nil
			}
			s.moveChunk(bare)
		}
		return nil
	}})
}

// moveChunk makes a chunk lie as c says when the txg is durable; c covers what a
// chunk that is there covers.
func (s *pass) moveChunk(c *chunk) {
	s.moved = slices.DeleteFunc(s.moved, func(o *chunk) bool { return o.Base == c.Base })
	s.moved = append(s.moved, c)
	s.saveChunk(c)
}

// removeChunk removes a chunk that is frozen and empty.
func (s *pass) removeChunk(c *chunk) error {
	if err := s.p.counts.RemoveSegments(uint64(c.Base)/segmentUnits, uint64(c.Sectors)/segmentUnits); err != nil {
		return fmt.Errorf("remove chunk %d: %w", c.ID, err)
	}
	s.batch.Delete(meta.Chunks, key64(uint64(c.Base)))
	s.gone = append(s.gone, c)
	return nil
}

// publishMoves lets everybody see chunks where they lie now. As they lay before
// they take their place on devices until nobody writes to them so any more.
func (s *pass) publishMoves() {
	for _, c := range s.moved {
		ghost := s.p.space.replace(c)
		s.over = append(s.over, func() { s.p.space.forget(ghost) })
		if c.Class == format.Log {
			s.p.gate.Lock() // nobody appends to the log
			s.p.logArea.chunk.Store(c)
			s.p.gate.Unlock()
		}
	}
	for _, c := range s.gone {
		s.p.space.remove(c)
	}
}

// replace puts a chunk in the place of the one that covers the same addresses,
// which it returns.
func (s *space) replace(c *chunk) (ghost *chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.chunks, func(o *chunk) bool { return o.Base == c.Base })
	ghost = s.chunks[i]
	c.free, c.frozen = ghost.free, ghost.frozen
	s.chunks[i] = c
	s.ghosts = append(s.ghosts, ghost)
	for class := range s.turn {
		if s.turn[class].chunk == ghost {
			s.turn[class].chunk = c
		}
	}
	return ghost
}

// forget ends what replace has begun.
func (s *space) forget(ghost *chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ghosts = slices.DeleteFunc(s.ghosts, func(o *chunk) bool { return o == ghost })
}

// allGhosts returns the chunks as they lay before, where that matters still.
func (s *space) allGhosts() []*chunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ghosts)
}
