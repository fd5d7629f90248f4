package btree_test

import (
	"errors"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/btree/memstore"
)

// A lost count is found: each test run forgets one change of one count, of a node
// or of a record, and either a recount or a misuse of what is free must tell.
func TestOneLostCountIsFound(t *testing.T) {
	const steps = 1500
	mutants := []struct {
		name  string
		wound func(w *world, forget func(op string) bool)
		op    string
	}{
		{"retain a node", forgetNode, "retain"},
		{"release a node", forgetNode, "release"},
		{"retain a record", forgetRecord, "retain"},
		{"release a record", forgetRecord, "release"},
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			tried := 0
			for nth := 1; tried < 12; nth += 1 + nth {
				w, seen := newWorld(7, shapes[1]), 0
				m.wound(w, func(op string) bool {
					if op == m.op {
						seen++
					}
					return op == m.op && seen == nth
				})
				err := w.run(steps, 5, steps)
				if seen < nth {
					break // there were no more to forget
				}
				tried++
				if !errors.Is(err, memstore.ErrMisuse) && !errors.Is(err, btree.ErrDamaged) {
					t.Errorf("number %d was forgotten, and the test says %v", nth, err)
				}
			}
			if tried < 6 {
				t.Errorf("the script could be wounded in %d places only", tried)
			}
		})
	}
}

func forgetNode(w *world, forget func(op string) bool) {
	w.store.Skip = func(op string, _ btree.NodeID) bool { return forget(op) }
}

func forgetRecord(w *world, forget func(op string) bool) { w.records.skip = forget }
