package btree

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
)

// SkipNode, returned by a visitor of [Walk], leaves out what is below the node.
var SkipNode = errors.New("skip this node")

// Walk calls visit with each node of a tree, parents before children, children in
// order. A node that cannot be loaded is visited with a nil n and the error. visit
// returns nil, or [SkipNode], or an error that ends the walk and is returned.
//
// enter is asked before a node is loaded whether it is wanted; a walk of many
// trees that share nodes says no to those that it has seen. It may be nil.
func Walk(l Loader, root NodeID, enter func(id NodeID) bool, visit func(id NodeID, n *Node, err error) error) error {
	return walk(l, root, anyLevel, enter, visit)
}

func walk(l Loader, id NodeID, level int, enter func(id NodeID) bool, visit func(id NodeID, n *Node, err error) error) error {
	if id == 0 || enter != nil && !enter(id) {
		return nil
	}
	n, err := load(l, id, level)
	if err != nil {
		n = nil
	}
	if err := visit(id, n, err); err != nil || n == nil {
		if errors.Is(err, SkipNode) {
			return nil
		}
		return err
	}
	if n.Level() == 0 {
		return nil
	}
	for i := range n.Len() {
		if err := walk(l, n.Child(i), n.Level()-1, enter, visit); err != nil {
			return err
		}
	}
	return nil
}

// A Checker walks over trees that share nodes, each node once, and finds all that
// is wrong with their structure and how many references there are to each node.
// It holds about a hundred bytes per node.
type Checker struct {
	loader Loader
	damage func(id NodeID, err error)
	item   func(id NodeID, key, value []byte) Totals
	seen   map[NodeID]*checked
}

// Totals are sums over the items of a tree: how many there are, and what the checker's
// caller makes of each.
type Totals struct {
	Items   uint64
	Bytes   int64
	Counted uint64
}

// Add adds the totals of something else.
func (t *Totals) Add(o Totals) {
	t.Items += o.Items
	t.Bytes += o.Bytes
	t.Counted += o.Counted
}

// checked is what the Checker knows of a node.
type checked struct {
	refs     uint64
	below    Totals
	level    int    // anyLevel when the node cannot be used
	low, top []byte // the lowest and the highest key below it, nil if none is known
}

// NewChecker returns a checker that calls damage with each node with which
// something is wrong, once for each thing and place, and item with each item of
// each leaf, once for the leaf, which returns what the item adds to the totals of
// every tree that it is in; Items is filled in. Either may be nil.
func NewChecker(l Loader, damage func(id NodeID, err error), item func(id NodeID, key, value []byte) Totals) *Checker {
	if damage == nil {
		damage = func(NodeID, error) {}
	}
	if item == nil {
		item = func(NodeID, []byte, []byte) Totals { return Totals{} }
	}
	return &Checker{loader: l, damage: damage, item: item, seen: map[NodeID]*checked{}}
}

// Tree checks the tree whose root is given, which is one reference to it. It
// returns the totals of its items, as far as its nodes can be used.
func (c *Checker) Tree(root NodeID) Totals {
	if root == 0 {
		return Totals{}
	}
	return c.visit(root, anyLevel, 0).below
}

// Count returns the number of references to a node that were met, 0 for one that
// was not.
func (c *Checker) Count(id NodeID) uint64 {
	if k := c.seen[id]; k != nil {
		return k.refs
	}
	return 0
}

// Refs yields each node that was met and the number of references to it, in no
// order. What a count says that is not in it, nothing refers to.
func (c *Checker) Refs() iter.Seq2[NodeID, uint64] {
	return func(yield func(NodeID, uint64) bool) {
		for id, k := range c.seen {
			if !yield(id, k.refs) {
				return
			}
		}
	}
}

// visit counts a reference to node id, from parent if it is not 0, and checks the
// node when it is met for the first time.
func (c *Checker) visit(id NodeID, level int, parent NodeID) *checked {
	k, ok := c.seen[id]
	if !ok {
		k = &checked{level: anyLevel}
		c.seen[id] = k
		n, err := c.loader.Load(id)
		if err != nil {
			c.damage(id, fmt.Errorf("btree: load node %d: %w", id, err))
		} else if level == anyLevel || n.Level() == level {
			k.level = n.Level()
			c.node(id, n, k)
		} else {
			k.level = n.Level() // and not what is below it, where a circle may be
		}
	}
	k.refs++
	if level != anyLevel && k.level != anyLevel && k.level != level {
		c.damage(id, fmt.Errorf("btree: node %d has level %d where %d belongs, below node %d: %w", id, k.level, level, parent, ErrDamaged))
	}
	return k
}

// node checks what is in a node, and fills in the keys of k.
func (c *Checker) node(id NodeID, n *Node, k *checked) {
	count := n.Len()
	if n.Level() == 0 {
		k.low, k.top = n.AppendKey(nil, 0), n.AppendKey(nil, count-1)
		var scratch [MaxKeySize]byte
		for i := range count {
			k.below.Add(c.item(id, n.AppendKey(scratch[:0], i), n.Value(i)))
		}
		k.below.Items = uint64(count)
		return
	}
	for i := range count {
		child := c.visit(n.Child(i), n.Level()-1, id)
		k.below.Add(child.below)
		if child.low == nil {
			continue
		}
		if i > 0 {
			if key := n.AppendKey(nil, i); bytes.Compare(child.low, key) < 0 {
				c.damage(n.Child(i), fmt.Errorf("btree: node %d has key %x, and the key before it in node %d is %x: %w", n.Child(i), child.low, id, key, ErrDamaged))
			}
		}
		if i+1 < count {
			if key := n.AppendKey(nil, i+1); bytes.Compare(child.top, key) >= 0 {
				c.damage(n.Child(i), fmt.Errorf("btree: node %d has key %x, and the key after it in node %d is %x: %w", n.Child(i), child.top, id, key, ErrDamaged))
			}
		}
		if k.low == nil {
			k.low = child.low
		}
		k.top = child.top
	}
}
