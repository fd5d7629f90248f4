package blockpool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A walk visits the nodes of trees that have to do with a window of the space of keys.
// It is for those who decide at each node whether to look into it.
type walk struct {
	btree.Loader
	window
	most    int    // nodes that may be loaded
	visited int    // that were loaded
	reached uint64 // the last leaf that was visited begins there
}

// A window is the keys from first up to and without end, by their first eight bytes;
// an end of noEnd has all of them. For records these are numbers.
type window struct{ first, end uint64 }

const noEnd = math.MaxUint64

func (w window) has(n uint64) bool { return n >= w.first && (n < w.end || w.end == noEnd) }

// Long walks go in steps, each in a state of its own. A step looks at a window, which
// is made such that it visits about windowNodes nodes, whether the trees are dense or
// sparse: what a dataset has lies in lumps far apart. One that would visit far more
// is given up and made smaller; some nodes for each tree are seen in any case.
const (
	firstWindow = 16 << 10
	windowNodes = 1000
	mostNodes   = 4 * windowNodes
	treeNodes   = 16
)

// errWide says that a window has too many nodes.
var errWide = errors.New("too many nodes")

// inWindows calls step with one window after the other. A step returns the walk that
// it has made, over how many trees, and where these end.
func inWindows(ctx context.Context, step func(w window) (made *walk, trees int, end uint64, err error)) error {
	width := uint64(firstWindow)
	for w := (window{0, firstWindow}); ; {
		made, trees, end, err := step(w)
		switch {
		case errors.Is(err, errWide):
			width = max(min((w.end-w.first)/2, made.reached-w.first), 1)
			w.end = w.first + width
			continue
		case err != nil:
			return err
		case w.end >= end:
			return nil
		case made.visited < (windowNodes+treeNodes*trees)/4:
			width = min(width, 1<<62) * 2
		case made.visited > windowNodes+treeNodes*trees:
			width = max(width/2, 1)
		}
		w = window{w.end, w.end + min(width, noEnd-w.end)}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

// end returns where the keys of an entry's tree end.
func (e *entry) end() uint64 {
	if e.holdsFiles() {
		return noEnd
	}
	return e.records()
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
	if w.visited++; w.visited > w.most && w.reached > w.first+1 && w.end > w.first+1 {
		return nil, errWide
	}
	if n.Level() == 0 {
		w.reached = max(w.first, lowest(n.AppendKey(nil, 0)))
	}
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
		if i > 0 && w.end != noEnd && lowest(n.AppendKey(scratch[:0], i)) >= w.end {
			return nil
		}
		if i+1 < n.Len() && w.behind(lowest(n.AppendKey(scratch[:0], i+1))) {
			continue
		}
		if err := child(n.Child(i), n.Level()-1); err != nil {
			return err
		}
	}
	return nil
}

// behind reports whether the window begins behind all keys that are lower than one
// that begins with n. Keys of items may be alike in their first eight bytes.
func (w window) behind(n uint64) bool {
	return n < w.first || n == w.first && n < ItemCounted<<56
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
		if !w.has(number) {
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
