package btree

import "bytes"

// Diff calls f, in the order of the keys, with each key whose value is not the
// same in the trees with the roots a and b. A value is nil in a tree that does not
// have the key. The key is valid during the call only. An error of f ends the walk
// and is returned as it is.
//
// A node that both trees share is the same in both, so neither it nor what is
// below it is looked at: the cost is that of the difference. This needs a loader
// that shows both trees in one state of the pool.
func Diff(l Loader, a, b NodeID, f func(key, a, b []byte) error) error {
	return DiffFrom(l, a, b, nil, f)
}

// DiffFrom is Diff without the keys below from. A long walk goes on there, with a
// loader of its own for each piece.
func DiffFrom(l Loader, a, b NodeID, from []byte, f func(key, a, b []byte) error) error {
	if a == b {
		return nil
	}
	x, err := newStream(l, a, from)
	if err != nil {
		return err
	}
	y, err := newStream(l, b, from)
	if err != nil {
		return err
	}
	for !x.done() || !y.done() {
		if err := diffStep(x, y, f); err != nil {
			return err
		}
	}
	return nil
}

// diffStep takes what two streams begin with when it is the same or can be told
// apart, and looks into a node otherwise.
func diffStep(x, y *stream, f func(key, a, b []byte) error) error {
	order := x.compare(y)
	switch {
	case x.node() != 0 && x.node() == y.node():
		x.skip()
		y.skip()
		return nil
	case order == 0 && x.isItem() && y.isItem():
		a, b := x.value(), y.value()
		if !bytes.Equal(a, b) {
			if err := f(x.low, a, b); err != nil {
				return err
			}
		}
		x.skip()
		y.skip()
		return nil
	case order < 0 && x.isItem():
		if err := f(x.low, x.value(), nil); err != nil {
			return err
		}
		x.skip()
		return nil
	case order > 0 && y.isItem():
		if err := f(y.low, nil, y.value()); err != nil {
			return err
		}
		y.skip()
		return nil
	// One of the two has to be looked into: the one that begins first, or else the
	// taller one, since the other may be a child of it.
	case order < 0 || order == 0 && x.height() >= y.height():
		return x.expand()
	default:
		return y.expand()
	}
}

// A stream yields the items of a tree in order, and subtrees as a whole until it
// is asked to look into them. What it begins with is its head.
type stream struct {
	loader Loader
	path   []frame // none at the end of the stream; the head is in the last one
	low    []byte  // the head's key if it is an item, else no more than its keys
}

// frame is a node that the stream has looked into.
type frame struct {
	n   *Node
	i   int    // the item or child that comes next
	low []byte // no more than any key below n
}

// newStream returns a stream that begins with the first item whose key is from or
// more; from nil it begins with the whole of the root.
func newStream(l Loader, root NodeID, from []byte) (*stream, error) {
	s := &stream{loader: l}
	if root == 0 {
		return s, nil
	}
	n, err := load(l, root, anyLevel)
	if err != nil {
		return nil, err
	}
	s.path = append(s.path, frame{n: n})
	for from != nil && s.top().n.Level() > 0 {
		s.top().i = s.top().n.childOf(from)
		s.settle()
		if err := s.expand(); err != nil {
			return nil, err
		}
	}
	if from != nil {
		s.top().i, _ = s.top().n.search(from)
	}
	s.settle()
	return s, nil
}

func (s *stream) done() bool  { return len(s.path) == 0 }
func (s *stream) top() *frame { return &s.path[len(s.path)-1] }

func (s *stream) isItem() bool { return !s.done() && s.top().n.Level() == 0 }

// height is 0 for an item, and grows with the level of a node.
func (s *stream) height() int { return s.top().n.Level() }

// node returns the node that the head is, 0 for an item or at the end.
func (s *stream) node() NodeID {
	if s.done() || s.isItem() {
		return 0
	}
	return s.top().n.Child(s.top().i)
}

func (s *stream) value() []byte { return s.top().n.Value(s.top().i) }

// compare says which of two streams, not both at their ends, begins first.
func (s *stream) compare(o *stream) int {
	switch {
	case s.done():
		return 1
	case o.done():
		return -1
	default:
		return bytes.Compare(s.low, o.low)
	}
}

// skip goes on to what follows the head.
func (s *stream) skip() {
	s.top().i++
	s.settle()
}

// settle leaves the nodes that have nothing more, and finds low.
func (s *stream) settle() {
	for !s.done() && s.top().i >= s.top().n.Len() {
		if s.path = s.path[:len(s.path)-1]; !s.done() {
			s.top().i++
		}
	}
	if s.done() {
		return
	}
	top := s.top()
	if top.i < top.n.firstKey() {
		s.low = append(s.low[:0], top.low...)
		return
	}
	s.low = top.n.AppendKey(s.low[:0], top.i)
}

// expand replaces a head that is a node by what is in it.
func (s *stream) expand() error {
	n, err := load(s.loader, s.node(), s.height()-1)
	if err != nil {
		return err
	}
	s.path = append(s.path, frame{n: n, low: bytes.Clone(s.low)})
	s.settle()
	return nil
}
