package blockpool

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// A stray is a tree that nothing names.
type stray struct {
	root        btree.NodeID
	level       int
	first, last uint64 // records
	items       uint64
	birth       uint64
	unit        int64
	owner       uint64 // of its first record
}

// findLost looks through all nodes for trees that nothing refers to, and makes
// volumes of them: parts of one volume that do not overlap together, the newest
// first. Every record is read, since what was freed long ago may lie about too.
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
		return cmp.Or(cmp.Compare(a.owner, b.owner), cmp.Compare(a.unit, b.unit), cmp.Compare(b.birth, a.birth), cmp.Compare(b.items, a.items), cmp.Compare(a.root, b.root))
	})
	var groups [][]stray
	start := 0 // first group of the same owner and unit
	for i, t := range strays {
		if i > 0 && (t.owner != strays[i-1].owner || t.unit != strays[i-1].unit) {
			start = len(groups)
		}
		at := slices.IndexFunc(groups[start:], func(g []stray) bool {
			return !slices.ContainsFunc(g, func(o stray) bool { return o.first <= t.last && t.first <= o.last })
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
	unit, ok := s.unitOf(id)
	if !ok {
		return t, false
	}
	s.unit = unit
	root, items := s.tree(id)
	if items == 0 {
		return t, false
	}
	first, rec, ok := s.first(root)
	last, ok2 := s.last(root)
	n := s.load(root)
	if !ok || !ok2 || n == nil {
		return t, false
	}
	return stray{root, n.Level(), first, last, items, n.Birth(), s.unit, rec.Owner}, true
}

// unitOf returns the size of the first record below a node.
func (s *salvager) unitOf(id btree.NodeID) (int64, bool) {
	unit := int64(0)
	found := fmt.Errorf("found")
	_ = btree.Walk(nodeSource{s.src}, id, nil, func(_ btree.NodeID, n *btree.Node, err error) error {
		if err != nil || n.Level() > 0 {
			return nil
		}
		rec, err := format.ParseRecord(n.Value(0))
		if err != nil {
			return nil
		}
		unit = int64(rec.Size)
		return found
	})
	return unit, checkRecordSize(unit) == nil
}

// adopt makes a volume of trees that do not overlap.
func (s *salvager) adopt(parts []stray) {
	slices.SortFunc(parts, func(a, b stray) int { return cmp.Compare(a.first, b.first) })
	t := parts[0]
	name := fmt.Sprintf("volume-%d", t.owner)
	if i := slices.IndexFunc(s.entries, func(e *entry) bool { return e.id == t.owner && e.kind == KindVolume }); i >= 0 {
		name = s.entries[i].name
	}
	base, n := lostFound+"/"+name, 1
	for name = base; slices.ContainsFunc(s.entries, func(e *entry) bool { return e.name == name }); n++ {
		name = fmt.Sprintf("%s-%d", base, n+1)
	}
	if CheckName(name) != nil { // too long
		name = fmt.Sprintf("%s/volume-%d-%d", lostFound, t.owner, s.state.nextEntry+1)
	}
	s.state.nextEntry++
	e := &entry{
		id: s.state.nextEntry, guid: newGUID(), name: name, kind: KindVolume, recordSize: t.unit,
		created: time.Now(), createdTxg: s.txg, writtenTxg: s.txg,
	}
	for _, p := range parts {
		e.referenced += int64(p.items) * t.unit
		e.size = max(e.size, int64(p.last+1)*t.unit)
	}
	e.root = s.join(parts)
	s.entries = append(s.entries, e)
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
		key := recordKey(p.first)
		if n != nil && n.AppendChild(key, p.root) {
			s.memo[list[len(list)-1].root].items += p.items
			continue
		}
		n = btree.NewNode(p.level+1, s.txg)
		n.AppendChild(nil, p.root)
		s.state.nextNode++
		id := btree.NodeID(s.state.nextNode)
		s.memo[id] = &salvaged{node: n, level: p.level + 1, items: p.items}
		p.root, p.level = id, p.level+1
		list = append(list, p)
	}
	return list
}
