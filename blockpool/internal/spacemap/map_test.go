package spacemap

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// stored is what a Map loads from.
type stored map[uint64][]byte

func (s stored) load(seg uint64) ([]byte, error) { return s[seg], nil }

func (s stored) apply(m *Map) {
	m.TakeDirty(func(seg uint64, value []byte) {
		if value == nil {
			delete(s, seg)
			return
		}
		s[seg] = value
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMissingSegmentIsDamageAndNotFreeSpace(t *testing.T) {
	m := New(stored{}.load)
	_, err := m.Count(5000)
	for name, err := range map[string]error{
		"Count":          err,
		"Set":            m.Set(5000, 1),
		"Retain":         m.Retain(5000),
		"RemoveSegments": m.RemoveSegments(4, 1),
	} {
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v does not say that a segment is missing", name, err)
		}
	}
	must(t, m.AddSegments(4, 1))
	if err := m.Set(5*1024-1, 2); !errors.Is(err, ErrDamaged) {
		t.Errorf("an extent went on into a segment that does not exist: %v", err)
	}
	if n, err := m.Count(5*1024 - 1); n != 0 || err != nil {
		t.Errorf("the refused extent left %d, %v", n, err)
	}
}

func TestLoadErrorsComeThrough(t *testing.T) {
	broken := errors.New("broken")
	m := New(func(uint64) ([]byte, error) { return nil, broken })
	if _, err := m.Count(1); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestRefusalsChangeNothing(t *testing.T) {
	m := New(stored{}.load)
	must(t, m.AddSegments(0, 2))
	must(t, m.Set(1000, 100)) // over the border
	if err := m.Set(990, 20); !errors.Is(err, ErrInUse) {
		t.Errorf("space in use was given out again: %v", err)
	}
	if n, _ := m.Count(990); n != 0 {
		t.Error("the refused extent is in use")
	}
	if err := m.AddSegments(1, 2); !errors.Is(err, ErrInUse) {
		t.Errorf("a segment was added over another: %v", err)
	}
	if err := m.RemoveSegments(0, 1); !errors.Is(err, ErrInUse) {
		t.Errorf("a segment in use was removed: %v", err)
	}
	if err := m.Retain(999); !errors.Is(err, ErrNotInUse) {
		t.Errorf("free space was shared: %v", err)
	}
	if _, err := m.Release(999, 2); !errors.Is(err, ErrNotInUse) {
		t.Errorf("free space was released: %v", err)
	}
	if _, err := m.Release(1000, 101); !errors.Is(err, ErrNotInUse) {
		t.Errorf("more was released than there is: %v", err)
	}
	must(t, m.Retain(1001))
	if _, err := m.Release(1000, 100); !errors.Is(err, ErrInUse) {
		t.Errorf("an extent was freed over a shared one: %v", err)
	}
	if n, _ := m.Count(1000); n != 1 {
		t.Errorf("the extent has %d references", n)
	}
	for _, err := range []error{m.Set(7, 0), m.Set(1<<64-1, 2), m.AddSegments(1<<54-1, 5), m.RemoveSegments(1, 1<<54)} {
		if err == nil {
			t.Error("a range that is none was accepted")
		}
	}
}

// TestMapKeepsCountsAsAPlainMapDoes compares random work, stored and loaded
// again all the time, with a Go map.
func TestMapKeepsCountsAsAPlainMapDoes(t *testing.T) {
	const units = 8 * SegmentUnits
	type extent struct{ n, refs uint64 }
	rng := rand.New(rand.NewPCG(1, 2))
	disk, extents, used := stored{}, map[uint64]extent{}, [units]bool{}
	var starts []uint64
	m := New(disk.load)
	must(t, m.AddSegments(0, 8))
	for step := range 200_000 {
		switch op := rng.IntN(10); {
		case op < 4:
			at, n := rng.Uint64N(units-64), 1+rng.Uint64N(40)
			free := !slices.Contains(used[at:at+n], true)
			err := m.Set(at, n)
			if free != (err == nil) {
				t.Fatalf("step %d: Set(%d, %d): %v, free is %v", step, at, n, err, free)
			}
			if free {
				extents[at] = extent{n, 1}
				starts = append(starts, at)
				for i := at; i < at+n; i++ {
					used[i] = true
				}
			}
		case len(starts) == 0:
		case op < 6:
			at := starts[rng.IntN(len(starts))]
			must(t, m.Retain(at))
			extents[at] = extent{extents[at].n, extents[at].refs + 1}
		case op < 9:
			i := rng.IntN(len(starts))
			at := starts[i]
			e := extents[at]
			e.refs--
			left, err := m.Release(at, e.n)
			if err != nil || left != e.refs {
				t.Fatalf("step %d: Release(%d, %d): %d, %v, want %d", step, at, e.n, left, err, e.refs)
			}
			if extents[at] = e; left == 0 {
				delete(extents, at)
				starts[i] = starts[len(starts)-1]
				starts = starts[:len(starts)-1]
				for i := at; i < at+e.n; i++ {
					used[i] = false
				}
			}
		case rng.IntN(20) == 0:
			disk.apply(m)
			m.Evict(rng.IntN(4))
		}
		if at := rng.Uint64N(units); step%8 == 0 {
			want := extents[at].refs
			if used[at] && want == 0 {
				want = 1
			}
			if got, err := m.Count(at); err != nil || got != want {
				t.Fatalf("step %d: unit %d has %d references, %v, want %d", step, at, got, err, want)
			}
		}
	}
	for at, e := range extents {
		for range e.refs {
			_, err := m.Release(at, e.n)
			must(t, err)
		}
	}
	must(t, m.RemoveSegments(0, 8))
	if n := m.Dirty(); n != 8 {
		t.Errorf("%d segments are dirty", n)
	}
	disk.apply(m)
	if len(disk) != 0 || m.Dirty() != 0 {
		t.Errorf("%d segments are left, %d dirty", len(disk), m.Dirty())
	}
	if _, err := m.Count(1); !errors.Is(err, ErrDamaged) {
		t.Errorf("a removed segment is counted: %v", err)
	}
	must(t, m.AddSegments(3, 1))
	if n, err := m.Count(3 * SegmentUnits); n != 0 || err != nil {
		t.Errorf("a segment that came back has %d, %v", n, err)
	}
}

func TestCountsHaveAnEnd(t *testing.T) {
	s := &segment{}
	s.bits.set(0)
	s.setCount(0, MaxCount)
	m := New(stored{0: s.pack()}.load)
	if err := m.Retain(0); err == nil {
		t.Error("a count went past what can be stored")
	}
	if left, err := m.Release(0, 1); err != nil || left != MaxCount-1 {
		t.Errorf("got %d, %v", left, err)
	}
}
