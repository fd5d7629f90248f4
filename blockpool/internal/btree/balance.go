package btree

import "fmt"

// What is less than smallSize is merged with a neighbour when the result has no
// more than mergedSize. The gap up to MaxNodeSize keeps a node that was just
// merged from being split again at once.
const (
	smallSize  = MaxNodeSize / 3
	mergedSize = MaxNodeSize * 3 / 4
)

// split makes room for key at the end of the path. It splits one node: the leaf,
// or when the parent has no room for another child, the parent, and so on; the
// caller tries again. found says that key is in the leaf and its value is to grow.
//
// This ends, since each split leaves less in the node that is to take something,
// and an inner node of one child and a leaf of no item have room for anything.
func (t *Tree) split(key []byte, found bool) error {
	for l := len(t.path) - 1; ; l-- {
		if l == 0 {
			if err := t.grow(); err != nil {
				return err
			}
			l = 1
		}
		s, parent := t.path[l], t.path[l-1]
		at, sep := splitPoint(s.n, s.i, key, found)
		var unknown [childSize]byte
		if !parent.n.insert(parent.i+1, sep, unknown[:]) {
			continue
		}
		left, right := newPacked(s.n, nil), newPacked(s.n, nil)
		if at > 0 {
			left = s.n.slice(0, at)
		}
		if at < s.n.Len() {
			right = s.n.slice(at, s.n.Len())
		}
		id, err := t.store.Add(right)
		if err != nil {
			return fmt.Errorf("btree: split node %d: %w", s.id, err)
		}
		parent.n.setChild(parent.i+1, id)
		s.n.become(left)
		return nil
	}
}

// grow puts a new root above the path.
func (t *Tree) grow() error {
	old := t.path[0]
	if old.n.Level() == MaxLevel {
		return fmt.Errorf("btree: node %d has the highest level, %d: %w", old.id, MaxLevel, ErrDamaged)
	}
	n := NewNode(old.n.Level()+1, 0)
	n.push(nil, innerPayload(nil, old.id))
	id, err := t.store.Add(n)
	if err != nil {
		return fmt.Errorf("btree: add a root: %w", err)
	}
	t.root = id
	t.path = append([]step{{id, n, 0}}, t.path...)
	return nil
}

// splitPoint returns which items stay in n, and the key that separates the others
// from them, when n has no room for what is to come at i: key itself in a leaf, a
// child after child i in an inner node. What comes at the end leaves n full, since
// most of what is written is written in ascending order.
func splitPoint(n *Node, i int, key []byte, found bool) (at int, sep []byte) {
	count := n.Len()
	switch inner := n.Level() > 0; {
	case inner && i == count-1:
		at = count - 1
	case inner, found:
		at = n.middle()
	case i == count:
		return count, separator(n.AppendKey(nil, count-1), key)
	case count == 1:
		return 0, separator(key, n.AppendKey(nil, 0))
	default:
		at = n.middle()
	}
	if n.Level() > 0 {
		return at, n.AppendKey(nil, at)
	}
	return at, separator(n.AppendKey(nil, at-1), n.AppendKey(nil, at))
}

// middle returns the item at which to split n, of two items or more, in halves of
// about the same size.
func (n *Node) middle() int {
	half := (int(n.offs[0]) + len(n.buf)) / 2
	for i := 1; i < n.Len()-1; i++ {
		if int(n.offs[i]) >= half {
			return i
		}
	}
	return n.Len() - 1
}

// shrink mends the path after items of its leaf were removed: nodes without items
// go, small ones are merged, and a root with one child gives way to it.
func (t *Tree) shrink() error {
	for l := len(t.path) - 1; l > 0; l-- {
		s, parent := t.path[l], t.path[l-1]
		if s.n.Len() == 0 {
			parent.n.remove(parent.i, parent.i+1)
			if err := t.release(s.id); err != nil {
				return err
			}
			continue
		}
		if len(s.n.buf) >= smallSize {
			return nil
		}
		if done, err := t.merge(s, parent); err != nil || !done {
			return err
		}
	}
	return t.lowerRoot()
}

// merge joins s with a neighbour, if there is one that is small enough.
func (t *Tree) merge(s, parent step) (done bool, err error) {
	for _, right := range []int{parent.i, parent.i + 1} {
		if right == 0 || right >= parent.n.Len() {
			continue
		}
		left := right - 1
		a, err := load(t.store, parent.n.Child(left), s.n.Level())
		if err != nil {
			return false, err
		}
		b, err := load(t.store, parent.n.Child(right), s.n.Level())
		if err != nil {
			return false, err
		}
		joined := join(a, b, parent.n.AppendKey(nil, right), mergedSize)
		if joined == nil {
			continue
		}
		// The neighbour is copied when it is shared: what it refers to is then
		// referred to by the joined node, too.
		for _, i := range []int{left, right} {
			id, n, err := t.own(parent.n.Child(i), s.n.Level())
			if err != nil {
				return false, err
			}
			parent.n.setChild(i, id)
			if i == left {
				n.become(joined)
			}
		}
		gone := parent.n.Child(right)
		parent.n.remove(right, right+1)
		return true, t.release(gone)
	}
	return false, nil
}

// lowerRoot replaces a root of one child by that child, and one of none by the
// empty tree.
func (t *Tree) lowerRoot() error {
	for level := anyLevel; ; level-- {
		n, err := load(t.store, t.root, level)
		if err != nil {
			return err
		}
		old := t.root
		level = n.Level()
		switch {
		case n.Len() == 0:
			t.root = 0
			return t.release(old)
		case n.Level() == 0 || n.Len() > 1:
			return nil
		}
		t.root = n.Child(0)
		refs, err := t.store.Refs(old)
		if err != nil {
			return fmt.Errorf("btree: count of node %d: %w", old, err)
		}
		if refs > 1 { // the old root stays, and refers to the child as well
			if err := t.store.Retain(t.root); err != nil {
				return fmt.Errorf("btree: retain node %d: %w", t.root, err)
			}
		}
		if err := t.release(old); err != nil {
			return err
		}
	}
}

func (t *Tree) release(id NodeID) error {
	if err := t.store.Release(id); err != nil {
		return fmt.Errorf("btree: release node %d: %w", id, err)
	}
	return nil
}
