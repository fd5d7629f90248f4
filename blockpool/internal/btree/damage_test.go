package btree_test

import (
	"errors"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/btree/memstore"
)

// small is a tree of a root, and leaves below it.
func small(tb testing.TB) (memstore.View, btree.NodeID, *btree.Node) {
	tb.Helper()
	s, tree := filled(tb, 1000)
	v := s.View()
	root := v[tree.Root()]
	if root.Level() != 1 || root.Len() < 4 {
		tb.Fatalf("the root has level %d and %d children", root.Level(), root.Len())
	}
	return v, tree.Root(), root
}

func TestCheckerFindsAllDamageAndNamesTheNodes(t *testing.T) {
	v, root, n := small(t)
	v[n.Child(0)] = v[n.Child(2)] // keys past the next separator
	delete(v, n.Child(1))         // missing
	v[n.Child(3)] = v[n.Child(2)] // keys before its separator
	v[n.Child(4)] = n             // a circle
	found := map[btree.NodeID]int{}
	c := btree.NewChecker(v, func(id btree.NodeID, err error) {
		if !errors.Is(err, btree.ErrDamaged) {
			t.Errorf("node %d: %v", id, err)
		}
		found[id]++
	}, nil)
	c.Tree(root)
	for i := range n.Len() {
		want := 0
		if i != 2 && i < 5 {
			want = 1
		}
		if got := found[n.Child(i)]; got != want {
			t.Errorf("child %d: %d things were found, want %d", i, got, want)
		}
	}
	for id, refs := range c.Refs() {
		if refs != 1 {
			t.Errorf("node %d has %d references", id, refs)
		}
	}
}

func TestDamageEndsNoWalkInACircleOrAPanic(t *testing.T) {
	v, root, n := small(t)
	v[n.Child(3)] = n
	delete(v, n.Child(1))
	visits, failed := 0, 0
	must(t, btree.Walk(v, root, nil, func(_ btree.NodeID, _ *btree.Node, err error) error {
		if visits++; err != nil {
			failed++
		}
		return nil
	}))
	if visits != 1+n.Len() || failed != 2 {
		t.Errorf("%d nodes were visited, %d of them could not be loaded", visits, failed)
	}
	for name, err := range map[string]error{
		"Scan": btree.Scan(v, root, nil, nil, func(_, _ []byte) error { return nil }),
		"Diff": btree.Diff(v, root, 0, func(_, _, _ []byte) error { return nil }),
		"Get": func() error {
			_, _, err := btree.Get(v, root, n.AppendKey(nil, 1))
			return err
		}(),
	} {
		if !errors.Is(err, btree.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWalkSkipsWhatTheVisitorHasSeen(t *testing.T) {
	v, root, n := small(t)
	seen := map[btree.NodeID]bool{}
	enter := func(id btree.NodeID) bool { known := seen[id]; seen[id] = true; return !known }
	visits := 0
	count := func(id btree.NodeID, n *btree.Node, err error) error { visits++; return err }
	must(t, btree.Walk(v, root, enter, count))
	must(t, btree.Walk(v, root, enter, count))
	if visits != 1+n.Len() {
		t.Errorf("%d nodes were visited", visits)
	}
	visits = 0
	must(t, btree.Walk(v, root, nil, func(btree.NodeID, *btree.Node, error) error { visits++; return btree.SkipNode }))
	if visits != 1 {
		t.Errorf("%d nodes were visited below a skipped one", visits)
	}
}

// lossy is a store some of whose nodes cannot be loaded.
type lossy struct {
	*memstore.Store
	lost btree.NodeID
}

func (l lossy) Load(id btree.NodeID) (*btree.Node, error) {
	if id == l.lost {
		return nil, btree.ErrDamaged
	}
	return l.Store.Load(id)
}

func TestDropGoesOnAroundALostNode(t *testing.T) {
	s, tree := filled(t, 1000)
	n, err := s.Load(tree.Root())
	must(t, err)
	lost := n.Child(2)
	stack, failed := []btree.NodeID{tree.Root()}, 0
	for len(stack) > 0 {
		stack, err = btree.Drop(lossy{s, lost}, btree.NoItems{}, stack, 1000)
		if err == nil {
			continue
		}
		if failed++; !errors.Is(err, btree.ErrDamaged) || stack[len(stack)-1] != lost || failed > 1 {
			t.Fatalf("%v, and node %d is next", err, stack[len(stack)-1])
		}
		stack = stack[:len(stack)-1]
	}
	if s.Len() != 1 || failed != 1 {
		t.Errorf("%d nodes are left, want the lost one", s.Len())
	}
}

func TestCountedAsFreeAndStillInATreeIsDamage(t *testing.T) {
	s, tree := filled(t, 1000)
	n, err := s.Load(tree.Root())
	must(t, err)
	key := n.AppendKey(nil, 2)
	must(t, s.Release(n.Child(2)))
	if _, err := tree.Put(key, nil); !errors.Is(err, btree.ErrDamaged) {
		t.Errorf("put: %v", err)
	}
	_, err = btree.Drop(s, btree.NoItems{}, []btree.NodeID{n.Child(2)}, 10)
	if !errors.Is(err, btree.ErrDamaged) {
		t.Errorf("drop: %v", err)
	}
}
