package blockpool

import (
	"encoding/binary"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A walk visits the nodes of volumes' trees that have to do with the records first
// to end-1. It is for those who decide at each node whether to look into it.
type walk struct {
	btree.Loader
	first, end uint64
	visited    int // nodes that were loaded
}

// Long walks go in steps, each in a state of its own. A step looks at a window of
// record numbers, which is made such that it visits about windowNodes nodes, whether
// the volumes are dense or sparse.
const (
	firstWindow = 16 << 10
	windowNodes = 1000
)

// nextWindow returns how many record numbers the next step looks at.
func nextWindow(window uint64, visited int) uint64 {
	switch {
	case visited < windowNodes/4:
		return window * 2
	case visited > windowNodes:
		return max(window/2, 1)
	}
	return window
}

// anyLevel is the level of a root, of which nothing is known.
const anyLevel = -1

// load returns a node, which must have the given level: that it falls with each
// step down is what ends every walk, whatever the nodes say.
func (w *walk) load(id btree.NodeID, level int) (*btree.Node, error) {
	n, err := w.Load(id)
	if err == nil && level != anyLevel && n.Level() != level {
		err = damagedf("it has level %d where %d belongs", n.Level(), level)
	}
	if err != nil {
		return nil, fmt.Errorf("node %d: %w", id, err)
	}
	w.visited++
	return n, nil
}

// position returns a number in the range of a node that does not depend on where
// the node is referred to: one window alone has it.
func (w *walk) position(n *btree.Node) (uint64, error) {
	var scratch [btree.MaxKeySize]byte
	for n.Level() > 0 && n.Len() == 1 {
		var err error
		if n, err = w.load(n.Child(0), n.Level()-1); err != nil {
			return 0, err
		}
	}
	return lowest(n.AppendKey(scratch[:0], min(n.Level(), 1))), nil
}

// below calls child with what is below an inner node, or record with the records
// of a leaf, in order.
func (w *walk) below(n *btree.Node, child func(id btree.NodeID, level int) error, record func(n uint64, rec format.Record) error) error {
	if n.Level() == 0 {
		return w.leaf(n, record)
	}
	var scratch [btree.MaxKeySize]byte
	for i := range n.Len() {
		if i > 0 && lowest(n.AppendKey(scratch[:0], i)) >= w.end {
			return nil
		}
		if i+1 < n.Len() && lowest(n.AppendKey(scratch[:0], i+1)) <= w.first {
			continue
		}
		if err := child(n.Child(i), n.Level()-1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) leaf(n *btree.Node, record func(n uint64, rec format.Record) error) error {
	var scratch [btree.MaxKeySize]byte
	for i := range n.Len() {
		key := n.AppendKey(scratch[:0], i)
		if isItem(key) {
			return nil // so are all behind it
		}
		number, err := parseKey64(key)
		if err != nil {
			return err
		}
		if number < w.first || number >= w.end {
			continue
		}
		rec, err := format.ParseRecord(n.Value(i))
		if err != nil {
			return fmt.Errorf("record %d: %w", number, err)
		}
		if err := record(number, rec); err != nil {
			return err
		}
	}
	return nil
}

// lowest returns the lowest number whose key is sep or more. What separates nodes
// may be shorter than a key.
func lowest(sep []byte) uint64 {
	var b [8]byte
	copy(b[:], sep)
	return binary.BigEndian.Uint64(b[:])
}
