package blockpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/raid"
	"github.com/laminafs/lamina/blockpool/internal/spacemap"
)

// An extent is n sectors from at, of one chunk.
type extent struct {
	at format.Addr
	n  int64
}

// A chunk is a part of the address space with what is free in it now. What is
// free on disk but was in use a moment ago is not free here before nobody can
// look at it any more, and what is allocated for the open txg is not free here
// though nothing on disk names it.
type chunk struct {
	raid.Chunk
	free   *spacemap.Allocator
	frozen bool // takes no new records; guarded by space.mu
}

func (c *chunk) end() format.Addr { return c.Base + format.Addr(c.Sectors) }

// space gives out sectors.
type space struct {
	mu       sync.Mutex
	chunks   []*chunk // by base
	ghosts   []*chunk // chunks as they lay before, while somebody may still use them so
	turn     [format.Log + 1]turn
	free     [format.Log + 1]int64 // free sectors of the chunks that take records
	size     [format.Log + 1]int64 // sectors of all chunks
	room     [format.Log + 1]int64 // sectors of chunks that could still be made
	wanted   [format.Log + 1]bool  // somebody found no space for this class
	promised map[int64]int64       // sectors of data promised to volumes that have not used them yet, by record size
	reserved int64                 // the same as raw sectors, parity included
	shapes   []shape               // in which data lies, or will
	freed    chan struct{}         // closed and replaced when something becomes free
}

// A turn says from which chunk of a class the next sectors come. After turnSize
// sectors the next chunk has its turn, so that several devices work side by side.
type turn struct {
	chunk *chunk
	left  int64
}

const turnSize = 1 << 20 / format.SectorSize

func newSpace() *space { return &space{freed: make(chan struct{}), promised: map[int64]int64{}} }

// chunk returns the chunk that covers an address.
func (s *space) chunk(at format.Addr) (*chunk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chunkLocked(at)
}

func (s *space) chunkLocked(at format.Addr) (*chunk, error) {
	i, found := slices.BinarySearchFunc(s.chunks, at, func(c *chunk, at format.Addr) int { return cmp.Compare(c.Base, at) })
	if !found {
		i--
	}
	if i < 0 || at >= s.chunks[i].end() {
		return nil, damagedf("address %d lies in no chunk", at)
	}
	return s.chunks[i], nil
}

// extent returns the sectors that n bytes at an address take, parity included.
// The address was allocated, so its chunk is there.
func (s *space) extent(at format.Addr, n int64) extent {
	c, err := s.chunk(at)
	if err != nil {
		return extent{at, format.Sectors(n)} // release will say so
	}
	return extent{at, c.Need(n)}
}

// surplus returns the sectors at an address that were allocated for a record of so
// many bytes and that one of fewer does not take.
func (s *space) surplus(at format.Addr, allocated, n int64) extent {
	a, b := s.extent(at, allocated), s.extent(at, n)
	return extent{at + format.Addr(b.n), a.n - b.n}
}

// add makes a chunk's sectors available.
func (s *space) add(c *chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(s.chunks, c.Base, func(c *chunk, at format.Addr) int { return cmp.Compare(c.Base, at) })
	s.chunks = slices.Insert(s.chunks, i, c)
	s.size[c.Class] += c.Sectors
	if !c.frozen {
		s.free[c.Class] += int64(c.free.Free())
	}
	s.wanted[c.Class] = false
	s.announceLocked()
}

// remove forgets a chunk, which has nothing in use.
func (s *space) remove(c *chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chunks = slices.DeleteFunc(s.chunks, func(o *chunk) bool { return o == c })
	s.size[c.Class] -= c.Sectors
	if !c.frozen {
		s.free[c.Class] -= int64(c.free.Free())
	}
	for i := range s.turn {
		if s.turn[i].chunk == c {
			s.turn[i] = turn{}
		}
	}
}

// freeze keeps new records out of a chunk, or lets them in again.
func (s *space) freeze(c *chunk, frozen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.frozen == frozen {
		return
	}
	c.frozen = frozen
	if n := int64(c.free.Free()); frozen {
		s.free[c.Class] -= n
	} else {
		s.free[c.Class] += n
	}
}

// announceLocked wakes who waits for space.
func (s *space) announceLocked() {
	close(s.freed)
	s.freed = make(chan struct{})
}

// release makes sectors free again. It is for those that nothing names.
func (s *space) release(extents ...extent) error {
	if len(extents) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range extents {
		c, err := s.chunkLocked(e.at)
		if err == nil {
			err = c.free.Release(uint64(e.at), uint64(e.n))
		}
		if err != nil {
			return fmt.Errorf("free %d sectors at %d: %w", e.n, e.at, err)
		}
		if !c.frozen {
			s.free[c.Class] += e.n
		}
	}
	s.announceLocked()
	return nil
}

// reserve takes certain sectors.
func (s *space) reserve(e extent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.chunkLocked(e.at)
	if err != nil {
		return err
	}
	if err := c.free.Reserve(uint64(e.at), uint64(e.n)); err != nil {
		return err
	}
	if !c.frozen {
		s.free[c.Class] -= e.n
	}
	return nil
}

// available returns the free sectors of a class, with those of chunks that could
// still be made.
func (s *space) available(class format.Class) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.availableLocked(class)
}

func (s *space) availableLocked(class format.Class) int64 { return s.room[class] + s.free[class] }

// total returns the sectors of a class, with those that could still be made.
func (s *space) total(class format.Class) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.totalLocked(class)
}

func (s *space) totalLocked(class format.Class) int64 { return s.room[class] + s.size[class] }

// allocate takes sectors in a row for count records of n bytes from a chunk of a
// class. own are the sectors of data that were promised to who asks. Only who is
// privileged, to free or mend something, may take the last few percent.
func (s *space) allocate(class format.Class, n, count, own int64, privileged bool) (format.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	need := s.rawLocked(format.Sectors(n)*count, n)
	if !privileged && s.availableLocked(class)-need-max(s.reserved-s.rawLocked(own, n), 0) < s.totalLocked(class)*kept/100 {
		s.wanted[class] = true
		return 0, ErrNoSpace
	}
	t := &s.turn[class]
	if t.chunk != nil && t.left > 0 && !t.chunk.frozen {
		if at, ok := s.takeLocked(t, n, count); ok {
			return at, nil
		}
	}
	for _, c := range s.fromNextLocked(t.chunk) {
		if c.Class != class || c.frozen {
			continue
		}
		*t = turn{c, turnSize}
		if at, ok := s.takeLocked(t, n, count); ok {
			return at, nil
		}
	}
	s.wanted[class] = true
	return 0, ErrNoSpace
}

// fromNextLocked returns all chunks, beginning with the one behind c.
func (s *space) fromNextLocked(c *chunk) []*chunk {
	if c == nil {
		return s.chunks
	}
	i := slices.Index(s.chunks, c) + 1
	return slices.Concat(s.chunks[i:], s.chunks[:i])
}

// takeLocked takes sectors for count records of n bytes from the chunk whose turn
// it is.
func (s *space) takeLocked(t *turn, n, count int64) (format.Addr, bool) {
	c := t.chunk
	need := c.Need(n)
	align := alignment(&c.Chunk, need)
	need *= count
	at, ok := c.free.Allocate(uint64(need), align)
	if ok {
		t.left -= need
		s.free[c.Class] -= need
	}
	return format.Addr(at), ok
}

// alignment keeps records of 64K aligned to 64K, and smaller ones to their size,
// where the profile stores them as they are: then they leave no gaps that are of
// no use, and dm-thin's tools can name them by block.
func alignment(c *raid.Chunk, need int64) uint64 {
	const most = 64 << 10 / format.SectorSize
	if c.Profile.Parity() > 0 {
		return 1
	}
	if need&(need-1) != 0 {
		return 1
	}
	return uint64(min(need, most))
}

// admit allocates sectors for n bytes of record number record, within the
// volume's limits.
func (v *volume) admit(ctx context.Context, record uint64, n int64) (format.Addr, error) {
	if err := v.pool.throttle(ctx); err != nil {
		return 0, err
	}
	err := v.within(record, n)
	if errors.Is(err, ErrQuota) {
		// What is not committed counts as new, also where it takes the place of
		// something: a txg tells.
		if err = v.pool.Sync(ctx); err == nil {
			err = v.within(record, n)
		}
	}
	if err != nil {
		return 0, err
	}
	at, err := v.pool.allocate(ctx, format.Data, n, v.pending.promisedTo())
	if err == nil {
		v.pending.Add(n)
	}
	return at, err
}

// retract gives back what admit allocated and nobody saw.
func (v *volume) retract(at format.Addr, n int64) {
	v.pending.Add(-n)
	if err := v.pool.space.release(v.pool.space.extent(at, n)); err != nil {
		v.pool.alarm(err)
	}
}

// within refuses n new bytes beyond the volume's limits. A record that only it
// has may always be written anew: what it had becomes free.
func (v *volume) within(record uint64, n int64) error {
	if !v.pending.limited() {
		return nil
	}
	e, pending, over := v.entry.Load(), v.pending.Load(), v.pending.over(n)
	if (e.refquota == 0 || e.referenced+pending+n <= e.refquota) && over == nil {
		return nil
	}
	birth, err := v.birth(record)
	switch {
	case err != nil:
		return err
	case e.refquota != 0 && birth == 0 && e.referenced+pending+n > e.refquota:
		return fmt.Errorf("refquota of %d bytes: %w", e.refquota, ErrQuota)
	case over != nil && birth <= max(v.shared.Load(), e.createdTxg):
		return fmt.Errorf("quota of %d bytes for %s: %w", over.quota, over.name, ErrQuota)
	}
	return nil
}

// allocate takes sectors for n bytes, or waits for some as the pool's policy
// says. Space that is on its way is always waited for: that of chunks still to be
// made, and what the txgs under way will free.
func (p *Pool) allocate(ctx context.Context, class format.Class, n, own int64) (format.Addr, error) {
	deadline := time.Time{}
	for try := 0; ; try++ {
		p.space.mu.Lock()
		freed := p.space.freed
		p.space.mu.Unlock()
		if p.metadataFits(1) {
			if at, err := p.space.allocate(class, n, 1, own, false); err == nil {
				return at, nil
			}
		}
		if try < 2 || p.dead.pending() {
			// Two txgs: the open one may free something, and what one frees is
			// free when it is durable.
			if err := p.Sync(ctx); err != nil {
				return 0, err
			}
			continue
		}
		// What is given back to devices is free soon, and so is what is relocated.
		if try < 20 && p.discards.pending() || try < 50 && p.relocating.Load() != nil {
			p.waitUntil(ctx, freed, time.Now().Add(100*time.Millisecond))
			continue
		}
		if deadline.IsZero() {
			p.events.full()
			deadline = time.Now().Add(p.Config().QueueTimeout)
		}
		if p.Config().WhenFull == FullError || !p.waitUntil(ctx, freed, deadline) {
			return 0, p.noSpace(class)
		}
	}
}

// waitUntil waits for c, and reports false when the deadline or ctx came first.
func (p *Pool) waitUntil(ctx context.Context, c <-chan struct{}, deadline time.Time) bool {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return p.wait(ctx, c) == nil
}

// noSpace says what there is too little of.
func (p *Pool) noSpace(class format.Class) error {
	if !p.metadataFits(1) {
		return fmt.Errorf("metadata: %d of %d bytes are free: make it larger (pool set metadata-size): %w", p.metadataRoom.Load(), p.Config().MetadataSize, ErrNoSpace)
	}
	return fmt.Errorf("%d of %d bytes are free: %w", p.space.available(class)*format.SectorSize, p.space.total(class)*format.SectorSize, ErrNoSpace)
}

// pagesPerRecord is the most that one changed record may cost in a metadata
// replica: its leaf, and its share of what leads there.
const pagesPerRecord = 2 * 4096

// metadataFits reports whether the metadata has room for count more changed
// records beyond those of the open txg, and for what a delete may need. It counts
// each as if it were alone in its leaf: who gets no for an answer asks again after
// a txg, when the room is known.
func (p *Pool) metadataFits(count int64) bool {
	need := (p.current().records.Load() + p.syncingRecords.Load() + count) * pagesPerRecord
	return p.metadataRoom.Load()-need > p.Config().MetadataSize*kept/100
}

// measureMetadata notes how much room the metadata has after a commit.
func (p *Pool) measureMetadata() error {
	st, err := p.meta.Stats()
	if err != nil {
		return err
	}
	// The files' own limit is far above: a commit never fails for the pool's, and
	// the pool's may be raised while it is in use.
	p.metadataRoom.Store(max(p.Config().MetadataSize-st.Largest.Used-st.Largest.Pending, 0))
	p.syncingRecords.Store(0)
	return nil
}
