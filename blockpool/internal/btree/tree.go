package btree

import (
	"bytes"
	"fmt"
)

// A Tree changes one tree. It belongs to the goroutine that has the [Store]. A
// method that returns an error, unless it says otherwise, leaves the tree and the
// counts half changed: see [Store].
type Tree struct {
	store Store
	items Items
	root  NodeID

	path    []step // from the root to the leaf, in the operation that runs
	payload []byte // scratch
}

// step is one node of a path.
type step struct {
	id NodeID
	n  *Node // private, and referred to by nothing else than the path
	i  int   // the child that the path goes on with, or the item of the leaf
}

// Open returns the tree whose root is given, 0 for an empty one. The tree takes
// over one reference to the root.
func Open(s Store, items Items, root NodeID) *Tree {
	return &Tree{store: s, items: items, root: root}
}

// Root returns the root as it is now, 0 when the tree is empty. It is the
// caller's to record it after each change.
func (t *Tree) Root() NodeID { return t.root }

// Get is [Get] as the writer sees the tree. The value may change with the next
// change of any tree of the store.
func (t *Tree) Get(key []byte) (value []byte, ok bool, err error) {
	return Get(t.store, t.root, key)
}

// Cursor returns a cursor over the tree as the writer sees it.
func (t *Tree) Cursor() *Cursor { return NewCursor(t.store, t.root) }

// Put gives key a value, and returns a copy of the one that it had, nil if there
// was none.
//
// What the value names is the caller's to count: the reference that the new value
// stands for passes from the caller to the tree, and the reference that old stood
// for from the tree to the caller, who releases it. Items is not asked for either
// of them.
//
// A key or value that is too large is [ErrTooLarge], and nothing has changed.
func (t *Tree) Put(key, value []byte) (old []byte, err error) {
	if len(key) > MaxKeySize || len(value) > MaxValueSize {
		return nil, fmt.Errorf("btree: put a key of %d bytes and a value of %d: %w", len(key), len(value), ErrTooLarge)
	}
	if t.root == 0 {
		if t.root, err = t.store.Add(NewNode(0, 0)); err != nil {
			return nil, fmt.Errorf("btree: add a root: %w", err)
		}
	}
	t.payload = leafPayload(t.payload[:0], value)
	for {
		found, err := t.descend(key)
		if err != nil {
			return nil, err
		}
		leaf := t.path[len(t.path)-1]
		if found {
			old = bytes.Clone(leaf.n.Value(leaf.i))
			if leaf.n.setPayload(leaf.i, t.payload) {
				return old, nil
			}
		} else if leaf.n.insert(leaf.i, key, t.payload) {
			return nil, nil
		}
		if err := t.split(key, found); err != nil {
			return nil, err
		}
	}
}

// Delete removes key and returns a copy of the value that it had; ok says whether
// there was one. The reference that the value stood for passes to the caller, who
// releases it. When there is no such key no node is copied.
func (t *Tree) Delete(key []byte) (old []byte, ok bool, err error) {
	if _, ok, err := t.Get(key); err != nil || !ok {
		return nil, false, err
	}
	if _, err := t.descend(key); err != nil {
		return nil, false, err
	}
	leaf := t.path[len(t.path)-1]
	old = bytes.Clone(leaf.n.Value(leaf.i))
	leaf.n.remove(leaf.i, leaf.i+1)
	return old, true, t.shrink()
}

// DeleteRange removes the items from key from on up to and without key to; a to
// of nil is the end of the tree. It calls f with each, in the order of the keys,
// and the reference that the value stood for passes to f. Key and value are parts
// of the tree and valid during the call only; f must not change the tree.
//
// When f fails, its item and those after it stay, and DeleteRange returns the
// error of f as it is. The tree is whole then, so f can end a piece of a long
// range with an error of its own.
func (t *Tree) DeleteRange(from, to []byte, f func(key, value []byte) error) error {
	for {
		c := t.Cursor()
		if !c.Seek(from) || to != nil && bytes.Compare(c.Key(), to) >= 0 {
			return c.Err()
		}
		if _, err := t.descend(c.Key()); err != nil {
			return err
		}
		leaf := t.path[len(t.path)-1]
		end, stop := takeItems(leaf.n, leaf.i, to, f)
		leaf.n.remove(leaf.i, end)
		if err := t.shrink(); err != nil {
			return err
		}
		if stop != nil {
			return stop
		}
	}
}

// takeItems calls f with the items of a leaf from i on whose keys are less than
// to, and returns the first one that f did not take.
func takeItems(leaf *Node, i int, to []byte, f func(key, value []byte) error) (end int, err error) {
	var scratch [MaxKeySize]byte
	for ; i < leaf.Len(); i++ {
		key := leaf.AppendKey(scratch[:0], i)
		if to != nil && bytes.Compare(key, to) >= 0 {
			break
		}
		if err := f(key, leaf.Value(i)); err != nil {
			return i, err
		}
	}
	return i, nil
}

// descend makes the path to key, all of it private to this tree, and returns
// whether its leaf has key.
func (t *Tree) descend(key []byte) (found bool, err error) {
	t.path = t.path[:0]
	id, n, err := t.own(t.root, anyLevel)
	if err != nil {
		return false, err
	}
	t.root = id
	for n.Level() > 0 {
		i := n.childOf(key)
		t.path = append(t.path, step{id, n, i})
		child, c, err := t.own(n.Child(i), n.Level()-1)
		if err != nil {
			return false, err
		}
		n.setChild(i, child)
		id, n = child, c
	}
	i, found := n.search(key)
	t.path = append(t.path, step{id, n, i})
	return found, nil
}

// own returns node id for changing. The caller's reference is the one that counts:
// if there is another, the node stays as it is, the reference passes to a copy,
// and everything that the node refers to has one reference more, the copy's.
func (t *Tree) own(id NodeID, level int) (NodeID, *Node, error) {
	refs, err := t.store.Refs(id)
	if err != nil {
		return 0, nil, fmt.Errorf("btree: count of node %d: %w", id, err)
	}
	switch refs {
	case 0:
		return 0, nil, fmt.Errorf("btree: node %d is in a tree and counted as free: %w", id, ErrDamaged)
	case 1:
		n, err := t.store.Edit(id)
		if err != nil {
			return 0, nil, fmt.Errorf("btree: edit node %d: %w", id, err)
		}
		return id, n, checkLevel(id, n, level)
	}
	shared, err := load(t.store, id, level)
	if err != nil {
		return 0, nil, err
	}
	n := shared.Clone()
	if err := t.retainAll(n); err != nil {
		return 0, nil, fmt.Errorf("btree: copy node %d: %w", id, err)
	}
	fresh, err := t.store.Add(n)
	if err != nil {
		return 0, nil, fmt.Errorf("btree: copy node %d: %w", id, err)
	}
	if err := t.store.Release(id); err != nil {
		return 0, nil, fmt.Errorf("btree: copy node %d: %w", id, err)
	}
	return fresh, n, nil
}

// retainAll adds a reference to everything that n refers to.
func (t *Tree) retainAll(n *Node) error {
	if n.Level() > 0 {
		for i := range n.Len() {
			if err := t.store.Retain(n.Child(i)); err != nil {
				return err
			}
		}
		return nil
	}
	var scratch [MaxKeySize]byte
	for i := range n.Len() {
		if err := t.items.Retain(n.AppendKey(scratch[:0], i), n.Value(i)); err != nil {
			return err
		}
	}
	return nil
}
