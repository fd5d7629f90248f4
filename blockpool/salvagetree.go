package blockpool

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// walk goes over the trees of all entries: first to see which sectors several
// records claim, then to keep what is right.
func (s *salvager) walk() error {
	s.conflicts = bitSet{}
	for _, s.gathering = range []bool{true, false} {
		s.holds = map[uint32]bool{}
		s.memo, s.sectors, s.used = map[btree.NodeID]*salvaged{}, newRecount(), map[uint64]int64{}
		s.lostNodes, s.lostRecords, s.hurt = 0, 0, map[uint64]bool{}
		for _, e := range s.entries {
			if s.ctx.Err() != nil {
				return context.Cause(s.ctx)
			}
			s.keepEntry(e)
		}
	}
	return nil
}

// keepEntry keeps what is right of an entry's tree, and sets right what the entry
// says of it.
func (s *salvager) keepEntry(e *entry) {
	nodes, records := s.lostNodes, s.lostRecords
	s.walking = e
	root, below := s.tree(e.root)
	if s.lostNodes > nodes && e.holdsFiles() {
		s.hurt[e.writer()] = true
	}
	if s.gathering {
		return
	}
	if n, r := s.lostNodes-nodes, s.lostRecords-records; n+r > 0 {
		s.lose("%s %s: %d nodes with what is below them, and %d records or items", e.noun(), e.name, n, r)
	} else if below.Bytes < e.referenced {
		s.notes = append(s.notes, fmt.Sprintf("%s %s: perhaps %d bytes, which its entry counts and its tree has not", e.noun(), e.name, e.referenced-below.Bytes))
	}
	e.root, e.referenced, e.objects = root, below.Bytes, below.Counted
	if e.holdsFiles() {
		return
	}
	e.size = max(e.size, e.recordSize)
	if last, err := parseKey64(s.last(root)); err == nil && last >= e.records() {
		e.size = int64(last+1) * e.recordSize
	}
}

// tree keeps what is right of a tree, and returns its root.
func (s *salvager) tree(root btree.NodeID) (btree.NodeID, btree.Totals) {
	if root == 0 {
		return 0, btree.Totals{}
	}
	m := s.fix(root, -1, nil, nil)
	if m.gone {
		return 0, btree.Totals{}
	}
	for m.level > 0 { // a root of one child is not needed
		n := s.load(root)
		if n == nil || n.Len() > 1 {
			break
		}
		root = n.Child(0)
		m = s.memo[root]
	}
	return root, m.Totals
}

// load returns a node as it is kept, nil if it is not.
func (s *salvager) load(id btree.NodeID) *btree.Node {
	m := s.memo[id]
	switch {
	case m == nil || m.gone:
		return nil
	case m.node != nil:
		return m.node
	}
	n, err := loadNode(s.src, id)
	if err != nil {
		return nil // it was read before, so its device fails just now: the check will say
	}
	return n
}

// fix looks at a node that is to have that level, or any if it is -1, and keys from
// low up to and without high, where those are not nil.
func (s *salvager) fix(id btree.NodeID, level int, low, high []byte) *salvaged {
	if m := s.memo[id]; m != nil {
		if !m.gone && (level >= 0 && m.level != level || m.content != s.walking.content || m.unit != s.walking.recordSize) {
			s.lostNodes++
			return &salvaged{gone: true}
		}
		return m
	}
	m := &salvaged{gone: true, content: s.walking.content, unit: s.walking.recordSize}
	s.memo[id] = m
	n, err := loadNode(s.src, id)
	if err != nil || level >= 0 && n.Level() != level || n.Birth() > s.txg+mostAhead || s.ctx.Err() != nil {
		s.lostNodes++
		return m
	}
	s.latest = max(s.latest, n.Birth())
	s.config.converted = s.config.converted || len(n.Bytes()) > btree.MaxNodeSize
	s.state.nextNode = max(s.state.nextNode, uint64(id))
	m.level = n.Level()
	keep := make([]bool, n.Len())
	kept := 0
	for i := range n.Len() {
		if m.level == 0 {
			var one btree.Totals
			if one, keep[i] = s.keepItem(n.AppendKey(nil, i), n.Value(i), low, high); keep[i] {
				m.Add(one)
			}
		} else {
			from, to := low, high
			if i > 0 {
				from = n.AppendKey(nil, i)
			}
			if i+1 < n.Len() {
				to = n.AppendKey(nil, i+1)
			}
			c := s.fix(n.Child(i), m.level-1, from, to)
			keep[i] = !c.gone
			m.Add(c.Totals)
		}
		if keep[i] {
			kept++
		}
	}
	m.gone = kept == 0
	if kept > 0 && kept < n.Len() {
		m.node = btree.Prune(n, func(i int) bool { return keep[i] })
	}
	return m
}

// keepItem tells whether a record or item is to be kept, and what it adds to the
// totals of a tree. A record is counted.
func (s *salvager) keepItem(key, value, low, high []byte) (one btree.Totals, keep bool) {
	if low != nil && bytes.Compare(key, low) < 0 || high != nil && bytes.Compare(key, high) >= 0 {
		s.lostRecords++
		return one, false
	}
	one.Items = 1
	if s.walking.holdsFiles() && isItem(key) {
		if keep = len(key) <= MaxItemKey && len(value) <= MaxItemValue; !keep {
			s.lostRecords++
		} else if key[0] == ItemCounted {
			one.Counted = 1
		}
		return one, keep
	}
	rec, ok := s.sound(key, value)
	if !ok || !s.keepRecord(rec) {
		s.lostRecords++
		return one, false
	}
	one.Bytes = stored(rec)
	return one, true
}

// keepRecord counts a reference to a record, unless another one has its sectors or
// it cannot be read where that is asked for.
func (s *salvager) keepRecord(rec format.Record) bool {
	c := s.chunkOf(rec)
	sectors := uint64(c.Need(int64(rec.Size)))
	if s.gathering {
		if _, err := s.sectors.add(c, rec); errors.Is(err, errOverlap) {
			for i := range sectors {
				s.conflicts.add(uint64(rec.Addr) + i)
			}
		}
		return true
	}
	doubtful := s.verify
	for i := range sectors {
		doubtful = doubtful || s.conflicts.has(uint64(rec.Addr)+i)
	}
	if doubtful {
		if _, err := s.contentOf(c, rec, s.walking.recordSize); err != nil {
			return false
		}
	}
	first, err := s.sectors.add(c, rec)
	if err != nil {
		return false
	}
	if first {
		s.holds[c.ID] = true
		s.used[rec.Owner] += stored(rec)
		s.state.nextEntry = max(s.state.nextEntry, rec.Owner)
	}
	s.latest = max(s.latest, rec.Birth)
	return true
}

// contentOf reads a record and unpacks it, to at most size bytes.
func (s *salvager) contentOf(c *raid.Chunk, rec format.Record, size int64) ([]byte, error) {
	b := make([]byte, rec.Size)
	if err := s.array.Read(c, rec.Addr, b, fits(rec)); err != nil || rec.Codec == format.Plain {
		return b, err
	}
	return unpacked(rec.Codec, b, size)
}

// sound returns the record of a key if it means something here.
func (s *salvager) sound(key, value []byte) (format.Record, bool) {
	rec, err := format.ParseRecord(value)
	switch {
	case err != nil || len(key) != 8 || isItem(key):
		return rec, false
	case !s.walking.fits(rec) || rec.Birth > s.txg+mostAhead || rec.Owner > s.state.nextEntry+mostAhead:
		return rec, false
	}
	return rec, s.chunkOf(rec) != nil
}

// chunkOf returns the chunk of data that covers a record, or nil.
func (s *salvager) chunkOf(rec format.Record) *raid.Chunk {
	c := (&checker{chunks: s.chunks}).chunk(rec.Addr)
	if c == nil || c.Class != format.Data || uint64(rec.Addr-c.Base)+uint64(c.Need(int64(rec.Size))) > uint64(c.Sectors) {
		return nil
	}
	return c
}

// first returns the first key of a tree, nil if it has none.
func (s *salvager) first(root btree.NodeID) []byte {
	for n := s.load(root); n != nil; n = s.load(n.Child(0)) {
		if n.Level() == 0 {
			return n.AppendKey(nil, 0)
		}
	}
	return nil
}

// last returns the last key of a tree, nil if it has none.
func (s *salvager) last(root btree.NodeID) []byte {
	for n := s.load(root); n != nil; n = s.load(n.Child(n.Len() - 1)) {
		if n.Level() == 0 {
			return n.AppendKey(nil, n.Len()-1)
		}
	}
	return nil
}
