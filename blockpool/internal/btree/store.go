package btree

import (
	"errors"
	"fmt"
)

// A Loader gives readers the nodes of one state of the pool.
type Loader interface {
	// Load returns node id, which nobody changes from then on. An error for
	// bytes that are no node, or for a node that is not there, wraps
	// format.ErrDamaged.
	Load(id NodeID) (*Node, error)
}

// A Store is what the writer changes trees in. It belongs to one goroutine.
//
// A node is private when its [Node] was made by Edit or Add since the last
// commit; nobody but the writer sees it. A commit stores the bytes of all private
// nodes together with the counts, deletes what was freed, and leaves no node
// private.
//
// After an error of a Store, the trees that it holds may be half changed: the
// transaction group must be given up as a whole.
type Store interface {
	// Load returns node id as the writer sees it: private, or committed. What is
	// private may change with the next change of a tree.
	Loader
	// Refs returns how many parents and roots refer to node id: 0 for one that
	// is free.
	Refs(id NodeID) (uint64, error)
	// Retain adds a reference to node id, which must have one already.
	Retain(id NodeID) error
	// Release takes one away. When none is left the node is gone, and its id may
	// be given out again.
	Release(id NodeID) error
	// Edit returns node id, whose count is one, for changing: the private copy,
	// made with [Node.Clone] and [Node.SetBirth] unless there is one. It fails as
	// Load does.
	Edit(id NodeID) (*Node, error)
	// Add takes n over as private, gives it an id and one reference, and sets
	// its birth.
	Add(n *Node) (NodeID, error)
}

// Items keeps the counts of what the values of a tree name. Each item of each
// leaf is one reference, whatever number of trees the leaf is shared by.
type Items interface {
	// Retain is called for each item of a shared leaf when it is copied.
	Retain(key, value []byte) error
	// Release is called for each item of a leaf when the last reference to the
	// leaf is dropped.
	Release(key, value []byte) error
}

// NoItems is for trees whose values name nothing that is counted.
type NoItems struct{}

// Retain does nothing.
func (NoItems) Retain(key, value []byte) error { return nil }

// Release does nothing.
func (NoItems) Release(key, value []byte) error { return nil }

// ErrTooLarge is wrapped by the error of a Put whose key or value has more bytes
// than a tree takes. The tree is as it was.
var ErrTooLarge = errors.New("too large for a tree")

// anyLevel is the level of a node of which nothing is known yet: a root.
const anyLevel = -1

// load returns node id, which must have the given level.
func load(l Loader, id NodeID, level int) (*Node, error) {
	n, err := l.Load(id)
	if err != nil {
		return nil, fmt.Errorf("btree: load node %d: %w", id, err)
	}
	return n, checkLevel(id, n, level)
}

// checkLevel returns damage when a node is not of the level that its place in the
// tree demands. That the level falls with each step down is what ends every walk,
// whatever the nodes say.
func checkLevel(id NodeID, n *Node, level int) error {
	if level != anyLevel && n.Level() != level {
		return fmt.Errorf("btree: node %d has level %d where %d belongs: %w", id, n.Level(), level, ErrDamaged)
	}
	return nil
}

// Get returns the value of key in the tree whose root is given. The value is a
// part of a node: it stays as it is for as long as the node does, and the caller
// does not change it.
func Get(l Loader, root NodeID, key []byte) (value []byte, ok bool, err error) {
	for id, level := root, anyLevel; id != 0; {
		n, err := load(l, id, level)
		if err != nil {
			return nil, false, err
		}
		if n.Level() == 0 {
			i, found := n.search(key)
			if !found {
				return nil, false, nil
			}
			return n.Value(i), true, nil
		}
		id, level = n.Child(n.childOf(key)), n.Level()-1
	}
	return nil, false, nil
}
