package blockpool

import (
	"fmt"
	"sync"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// nodeCache keeps committed nodes decoded, the newest version of each. A node
// that is newer than a reader's epoch is not for that reader: it takes the one of
// its own view.
type nodeCache struct {
	shards [16]nodeShard
	limit  int // bytes of a shard
}

// A nodeShard evicts in the order of a clock: what was used since the hand came
// by stays for one more round.
type nodeShard struct {
	mu    sync.Mutex
	nodes map[btree.NodeID]*cachedNode
	ring  []btree.NodeID
	hand  int
	bytes int
	// newest is the last txg whose nodes were installed: an older reader must
	// not put back what that txg has replaced.
	newest uint64
}

type cachedNode struct {
	n    *btree.Node
	used bool
}

func newNodeCache(bytes int) *nodeCache {
	c := &nodeCache{limit: bytes / 16}
	for i := range c.shards {
		c.shards[i].nodes = map[btree.NodeID]*cachedNode{}
	}
	return c
}

func (c *nodeCache) shard(id btree.NodeID) *nodeShard {
	return &c.shards[id%btree.NodeID(len(c.shards))]
}

// load returns a node as txg has it, from the cache or from the view of that
// txg.
func (c *nodeCache) load(view *meta.View, txg uint64, id btree.NodeID) (*btree.Node, error) {
	s := c.shard(id)
	s.mu.Lock()
	if e := s.nodes[id]; e != nil && e.n.Birth() <= txg {
		e.used = true
		n := e.n // the next txg may replace it
		s.mu.Unlock()
		return n, nil
	}
	s.mu.Unlock()
	b, err := view.Get(meta.Nodes, key64(uint64(id)))
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, damagedf("node %d is missing", id)
	}
	n, err := btree.Parse(b)
	if err != nil {
		return nil, err
	}
	if n.Birth() > txg {
		return nil, damagedf("node %d of txg %d in txg %d", id, n.Birth(), txg)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if txg >= s.newest {
		s.put(id, n, c.limit)
	}
	return n, nil
}

// install makes the nodes that a pass has changed the committed ones.
func (c *nodeCache) install(t *nodePass) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.newest = t.txg
		s.mu.Unlock()
	}
	for id, n := range t.private {
		s := c.shard(id)
		s.mu.Lock()
		if n == nil {
			if e := s.nodes[id]; e != nil {
				s.bytes -= e.n.MemSize()
				delete(s.nodes, id)
			}
		} else {
			s.put(id, n, c.limit)
		}
		s.mu.Unlock()
	}
}

// put adds a node; mu is held.
func (s *nodeShard) put(id btree.NodeID, n *btree.Node, limit int) {
	if e := s.nodes[id]; e != nil {
		s.bytes += n.MemSize() - e.n.MemSize()
		e.n, e.used = n, true
	} else {
		s.bytes += n.MemSize()
		s.nodes[id] = &cachedNode{n: n}
		s.ring = append(s.ring, id)
	}
	for s.bytes > limit && len(s.ring) > 1 {
		if s.hand >= len(s.ring) {
			s.hand = 0
		}
		victim := s.ring[s.hand]
		e := s.nodes[victim]
		if e != nil && e.used {
			e.used = false
			s.hand++
			continue
		}
		if e != nil {
			s.bytes -= e.n.MemSize()
			delete(s.nodes, victim)
		}
		s.ring[s.hand] = s.ring[len(s.ring)-1]
		s.ring = s.ring[:len(s.ring)-1]
	}
}

// nodePass is the store in which one pass changes trees: private copies of
// nodes, and the counts of references to them.
type nodePass struct {
	s       *pass
	txg     uint64
	epoch   *epoch                       // the state before; the pass is the only one to end it
	private map[btree.NodeID]*btree.Node // changed or new; nil: gone

	released int // references that were ended
}

var _ btree.Store = (*nodePass)(nil)

func newNodePass(s *pass) *nodePass {
	return &nodePass{s: s, txg: s.g.number, epoch: s.p.epochs.current(), private: map[btree.NodeID]*btree.Node{}}
}

// Load implements [btree.Loader].
func (t *nodePass) Load(id btree.NodeID) (*btree.Node, error) {
	if n, ok := t.private[id]; ok {
		if n == nil {
			return nil, fmt.Errorf("node %d was freed in txg %d: %w", id, t.txg, ErrDamaged)
		}
		return n, nil
	}
	return t.epoch.Load(id)
}

// Refs implements [btree.Store].
func (t *nodePass) Refs(id btree.NodeID) (uint64, error) { return t.s.p.nodeCounts.Count(uint64(id)) }

// Retain implements [btree.Store].
func (t *nodePass) Retain(id btree.NodeID) error {
	if mutant.Breaks(mutant.RetainNodes) && id%4 == 0 {
		return nil
	}
	return t.s.p.nodeCounts.Retain(uint64(id))
}

// Release implements [btree.Store].
func (t *nodePass) Release(id btree.NodeID) error {
	t.released++
	if mutant.Breaks(mutant.ReleaseNodes) && id%4 == 0 {
		return nil
	}
	left, err := t.s.p.nodeCounts.Release(uint64(id), 1)
	if err == nil && left == 0 {
		t.private[id] = nil
	}
	return err
}

// Edit implements [btree.Store].
func (t *nodePass) Edit(id btree.NodeID) (*btree.Node, error) {
	if n := t.private[id]; n != nil {
		return n, nil
	}
	n, err := t.Load(id)
	if err != nil {
		return nil, err
	}
	n = n.Clone()
	n.SetBirth(t.txg)
	t.private[id] = n
	return n, nil
}

// Add implements [btree.Store]. Ids are given out once: two states that have a
// node of the same id and birth have the same node.
func (t *nodePass) Add(n *btree.Node) (btree.NodeID, error) {
	t.s.state.nextNode++
	id := t.s.state.nextNode
	if id%segmentUnits == 0 || id == 1 {
		if err := t.s.p.nodeCounts.AddSegments(id/segmentUnits, 1); err != nil {
			return 0, err
		}
	}
	if err := t.s.p.nodeCounts.Set(id, 1); err != nil {
		return 0, err
	}
	n.SetBirth(t.txg)
	t.private[btree.NodeID(id)] = n
	return btree.NodeID(id), nil
}

// share adds a reference to a root; an empty tree has none.
func (t *nodePass) share(root btree.NodeID) error {
	if root == 0 {
		return nil
	}
	return t.s.fatal(t.Retain(root))
}

// gather puts the private nodes and the counts into a batch.
func (t *nodePass) gather(b *meta.Batch) {
	for id, n := range t.private {
		if n == nil {
			b.Delete(meta.Nodes, key64(uint64(id)))
		} else {
			b.Put(meta.Nodes, key64(uint64(id)), n.Bytes())
		}
	}
	t.s.p.nodeCounts.TakeDirty(t.s.saveSegment(meta.NodeMap))
}
