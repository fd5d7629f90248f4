package blockpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
)

// Records are relocated, a few chunks of them at a time:
//
//  1. the chunks take no new records, and what was written to them is committed;
//  2. a tour reads each record of them, by its checksum, writes it to a chunk of the
//     new profile, and notes the leaves that name it;
//  3. txgs change the address in those leaves. A leaf is changed where it is,
//     however many trees share it: what it says of the content is the same. So
//     snapshots share after that what they shared before, and no inner node changes;
//  4. when nobody reads the old places any more, the chunks are removed.
//
// Crash before 3: what was copied is named by nothing, so it is free.
// Crash within 3: some leaves name the old place, others the new one, and each is
// counted. Leaves that name the same records are changed together, so hardly ever
// does a record stay in both places; if it does, it is two records from then on.
//
// A record keeps its birth, so what is sent as a difference stays the same. Devices
// take as missed what was born while they were away, which is not so of records that
// were copied then: therefore nothing is relocated while one is away, and the copies
// of one that fails meanwhile are given up.

const (
	// relocateMost is about how many bytes of records are relocated together, if it is
	// more than one chunk. Each batch reads all nodes of all trees once.
	relocateMost = 1 << 30
	// relocateLeaves is how many leaves a txg changes.
	relocateLeaves = 4096
)

// A relocation is what goes on with a batch of chunks.
type relocation struct {
	p       *Pool
	profile Profile
	pace    *pace
	turn    turn // from which chunk the next sectors come

	mu     sync.Mutex
	from   []*chunk // by base
	copies map[format.Addr]*relocated
	olds   map[format.Addr]format.Addr // by where the copy is
	leaves map[btree.NodeID]format.Addr
	lost   uint64
}

// A relocated record has a copy in another place.
type relocated struct {
	at   format.Addr
	n    int64 // sectors
	refs int   // leaves that name it there
}

// relocateSome relocates the next chunks of data: those that hold the least, for which
// there seems to be room together, or the first alone. Where chunks of the new profile
// have no room for that, it goes to others of its own, so that its place on devices is
// free for new ones.
func (p *Pool) relocateSome(ctx context.Context, profile Profile, todo []*chunk, pace *pace) (batch []*chunk, lost uint64, err error) {
	room := p.roomAs(profile)
	spare := p.spareSectors() / 2 // writers have the rest meanwhile
	sum, taken := int64(0), int64(0)
	for _, c := range todo {
		n := c.recordBytes()
		if c.Class != format.Data || len(batch) > 0 && (sum+n > relocateMost || sum+n > room || taken+c.Sectors > spare) {
			continue
		}
		taken += c.Sectors
		if batch, sum = append(batch, c), sum+n; len(batch) == moveBatch {
			break
		}
	}
	for _, some := range [][]*chunk{batch, batch[:1]} {
		if lost, err = p.relocate(ctx, profile, some, pace); !errors.Is(err, ErrNoSpace) {
			return some, lost, err
		}
		// What has not moved is where it was.
	}
	if first := batch[0]; first.recordBytes() <= p.freeBeside(first) {
		lost, err = p.relocate(ctx, first.Profile, batch[:1], pace)
		return batch[:1], lost, err
	}
	return nil, lost, fmt.Errorf("chunk %d holds %d bytes, and devices have room for %d in chunks of %v: %w", batch[0].ID, batch[0].recordBytes(), room, profile, err)
}

// spareSectors returns the free sectors of data that are neither promised nor kept.
func (p *Pool) spareSectors() int64 {
	p.space.mu.Lock()
	defer p.space.mu.Unlock()
	return p.space.unpromisedLocked()
}

// widenLog gives the intent log another column. Where there is no place for it, chunks
// of data are emptied into others, those first that hold the least.
func (p *Pool) widenLog(ctx context.Context, log *chunk, pace *pace) (lost uint64, err error) {
	for range moveBatch {
		if _, err = p.widen(ctx, []*chunk{log}, pace); !errors.Is(err, ErrNoSpace) {
			return lost, err
		}
		data := slices.DeleteFunc(p.space.all(), func(c *chunk) bool { return c.Class != format.Data || c.empty() })
		if len(data) == 0 {
			break
		}
		least := slices.MinFunc(data, func(a, b *chunk) int { return cmp.Compare(a.recordBytes(), b.recordBytes()) })
		if least.recordBytes() > p.freeBeside(least) {
			break
		}
		n, moved := p.relocate(ctx, least.Profile, []*chunk{least}, pace)
		if lost += n; moved != nil {
			return lost, moved
		}
	}
	return lost, err
}

// freeBeside returns about how many bytes of records there is room for in the other
// chunks of a chunk's profile.
func (p *Pool) freeBeside(c *chunk) (n int64) {
	for _, o := range p.space.all() {
		if o != c && o.Class == format.Data && o.Profile == c.Profile {
			n += int64(o.free.Free()) * format.SectorSize * format.Sectors(p.Config().RecordSize) / shape{o.Profile, len(o.Columns)}.need(p.Config().RecordSize)
		}
	}
	return n
}

// roomAs returns how many bytes of records there is room for in chunks of a profile,
// those that can be made too.
func (p *Pool) roomAs(profile Profile) (room int64) {
	net := func(sectors int64, columns int) int64 {
		record := p.Config().RecordSize
		return sectors * format.Sectors(record) / max(shape{profile, columns}.need(record), 1) * format.SectorSize
	}
	chunks := p.space.all()
	for _, c := range chunks {
		if c.Class == format.Data && c.Profile == profile {
			room += net(int64(c.free.Free()), len(c.Columns))
		}
	}
	if widths := p.devices.widths(profile, chunks); len(widths) > 0 {
		room += net(p.devices.room(profile, chunks), widths[0])
	}
	return room
}

// relocate empties chunks into others of a profile, and removes them.
func (p *Pool) relocate(ctx context.Context, profile Profile, batch []*chunk, pace *pace) (lost uint64, err error) {
	batch = slices.SortedFunc(slices.Values(batch), func(a, b *chunk) int { return cmp.Compare(a.Base, b.Base) })
	r := &relocation{p: p, profile: profile, pace: pace, from: batch,
		copies: map[format.Addr]*relocated{}, olds: map[format.Addr]format.Addr{}, leaves: map[btree.NodeID]format.Addr{}}
	for _, c := range batch {
		p.space.freeze(c, true)
	}
	p.relocating.Store(r)
	err = r.run(ctx)
	p.relocating.Store(nil)
	r.retract()
	if err == nil {
		_, err = p.settle(ctx) // nobody reads the old places any more
	}
	return r.lost, errors.Join(err, r.end(ctx))
}

// run copies and renames until nothing is left to be renamed.
func (r *relocation) run(ctx context.Context) error {
	faults := r.p.allFaults()
	txg, err := r.p.settle(ctx)
	if err != nil {
		return err
	}
	w := r.p.startTour(&tour{upto: txg, want: r.holds, named: r.note, bad: func(id btree.NodeID, err error) {
		r.lost++
		r.p.events.add(Event{Kind: EventDamaged, Object: fmt.Sprintf("node %d", id), Text: err.Error()})
	}}, nil)
	defer w.stop()
	for {
		for done := false; !done; {
			if done, err = w.step(ctx, r.pace.step(scrubStep), func(rec format.Record) error { return r.copy(ctx, rec) }); err != nil {
				return err
			}
			if err := r.p.readOnly(); err != nil {
				return err
			}
		}
		leaves := r.take()
		if len(leaves) == 0 {
			return nil
		}
		for some := range slices.Chunk(leaves, relocateLeaves) {
			// Not given up when ctx ends: the copies are needed until it has run.
			if err := r.p.do(context.WithoutCancel(ctx), &task{run: func(s *pass) error {
				if err := r.p.noFaultsSince(faults); err != nil {
					return err
				}
				return s.renameAll(r, some)
			}}); err != nil {
				return err
			}
			if err := context.Cause(ctx); err != nil {
				return err
			}
		}
	}
}

// holds reports whether a record lies in a chunk of the batch.
func (r *relocation) holds(rec format.Record) bool {
	i, found := slices.BinarySearchFunc(r.from, rec.Addr, func(c *chunk, at format.Addr) int { return cmp.Compare(c.Base, at) })
	if !found {
		i--
	}
	return i >= 0 && rec.Addr < r.from[i].end()
}

// note is told of each leaf that names a record of the batch.
func (r *relocation) note(id btree.NodeID, rec format.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if first, ok := r.leaves[id]; !ok || rec.Addr < first {
		r.leaves[id] = rec.Addr
	}
}

// take returns the leaves that were noted, those that name the same records together.
func (r *relocation) take() []btree.NodeID {
	r.mu.Lock()
	defer r.mu.Unlock()
	leaves := slices.SortedFunc(maps.Keys(r.leaves), func(a, b btree.NodeID) int {
		return cmp.Or(cmp.Compare(r.leaves[a], r.leaves[b]), cmp.Compare(a, b))
	})
	clear(r.leaves)
	return leaves
}

// copy writes a record to another place.
func (r *relocation) copy(ctx context.Context, rec format.Record) error {
	r.mu.Lock()
	_, there := r.copies[rec.Addr]
	r.mu.Unlock()
	if there {
		return nil
	}
	if err := r.pace.pay(ctx, int64(rec.Size)); err != nil {
		return err
	}
	c, err := r.p.space.chunk(rec.Addr)
	if err != nil {
		return err
	}
	b := make([]byte, rec.Size)
	err = r.p.array.Read(&c.Chunk, rec.Addr, b, fits(rec))
	if errors.Is(err, ErrDamaged) {
		r.lost++
		r.p.events.add(Event{Kind: EventDamaged, Object: r.p.ownerName(rec), Text: err.Error()})
		return nil
	}
	if err != nil {
		return err
	}
	at, to, err := r.allocate(ctx, int64(rec.Size))
	if err != nil {
		return err
	}
	n := to.Need(int64(rec.Size))
	if err := r.p.array.Write(&to.Chunk, at, b); err != nil {
		return errors.Join(err, r.p.space.release(extent{at, n}))
	}
	r.p.moves.did(int64(rec.Size))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.copies[rec.Addr], r.olds[at] = &relocated{at: at, n: n}, rec.Addr
	return nil
}

// allocate takes sectors for a record of n bytes in a chunk of the profile; where
// there is none with room, a txg is to make one.
func (r *relocation) allocate(ctx context.Context, n int64) (format.Addr, *chunk, error) {
	for try := 0; ; try++ {
		if at, c, ok := r.p.space.allocateAs(r.profile, &r.turn, n); ok {
			return at, c, nil
		}
		if try == 3 {
			return 0, nil, fmt.Errorf("chunks of %v have no room for what is to be converted: add or grow a device, or free something: %w", r.profile, ErrNoSpace)
		}
		if err := r.p.Sync(ctx); err != nil {
			return 0, nil, err
		}
	}
}

// allocateAs takes sectors for a record of n bytes in a chunk of data of a profile,
// also what is kept for deletes: as much becomes free soon.
func (s *space) allocateAs(profile Profile, t *turn, n int64) (format.Addr, *chunk, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range append([]*chunk{t.chunk}, s.fromNextLocked(t.chunk)...) {
		if c == nil || c.Class != format.Data || c.Profile != profile || c.frozen {
			continue
		}
		if c != t.chunk || t.left <= 0 {
			*t = turn{c, turnSize}
		}
		if at, ok := s.takeLocked(t, n, 1); ok {
			return at, c, true
		}
	}
	s.wanted[format.Data] = true
	return 0, nil, false
}

// renameAll has leaves, and those that this txg has changed, name the copies of records.
func (s *pass) renameAll(r *relocation, leaves []btree.NodeID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, n := range s.nodes.private {
		if n != nil && n.Level() == 0 {
			leaves = append(leaves[:len(leaves):len(leaves)], id)
		}
	}
	for _, id := range leaves {
		refs, err := s.nodes.Refs(id)
		if err != nil || refs == 0 {
			continue // it is gone; one that cannot be counted was reported
		}
		n, err := s.nodes.Load(id)
		if err != nil || n.Level() != 0 {
			continue // so was one that cannot be read
		}
		if err := s.renameIn(r, id, n); err != nil {
			return s.fatal(fmt.Errorf("relocate what node %d names: %w", id, err))
		}
	}
	return nil
}

// renameIn has a leaf name the copies of records.
func (s *pass) renameIn(r *relocation, id btree.NodeID, n *btree.Node) error {
	var key [btree.MaxKeySize]byte
	for i := range n.Len() {
		if isItem(n.AppendKey(key[:0], i)) {
			return nil // so are all behind it
		}
		rec, err := format.ParseRecord(n.Value(i))
		if err != nil {
			return err
		}
		to := r.copies[rec.Addr]
		if to == nil {
			continue
		}
		old := rec
		rec.Addr = to.at
		edited, err := s.nodes.Edit(id)
		if err != nil {
			return err
		}
		if !edited.SetValue(i, format.AppendRecord(nil, rec)) {
			return damagedf("it has no room for longer addresses")
		}
		if to.refs == 0 {
			err = s.p.counts.Set(uint64(to.at), uint64(to.n))
			s.used[rec.Owner] += stored(rec)
		} else {
			err = s.p.counts.Retain(uint64(to.at))
		}
		if err != nil {
			return err
		}
		to.refs++
		if err := s.unrefLocked(r, old); err != nil {
			return err
		}
	}
	return nil
}

// unrefLocked is unref for who has the relocation locked.
func (s *pass) unrefLocked(r *relocation, rec format.Record) error {
	freed := len(s.freed)
	if err := s.release(rec); err != nil {
		return err
	}
	if len(s.freed) > freed {
		r.forgetLocked(rec.Addr)
	}
	return nil
}

// forget is told of sectors that nothing names any more: of a record that was
// relocated, or of the copy, whose place may be another record's soon.
func (r *relocation) forget(at format.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(at)
}

func (r *relocation) forgetLocked(at format.Addr) {
	if old, ok := r.olds[at]; ok {
		at = old
	}
	if c := r.copies[at]; c != nil && c.refs > 0 {
		delete(r.copies, at)
		delete(r.olds, c.at)
	}
}

// retract gives back the copies that nothing names.
func (r *relocation) retract() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.copies {
		if c.refs > 0 {
			continue
		}
		if err := r.p.space.release(extent{c.at, c.n}); err != nil {
			r.p.alarm(err)
		}
	}
}

// end removes the chunks that are empty now, and lets records into the others again.
func (r *relocation) end(ctx context.Context) error {
	removed := map[*chunk]bool{}
	err := r.p.do(context.WithoutCancel(ctx), &task{run: func(s *pass) error {
		for _, c := range r.from {
			if c.empty() {
				removed[c] = true
				if err := s.removeChunk(c); err != nil {
					return err
				}
			}
		}
		return nil
	}})
	if err != nil {
		return err // the pool is at its end
	}
	for _, c := range r.from {
		if !removed[c] {
			r.p.space.freeze(c, false)
		}
	}
	return nil
}
