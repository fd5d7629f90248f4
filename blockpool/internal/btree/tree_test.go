package btree_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/btree/memstore"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func put(tb testing.TB, t *btree.Tree, i uint64, value string) {
	tb.Helper()
	_, err := t.Put(key8(i), []byte(value))
	must(tb, err)
}

// sound fails the test if counts or structure are wrong.
func sound(tb testing.TB, s *memstore.Store, roots ...btree.NodeID) {
	tb.Helper()
	for _, err := range s.Recount(roots, nil) {
		tb.Error(err)
	}
}

func TestWritingInOrderFillsNodes(t *testing.T) {
	s, tree := filled(t, 100_000)
	fill := float64(s.Bytes()) / float64(s.Len()) / btree.MaxNodeSize
	if fill < 0.95 {
		t.Errorf("nodes are %.0f%% full", 100*fill)
	}
	if per := float64(s.Bytes()) / 100_000; per > 27 {
		t.Errorf("an item of 28 bytes takes %.1f", per)
	}
	sound(t, s, tree.Root())
}

func TestDeletingLeavesNoTinyNodesAndThenNothing(t *testing.T) {
	const n = 100_000
	s, tree := filled(t, n)
	full := s.Len()
	order := rand.New(rand.NewPCG(1, 1)).Perm(n)
	for _, i := range order[:n*9/10] {
		_, ok, err := tree.Delete(key8(uint64(i)))
		if must(t, err); !ok {
			t.Fatalf("key %d is missing", i)
		}
	}
	must(t, s.Commit())
	if fill := float64(s.Bytes()) / float64(s.Len()) / btree.MaxNodeSize; fill < 0.45 {
		t.Errorf("with a tenth of the items left, %d nodes of %d are %.0f%% full", s.Len(), full, 100*fill)
	}
	sound(t, s, tree.Root())
	for _, i := range order[n*9/10:] {
		_, _, err := tree.Delete(key8(uint64(i)))
		must(t, err)
	}
	if tree.Root() != 0 || s.Len() != 0 {
		t.Errorf("root %d and %d nodes are left", tree.Root(), s.Len())
	}
}

func TestRandomWritesKeepNodesMoreThanHalfFull(t *testing.T) {
	s := memstore.New()
	tree := btree.Open(s, btree.NoItems{}, 0)
	for _, i := range rand.New(rand.NewPCG(2, 2)).Perm(50_000) {
		put(t, tree, uint64(i), "a value of 20 bytes.")
	}
	must(t, s.Commit())
	if fill := float64(s.Bytes()) / float64(s.Len()) / btree.MaxNodeSize; fill < 0.6 {
		t.Errorf("nodes are %.0f%% full", 100*fill)
	}
	sound(t, s, tree.Root())
}

func TestSnapshotCopiesOnePathPerWrite(t *testing.T) {
	s, tree := filled(t, 100_000)
	snap := tree.Root()
	must(t, s.Retain(snap))
	before := s.Len()
	put(t, tree, 50_000, "new")
	copied := s.Len() - before
	put(t, tree, 50_001, "in the same leaf")
	if copied > 3 || s.Len() != before+copied {
		t.Errorf("two writes to one leaf copied %d nodes, and %d", copied, s.Len()-before-copied)
	}
	sound(t, s, tree.Root(), snap)
	old, _, err := btree.Get(s, snap, key8(50_000))
	if must(t, err); !bytes.Equal(old, value20) {
		t.Errorf("the snapshot has %q", old)
	}
}

func TestDeletingWhatIsNotThereCopiesNothing(t *testing.T) {
	s, tree := filled(t, 1000)
	snap := tree.Root()
	must(t, s.Retain(snap))
	if _, ok, err := tree.Delete(key8(5000)); ok || err != nil {
		t.Errorf("got %v, %v", ok, err)
	}
	must(t, tree.DeleteRange(key8(1000), nil, nil))
	if tree.Root() != snap {
		t.Error("the root was copied")
	}
}

func TestDifferenceCostsWhatChanged(t *testing.T) {
	s, tree := filled(t, 200_000)
	snap := tree.Root()
	must(t, s.Retain(snap))
	want := map[string]bool{}
	for i := range uint64(10) {
		k := i * 20_000
		put(t, tree, k, "changed")
		want[string(key8(k))] = true
	}
	for k := uint64(77_000); k < 77_200; k++ { // nodes are merged
		_, _, err := tree.Delete(key8(k))
		must(t, err)
		want[string(key8(k))] = true
	}
	for k := uint64(200_000); k < 200_100; k++ { // nodes are split
		put(t, tree, k, "new")
		want[string(key8(k))] = true
	}
	s.Loads = 0
	must(t, btree.Diff(s, snap, tree.Root(), func(key, a, b []byte) error {
		if !want[string(key)] || bytes.Equal(a, b) {
			return fmt.Errorf("key %x: %q and %q", key, a, b)
		}
		delete(want, string(key))
		return nil
	}))
	if len(want) > 0 {
		t.Errorf("%d differences were left out", len(want))
	}
	if s.Loads > 100 {
		t.Errorf("%d of %d nodes were loaded", s.Loads, s.Len())
	}
	// So it does from a key in the middle.
	s.Loads = 0
	first := ""
	must(t, btree.DiffFrom(s, snap, tree.Root(), key8(100_001), func(key, _, _ []byte) error {
		if first == "" {
			first = string(key)
		}
		return nil
	}))
	if first != string(key8(120_000)) || s.Loads > 100 {
		t.Errorf("from 100001 on the first is %x, %d nodes were loaded", first, s.Loads)
	}
}

// TestThousandSnapshotsDeepALookupCostsTheSame is what a chain of layers needs.
func TestThousandSnapshotsDeepALookupCostsTheSame(t *testing.T) {
	s, tree := filled(t, 20_000)
	lookup := func() int {
		s.Loads = 0
		for i := range uint64(1000) {
			_, ok, err := tree.Get(key8(i * 20))
			if must(t, err); !ok {
				t.Fatalf("key %d is missing", i*20)
			}
		}
		return s.Loads
	}
	first, rng := lookup(), rand.New(rand.NewPCG(3, 3))
	var snaps []btree.NodeID
	for depth := range 1000 {
		must(t, s.Retain(tree.Root()))
		snaps = append(snaps, tree.Root())
		for range 3 {
			put(t, tree, rng.Uint64N(20_000), fmt.Sprintf("depth %d", depth))
		}
		must(t, s.Commit())
	}
	if last := lookup(); last > first+first/10 {
		t.Errorf("lookups loaded %d nodes at depth 1 and %d at depth 1000", first, last)
	}
	sound(t, s, append(snaps, tree.Root())...)
	rng.Shuffle(len(snaps), func(i, j int) { snaps[i], snaps[j] = snaps[j], snaps[i] })
	stack := snaps
	for len(stack) > 0 {
		var err error
		stack, err = btree.Drop(s, btree.NoItems{}, stack, 1000)
		must(t, err)
	}
	sound(t, s, tree.Root())
}

// TestThousandClonesOfOneTreeShareAllButWhatTheyWrote is a host full of containers
// of one image.
func TestThousandClonesOfOneTreeShareAllButWhatTheyWrote(t *testing.T) {
	s, image := filled(t, 20_000)
	before, roots := s.Len(), []btree.NodeID{image.Root()}
	for i := range uint64(1000) {
		must(t, s.Retain(image.Root()))
		clone := btree.Open(s, btree.NoItems{}, image.Root())
		put(t, clone, i*20, fmt.Sprintf("clone %d", i))
		roots = append(roots, clone.Root())
	}
	if each := (s.Len() - before) / 1000; each > 3 {
		t.Errorf("a clone with one write takes %d nodes", each)
	}
	sound(t, s, roots...)
	for i := range uint64(1000) {
		s.Loads = 0
		got, _, err := btree.Get(s, roots[i+1], key8(i*20))
		if must(t, err); string(got) != fmt.Sprintf("clone %d", i) || s.Loads > 3 {
			t.Fatalf("clone %d has %q, found with %d loads", i, got, s.Loads)
		}
	}
	stack, err := btree.Drop(s, btree.NoItems{}, roots[1:], 1<<30)
	if must(t, err); len(stack) > 0 || s.Len() != before {
		t.Errorf("%d nodes are left of %d", s.Len(), before)
	}
}

func TestDropStaysWithinItsBudget(t *testing.T) {
	s, tree := filled(t, 100_000)
	stack, most, pieces := []btree.NodeID{tree.Root()}, 0, 0
	for len(stack) > 0 {
		before := s.Len()
		var err error
		stack, err = btree.Drop(s, btree.NoItems{}, stack, 10)
		must(t, err)
		if before-s.Len() > 10 {
			t.Fatalf("a budget of 10 freed %d nodes", before-s.Len())
		}
		most = max(most, len(stack))
		if pieces++; pieces%20 == 0 {
			sound(t, s, stack...)
		}
	}
	if s.Len() != 0 || most > 600 || pieces < 100 {
		t.Errorf("%d nodes are left, the stack had up to %d, in %d pieces", s.Len(), most, pieces)
	}
}

func TestWhatIsTooLargeIsRefusedAndTheLargestIsNot(t *testing.T) {
	s := memstore.New()
	tree := btree.Open(s, btree.NoItems{}, 0)
	for _, kv := range [][2]int{{btree.MaxKeySize + 1, 0}, {0, btree.MaxValueSize + 1}} {
		if _, err := tree.Put(make([]byte, kv[0]), make([]byte, kv[1])); !errors.Is(err, btree.ErrTooLarge) {
			t.Errorf("key of %d, value of %d: %v", kv[0], kv[1], err)
		}
	}
	if tree.Root() != 0 || s.Len() != 0 {
		t.Error("a refused put left a node")
	}
	for i := range 256 {
		key := bytes.Repeat([]byte{byte(i * 37)}, btree.MaxKeySize)
		_, err := tree.Put(key, make([]byte, btree.MaxValueSize))
		must(t, err)
	}
	must(t, s.Commit())
	sound(t, s, tree.Root())
}

func TestGetAllocatesNothing(t *testing.T) {
	s, tree := filled(t, 10_000)
	v, key := s.View(), key8(777)
	if n := testing.AllocsPerRun(100, func() { _, _, _ = btree.Get(v, tree.Root(), key) }); n > 0 {
		t.Errorf("a lookup allocates %v times", n)
	}
}

// TestReadersNeedNoLock is of use with the race detector.
func TestReadersNeedNoLock(t *testing.T) {
	s, tree := filled(t, 10_000)
	var wg sync.WaitGroup
	for round := range 20 {
		v, root := s.View(), tree.Root()
		must(t, s.Retain(root))
		wg.Go(func() {
			n := 0
			err := btree.Scan(v, root, nil, nil, func(_, _ []byte) error { n++; return nil })
			if n != 10_000 || err != nil {
				t.Errorf("round %d: a reader saw %d items, %v", round, n, err)
			}
		})
		for i := range uint64(500) {
			put(t, tree, i*7, fmt.Sprint(round))
		}
		_, err := btree.Drop(s, btree.NoItems{}, []btree.NodeID{root}, 1000)
		must(t, err)
		must(t, s.Commit())
	}
	wg.Wait()
}
