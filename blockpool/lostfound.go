package blockpool

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// A stray is a tree that nothing names.
type stray struct {
	root        btree.NodeID
	level       int
	first, last []byte // keys
	birth       uint64
	btree.Totals
	kin
}

// A kin is what trees must have in common to be parts of one.
type kin struct {
	owner   uint64 // that wrote the first record, 0 if it is not known
	content content
	unit    int64 // size of records
}

// findLost looks through all nodes for trees that nothing refers to, and makes
// volumes and datasets of them: parts of one that do not overlap together, the
// newest first. Every record is read, since what was freed long ago may lie about too.
func (s *salvager) findLost() error {
	if !s.unnamed && s.lostNodes == 0 {
		return nil
	}
	orphans, below, err := s.orphans()
	if err != nil {
		return err
	}
	s.verify = true
	var strays []stray
	for _, id := range orphans {
		if below.has(uint64(id)) {
			continue
		}
		if t, ok := s.stray(id); ok {
			strays = append(strays, t)
		}
	}
	slices.SortFunc(strays, func(a, b stray) int {
		return cmp.Or(cmp.Compare(a.owner, b.owner), cmp.Compare(a.content, b.content), cmp.Compare(a.unit, b.unit),
			cmp.Compare(b.birth, a.birth), cmp.Compare(b.Items, a.Items), cmp.Compare(a.root, b.root))
	})
	var groups [][]stray
	start := 0 // first group of the same kin
	for i, t := range strays {
		if i > 0 && t.kin != strays[i-1].kin {
			start = len(groups)
		}
		at := slices.IndexFunc(groups[start:], func(g []stray) bool {
			return !slices.ContainsFunc(g, func(o stray) bool {
				return bytes.Compare(o.first, t.last) <= 0 && bytes.Compare(t.first, o.last) <= 0
			})
		})
		if at < 0 {
			groups = append(groups, []stray{t})
		} else {
			groups[start+at] = append(groups[start+at], t)
		}
	}
	for _, g := range groups {
		s.adopt(g)
	}
	return nil
}

// orphans returns the nodes that no entry's tree and no destroyed one has, and
// which of them are below others.
func (s *salvager) orphans() (list []btree.NodeID, below bitSet, err error) {
	dead := bitSet{}
	s.each(meta.Dead, func(_, value []byte) error {
		ids, err := unpackNodeIDs(value)
		for _, id := range ids {
			walkErr := btree.Walk(nodeSource{s.src}, id, func(id btree.NodeID) bool { return dead.add(uint64(id)) }, func(btree.NodeID, *btree.Node, error) error { return nil })
			if walkErr != nil {
				return walkErr
			}
		}
		return err
	})
	below = bitSet{}
	err = s.src.Each(meta.Nodes, func(key, value []byte, damage error) error {
		id, err := parseKey64(key)
		if err != nil || damage != nil || id == 0 || id > uint64(btree.MaxNodeID) {
			return s.ctx.Err()
		}
		s.state.nextNode = max(s.state.nextNode, id)
		if dead.has(id) || s.memo[btree.NodeID(id)] != nil {
			return s.ctx.Err()
		}
		n, err := btree.Parse(value)
		if err != nil {
			return s.ctx.Err()
		}
		list = append(list, btree.NodeID(id))
		if n.Level() > 0 {
			for i := range n.Len() {
				below.add(uint64(n.Child(i)))
			}
		}
		return s.ctx.Err()
	})
	if s.ctx.Err() != nil {
		return nil, nil, err
	}
	return list, below, nil // what Each could not read is lost
}

// nodeSource loads nodes from damaged metadata.
type nodeSource struct{ src metadata }

func (s nodeSource) Load(id btree.NodeID) (*btree.Node, error) { return loadNode(s.src, id) }

// stray keeps what is right of a tree that nothing names.
func (s *salvager) stray(id btree.NodeID) (t stray, ok bool) {
	k, ok := s.kinOf(id)
	if !ok {
		return t, false
	}
	s.walking = &entry{content: k.content, recordSize: k.unit}
	root, below := s.tree(id)
	if below.Items == 0 {
		return t, false
	}
	n := s.load(root)
	if n == nil {
		return t, false
	}
	return stray{root, n.Level(), s.first(root), s.last(root), n.Birth(), below, k}, true
}

// kinOf finds out what a tree is part of: by who wrote its first record, if that is
// still known; otherwise by what there is below it.
func (s *salvager) kinOf(id btree.NodeID) (kin, bool) {
	l := &look{s: s, seen: bitSet{}}
	enter := func(id btree.NodeID) bool { return !l.enough && l.seen.add(uint64(id)) }
	// Nodes that cannot be read tell nothing, and the function fails never.
	_ = btree.Walk(nodeSource{s.src}, id, enter, func(_ btree.NodeID, n *btree.Node, err error) error {
		if err == nil && n.Level() == 0 {
			l.leaf(n)
		}
		return nil
	})
	return l.kin()
}

// A look is what was seen of a tree that nothing names.
type look struct {
	s       *salvager
	seen    bitSet
	enough  bool // whoever wrote it is known
	records bool
	objects bool // it is a dataset's
	owner   uint64
	first   int64 // bytes of the first record
	most    int64 // the most that one has
}

func (l *look) leaf(n *btree.Node) {
	for i := range n.Len() {
		key := n.AppendKey(nil, i)
		if isItem(key) {
			l.objects = true
			return // so are all behind it
		}
		rec, err := format.ParseRecord(n.Value(i))
		if err != nil || len(key) != 8 {
			continue
		}
		if !l.records {
			l.records, l.owner, l.first = true, rec.Owner, int64(rec.Size)
			if l.enough = l.s.written(rec.Owner) != nil; l.enough {
				return
			}
		}
		// No volume that anybody has is so large that it has such a number.
		l.objects = l.objects || rec.Codec != format.Plain || binary.BigEndian.Uint64(key)>>objectShift > 0
		l.most = max(l.most, l.s.lengthOf(rec))
	}
}

// kin returns what was found out; false if that is nothing.
func (l *look) kin() (kin, bool) {
	if e := l.s.written(l.owner); e != nil {
		return kin{l.owner, e.content, e.recordSize}, true
	}
	switch {
	case !l.objects:
		return kin{l.owner, contentBytes, l.first}, l.records && checkRecordSize(l.first) == nil
	case l.records:
		// Some record is whole, unless every object is short.
		unit := int64(format.SectorSize)
		for unit < l.most {
			unit *= 2
		}
		return kin{l.owner, contentObjects, unit}, true
	case len(l.s.hurt) == 1:
		// Items alone: they are most likely of the one dataset that lacks some.
		for id := range l.s.hurt {
			if e := l.s.written(id); e != nil {
				return kin{id, contentObjects, e.recordSize}, true
			}
		}
	}
	return kin{0, contentObjects, l.s.config.RecordSize}, true
}

// written returns the entry of who wrote something or of a snapshot of it, nil if
// there is none any more.
func (s *salvager) written(id uint64) *entry {
	i := slices.IndexFunc(s.entries, func(e *entry) bool { return e.writer() == id })
	if i < 0 {
		return nil
	}
	return s.entries[i]
}

// lengthOf returns how many bytes a record has, unpacked; 0 if that cannot be told.
func (s *salvager) lengthOf(rec format.Record) int64 {
	if rec.Codec == format.Plain {
		return int64(rec.Size)
	}
	c := s.chunkOf(rec)
	if c == nil {
		return 0
	}
	b, err := s.contentOf(c, rec, format.MaxRecordSize)
	if err != nil {
		return 0
	}
	return int64(len(b))
}

// adopt makes a volume or dataset of trees that do not overlap.
func (s *salvager) adopt(parts []stray) {
	slices.SortFunc(parts, func(a, b stray) int { return bytes.Compare(a.first, b.first) })
	t := parts[0]
	s.state.nextEntry++
	e := &entry{
		id: s.state.nextEntry, guid: newGUID(), kind: KindVolume, content: t.content, recordSize: t.unit,
		created: time.Now(), createdTxg: s.txg, writtenTxg: s.txg,
	}
	e.name = s.lostName(e, t.owner)
	for _, p := range parts {
		e.referenced += p.Bytes
		e.objects += p.Counted
	}
	if last, err := parseKey64(parts[len(parts)-1].last); err == nil && !e.holdsFiles() {
		e.size = int64(last+1) * t.unit
	}
	e.root = s.join(parts)
	s.entries = append(s.entries, e)
}

// lostName returns a name below lost-found for what an owner wrote.
func (s *salvager) lostName(e *entry, owner uint64) string {
	name := fmt.Sprintf("%s-%d", e.noun(), owner)
	if o := s.written(owner); o != nil {
		name, _, _ = strings.Cut(o.name, "@")
	}
	base, n := lostFound+"/"+name, 1
	for name = base; slices.ContainsFunc(s.entries, func(e *entry) bool { return e.name == name }); n++ {
		name = fmt.Sprintf("%s-%d", base, n+1)
	}
	if CheckName(name) != nil { // too long
		name = fmt.Sprintf("%s/%s-%d-%d", lostFound, e.noun(), owner, e.id)
	}
	return name
}

// join puts trees below one root, the lower ones below nodes of one child.
func (s *salvager) join(parts []stray) btree.NodeID {
	level := 0
	for _, p := range parts {
		level = max(level, p.level)
	}
	for i := range parts {
		for parts[i].level < level {
			parts[i] = s.parents(parts[i : i+1])[0]
		}
	}
	for len(parts) > 1 {
		parts = s.parents(parts)
	}
	return parts[0].root
}

// parents returns nodes that have those trees, all of one level, below them.
func (s *salvager) parents(parts []stray) (list []stray) {
	var n *btree.Node
	for _, p := range parts {
		if n != nil && n.AppendChild(p.first, p.root) {
			s.memo[list[len(list)-1].root].Add(p.Totals)
			continue
		}
		n = btree.NewNode(p.level+1, s.txg)
		n.AppendChild(nil, p.root)
		s.state.nextNode++
		id := btree.NodeID(s.state.nextNode)
		s.memo[id] = &salvaged{node: n, level: p.level + 1, Totals: p.Totals, content: p.content, unit: p.unit}
		p.root, p.level = id, p.level+1
		list = append(list, p)
	}
	return list
}
