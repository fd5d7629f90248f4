// Package memstore keeps the nodes of trees in memory, as a pool would keep them
// on disk: committed nodes as bytes that are parsed when they are loaded, private
// ones until the next commit, and a count for each. It is for tests, of trees and
// of what is built on them, and refuses what a tree must not do.
package memstore

import (
	"errors"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/btree"
)

// ErrMisuse is wrapped when the counts say that a tree did what it must not do:
// use a node that is free, change one that is shared, release what nothing holds.
var ErrMisuse = errors.New("misuse of nodes")

// A Store is a [btree.Store]. It belongs to one goroutine; what [Store.View]
// returns does not.
type Store struct {
	// Skip, if it is not nil, is asked before each change of a count, by
	// "retain" or "release", whether to forget the change. It is how tests show
	// that a lost count is found.
	Skip func(op string, id btree.NodeID) bool
	// Loads counts the calls of Load.
	Loads int

	txg       uint64
	next      btree.NodeID
	refs      map[btree.NodeID]uint64
	private   map[btree.NodeID]*btree.Node
	committed map[btree.NodeID]*btree.Node
	freed     []btree.NodeID // since the last commit; not given out before it
	free      []btree.NodeID
}

var _ btree.Store = (*Store)(nil)

// New returns a store without nodes.
func New() *Store {
	return &Store{
		txg:       1,
		next:      1,
		refs:      map[btree.NodeID]uint64{},
		private:   map[btree.NodeID]*btree.Node{},
		committed: map[btree.NodeID]*btree.Node{},
	}
}

// Load returns a node.
func (s *Store) Load(id btree.NodeID) (*btree.Node, error) {
	s.Loads++
	if s.refs[id] == 0 {
		return nil, fmt.Errorf("load node %d, which is free: %w", id, ErrMisuse)
	}
	if n, ok := s.private[id]; ok {
		return n, nil
	}
	return s.committed[id], nil
}

// Refs returns the count of a node.
func (s *Store) Refs(id btree.NodeID) (uint64, error) { return s.refs[id], nil }

// Retain adds to the count of a node.
func (s *Store) Retain(id btree.NodeID) error {
	if s.refs[id] == 0 {
		return fmt.Errorf("retain node %d, which is free: %w", id, ErrMisuse)
	}
	if s.Skip == nil || !s.Skip("retain", id) {
		s.refs[id]++
	}
	return nil
}

// Release takes from the count of a node.
func (s *Store) Release(id btree.NodeID) error {
	if s.refs[id] == 0 {
		return fmt.Errorf("release node %d, which is free: %w", id, ErrMisuse)
	}
	if s.Skip != nil && s.Skip("release", id) {
		return nil
	}
	if s.refs[id]--; s.refs[id] == 0 {
		delete(s.refs, id)
		delete(s.private, id)
		s.freed = append(s.freed, id)
	}
	return nil
}

// Edit returns the private copy of a node.
func (s *Store) Edit(id btree.NodeID) (*btree.Node, error) {
	if s.refs[id] != 1 {
		return nil, fmt.Errorf("edit node %d, which has %d references: %w", id, s.refs[id], ErrMisuse)
	}
	if n, ok := s.private[id]; ok {
		return n, nil
	}
	n := s.committed[id].Clone()
	n.SetBirth(s.txg)
	s.private[id] = n
	return n, nil
}

// Add takes over a node.
func (s *Store) Add(n *btree.Node) (btree.NodeID, error) {
	var id btree.NodeID
	if last := len(s.free) - 1; last >= 0 {
		id, s.free = s.free[last], s.free[:last]
	} else {
		id = s.next
		s.next++
	}
	n.SetBirth(s.txg)
	s.refs[id], s.private[id] = 1, n
	return id, nil
}

// Commit makes what is private readable by views that are made later. It fails
// when a node that the writer made cannot be parsed.
func (s *Store) Commit() error {
	for _, id := range s.freed {
		delete(s.committed, id)
	}
	for id, n := range s.private {
		parsed, err := btree.Parse(append([]byte(nil), n.Bytes()...))
		if err != nil {
			return fmt.Errorf("commit node %d: %w", id, err)
		}
		if parsed.Birth() != s.txg {
			return fmt.Errorf("commit node %d of txg %d in txg %d: %w", id, parsed.Birth(), s.txg, ErrMisuse)
		}
		s.committed[id] = parsed
	}
	clear(s.private)
	s.free = append(s.free, s.freed...)
	s.freed = s.freed[:0]
	s.txg++
	return nil
}

// Len returns the number of nodes.
func (s *Store) Len() int { return len(s.refs) }

// Bytes returns the size of all committed nodes.
func (s *Store) Bytes() (n int) {
	for _, node := range s.committed {
		n += len(node.Bytes())
	}
	return n
}

// A View is the nodes of one commit, which later ones do not change.
type View map[btree.NodeID]*btree.Node

// View returns the nodes as they were last committed.
func (s *Store) View() View {
	v := make(View, len(s.committed))
	for id, n := range s.committed {
		v[id] = n
	}
	return v
}

// Load returns a node.
func (v View) Load(id btree.NodeID) (*btree.Node, error) {
	n, ok := v[id]
	if !ok {
		return nil, fmt.Errorf("node %d is missing: %w", id, btree.ErrDamaged)
	}
	return n, nil
}

// Recount walks from roots, each of which is one reference, and compares the
// counts kept with those found. It returns one error for each difference and for
// each damage of the structure. item is called with each item of each leaf.
func (s *Store) Recount(roots []btree.NodeID, item func(key, value []byte)) (errs []error) {
	c := btree.NewChecker(s,
		func(_ btree.NodeID, err error) { errs = append(errs, err) },
		func(_ btree.NodeID, key, value []byte) (t btree.Totals) {
			if item != nil {
				item(key, value)
			}
			return t
		})
	for _, root := range roots {
		c.Tree(root)
	}
	found := 0
	for id, refs := range c.Refs() {
		found++
		if s.refs[id] != refs {
			errs = append(errs, fmt.Errorf("node %d has %d references and counts %d: %w", id, refs, s.refs[id], ErrMisuse))
		}
	}
	if found < len(s.refs) {
		errs = append(errs, fmt.Errorf("%d nodes are counted and not reachable: %w", len(s.refs)-found, ErrMisuse))
	}
	return errs
}
