package blockpool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// dead is what is left of destroyed trees: for each the nodes that still have a
// reference to be ended. It is in the metadata, and each txg ends a bounded number
// of references in the same commit that forgets them, so a crash loses neither.
type dead struct {
	mu    sync.Mutex
	trees map[uint64][]btree.NodeID // by number
}

// pending reports whether there is something left to do.
func (d *dead) pending() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.trees) > 0
}

// add takes over a reference to a root.
func (d *dead) add(s *pass, root btree.NodeID) {
	if root == 0 {
		return
	}
	s.state.nextDead++
	d.set(s, s.state.nextDead, []btree.NodeID{root})
}

// set notes what is left of a tree, also for the commit.
func (d *dead) set(s *pass, number uint64, left []btree.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(left) == 0 {
		delete(d.trees, number)
		s.batch.Delete(meta.Dead, key64(number))
		return
	}
	d.trees[number] = left
	if mutant.Breaks(mutant.KeepDeadLists) {
		return
	}
	s.batch.Put(meta.Dead, key64(number), packNodeIDs(left))
}

// next returns the tree with the lowest number.
func (d *dead) next() (number uint64, left []btree.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n := range d.trees {
		if number == 0 || n < number {
			number = n
		}
	}
	return number, slices.Clone(d.trees[number])
}

// bury ends references to nodes of destroyed trees, as many as a txg may.
func (s *pass) bury() error {
	for budget := s.p.tune.deadPerTxg; budget > 0; {
		number, left := s.p.dead.next()
		if number == 0 {
			return nil
		}
		before := s.nodes.released
		rest, err := btree.Drop(s.nodes, s, left, budget)
		if err != nil {
			if rest, err = s.skipDead(rest, err); err != nil {
				return err
			}
			budget--
		}
		budget -= s.nodes.released - before
		s.p.dead.set(s, number, rest)
	}
	return nil
}

// skipDead goes on without a node that cannot be read: what is below it stays in
// use until a check frees it. Any other error has left counts half changed.
func (s *pass) skipDead(rest []btree.NodeID, cause error) ([]btree.NodeID, error) {
	if !errors.Is(cause, ErrDamaged) || len(rest) == 0 {
		return nil, cause
	}
	last := rest[len(rest)-1]
	refs, err := s.nodes.Refs(last)
	if err == nil && refs > 0 {
		if _, err = s.nodes.Load(last); err == nil {
			return nil, cause // this one is sound: the damage is elsewhere
		}
	}
	s.p.events.add(Event{Kind: EventDamaged, Text: fmt.Sprintf("a destroyed tree: %v: what is below stays in use until a check frees it", cause)})
	return rest[:len(rest)-1], nil
}

// packNodeIDs returns the value of a destroyed tree in its bucket.
func packNodeIDs(ids []btree.NodeID) []byte {
	b := []byte{1} // version
	for _, id := range ids {
		b = binary.AppendUvarint(b, uint64(id))
	}
	return b
}

// unpackNodeIDs is the inverse of packNodeIDs.
func unpackNodeIDs(b []byte) (ids []btree.NodeID, err error) {
	if len(b) < 2 || b[0] != 1 {
		return nil, damagedf("list of nodes of version %x", b[:min(len(b), 1)])
	}
	for b = b[1:]; len(b) > 0; {
		id, n := binary.Uvarint(b)
		if n <= 0 || id == 0 {
			return nil, damagedf("list of nodes ends after %d", len(ids))
		}
		ids, b = append(ids, btree.NodeID(id)), b[n:]
	}
	return ids, nil
}

// load reads what is left of destroyed trees.
func (d *dead) load(view *meta.View) error {
	d.trees = map[uint64][]btree.NodeID{}
	return view.Scan(meta.Dead, nil, func(key, value []byte) error {
		number, err := parseKey64(key)
		if err != nil {
			return fmt.Errorf("destroyed tree: %w", err)
		}
		d.trees[number], err = unpackNodeIDs(value)
		if err != nil {
			return fmt.Errorf("destroyed tree %d: %w", number, err)
		}
		return nil
	})
}
