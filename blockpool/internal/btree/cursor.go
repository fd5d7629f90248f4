package btree

import "bytes"

// A Cursor walks over the items of a tree in the order of their keys. It begins
// nowhere: Seek, First or Last puts it on an item. It is invalid once the tree
// that it walks over is changed.
type Cursor struct {
	loader Loader
	root   NodeID
	path   []place // from the root to the leaf; none when on no item
	key    []byte
	err    error
}

// place is a node and which child or item of it the cursor is at.
type place struct {
	n *Node
	i int
}

// NewCursor returns a cursor over the tree whose root is given.
func NewCursor(l Loader, root NodeID) *Cursor {
	return &Cursor{loader: l, root: root, path: make([]place, 0, 6), key: make([]byte, 0, 32)}
}

// Seek moves to the first item whose key is key or more, and reports whether
// there is one.
func (c *Cursor) Seek(key []byte) bool {
	return c.down(func(n *Node) int {
		if n.Level() > 0 {
			return n.childOf(key)
		}
		i, _ := n.search(key)
		return i
	}) && c.settle(1)
}

// First moves to the first item, and reports whether there is one.
func (c *Cursor) First() bool { return c.down(edge(1)) && c.settle(1) }

// Last moves to the last item, and reports whether there is one.
func (c *Cursor) Last() bool { return c.down(edge(-1)) && c.settle(-1) }

// edge picks what a walk in the given direction meets first in a node.
func edge(by int) func(n *Node) int {
	if by > 0 {
		return func(*Node) int { return 0 }
	}
	return func(n *Node) int { return n.Len() - 1 }
}

// Next moves to the item after this one, and reports whether there is one.
func (c *Cursor) Next() bool { return c.step(1) }

// Prev moves to the item before this one, and reports whether there is one.
func (c *Cursor) Prev() bool { return c.step(-1) }

// Key returns the key of the item, valid until the cursor moves.
func (c *Cursor) Key() []byte { return c.key }

// Value returns the value of the item. It is a part of a node: see [Get].
func (c *Cursor) Value() []byte {
	leaf := c.path[len(c.path)-1]
	return leaf.n.Value(leaf.i)
}

// Err returns why the cursor could not move, nil if it met the end of the tree.
func (c *Cursor) Err() error { return c.err }

// down makes the path from the root, in each node by way of what pick says.
func (c *Cursor) down(pick func(n *Node) int) bool {
	c.path, c.err = c.path[:0], nil
	return c.root != 0 && c.push(c.root, anyLevel, pick)
}

// push adds node id and what is below it to the path.
func (c *Cursor) push(id NodeID, level int, pick func(n *Node) int) bool {
	for {
		n, err := load(c.loader, id, level)
		if err != nil {
			return c.fail(err)
		}
		i := pick(n)
		c.path = append(c.path, place{n, i})
		if n.Level() == 0 {
			return true
		}
		id, level = n.Child(i), n.Level()-1
	}
}

func (c *Cursor) fail(err error) bool {
	c.path, c.err = c.path[:0], err
	return false
}

// step moves to the neighbour in the given direction, 1 or -1.
func (c *Cursor) step(by int) bool {
	if len(c.path) == 0 {
		return false
	}
	c.path[len(c.path)-1].i += by
	return c.settle(by)
}

// settle reads the item that the path ends at. When the path ends outside of a
// leaf, it goes on in the given direction.
func (c *Cursor) settle(by int) bool {
	for len(c.path) > 0 {
		p := c.path[len(c.path)-1]
		switch {
		case p.i < 0 || p.i >= p.n.Len():
			c.path = c.path[:len(c.path)-1]
			if len(c.path) > 0 {
				c.path[len(c.path)-1].i += by
			}
		case p.n.Level() > 0:
			if !c.push(p.n.Child(p.i), p.n.Level()-1, edge(by)) {
				return false
			}
		default:
			c.key = p.n.AppendKey(c.key[:0], p.i)
			return true
		}
	}
	return false
}

// Scan calls f with the items from key from on up to and without key to; a to of
// nil is the end of the tree. The key is valid during the call only, the value as
// long as that of [Get] is. An error of f ends the scan and is returned as it is.
func Scan(l Loader, root NodeID, from, to []byte, f func(key, value []byte) error) error {
	c := NewCursor(l, root)
	for ok := c.Seek(from); ok; ok = c.Next() {
		if to != nil && bytes.Compare(c.Key(), to) >= 0 {
			return nil
		}
		if err := f(c.Key(), c.Value()); err != nil {
			return err
		}
	}
	return c.Err()
}
