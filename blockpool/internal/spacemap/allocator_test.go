package spacemap

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// naive is an allocator of bools, from which [Allocator] may differ in nothing
// but speed.
type naive struct {
	base, next uint64
	used       []bool
}

func (a *naive) run(from, n, align uint64) (uint64, bool) {
	for at := (from + align - 1) / align * align; at+n <= uint64(len(a.used)); at += align {
		if !slices.Contains(a.used[at:at+n], true) {
			return at, true
		}
	}
	return 0, false
}

func (a *naive) allocate(n, align uint64) (uint64, bool) {
	at, ok := a.run(a.next, n, align)
	if !ok {
		at, ok = a.run(0, n, align)
	}
	if !ok {
		return 0, false
	}
	a.mark(at, n, true)
	a.next = at + n
	return a.base + at, true
}

func (a *naive) mark(at, n uint64, used bool) {
	for i := at; i < at+n; i++ {
		a.used[i] = used
	}
}

func (a *naive) all(at, n uint64, used bool) bool {
	return !slices.Contains(a.used[at:at+n], !used)
}

func (a *naive) free() (n uint64) {
	for _, used := range a.used {
		if !used {
			n++
		}
	}
	return n
}

func (a *naive) largest() (most uint64) {
	run := uint64(0)
	for _, used := range a.used {
		if run++; used {
			run = 0
		}
		most = max(most, run)
	}
	return most
}

func sameAsNaive(t *testing.T, rng *rand.Rand, steps int) {
	base, n := rng.Uint64N(1000), 1+rng.Uint64N(400)
	got, want := NewAllocator(base, n), &naive{base: base, used: make([]bool, n)}
	for step := range steps {
		at, count := rng.Uint64N(n), 1+rng.Uint64N(20)
		count = min(count, n-at)
		switch rng.IntN(5) {
		case 0, 1, 2:
			size, align := 1+rng.Uint64N(1+rng.Uint64N(80)), uint64(1)
			if rng.IntN(3) == 0 {
				align = 1 + rng.Uint64N(9)
			}
			a, aok := got.Allocate(size, align)
			b, bok := want.allocate(size, align)
			if a != b || aok != bok {
				t.Fatalf("step %d: Allocate(%d, %d) = %d, %v, want %d, %v", step, size, align, a, aok, b, bok)
			}
		case 3:
			free := want.all(at, count, false)
			if err := got.Reserve(base+at, count); (err == nil) != free {
				t.Fatalf("step %d: Reserve(%d, %d): %v, free is %v", step, base+at, count, err, free)
			}
			if free {
				want.mark(at, count, true)
			}
		case 4:
			used := want.all(at, count, true)
			if err := got.Release(base+at, count); (err == nil) != used {
				t.Fatalf("step %d: Release(%d, %d): %v, used is %v", step, base+at, count, err, used)
			}
			if used {
				want.mark(at, count, false)
			}
		}
		if got.Free() != want.free() {
			t.Fatalf("step %d: %d units are free, want %d", step, got.Free(), want.free())
		}
		if got.Largest() < want.largest() {
			t.Fatalf("step %d: the longest run is said to be at most %d, and is %d", step, got.Largest(), want.largest())
		}
	}
}

func TestAllocatorGivesOutWhatANaiveOneDoes(t *testing.T) {
	for seed := range uint64(300) {
		sameAsNaive(t, rand.New(rand.NewPCG(seed, 7)), 600)
	}
}

func FuzzAllocator(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) { sameAsNaive(t, rand.New(rand.NewPCG(a, b)), 300) })
}

func TestAllocatorTakesOverTheMap(t *testing.T) {
	m := New(stored{}.load)
	must(t, m.AddSegments(1, 3))
	must(t, m.Set(1500, 1000))
	a, err := m.Allocator(1100, 2000) // borders within segments
	must(t, err)
	if free := a.Free(); free != 1000 {
		t.Errorf("%d units are free", free)
	}
	if err := a.Reserve(2499, 2); !errors.Is(err, ErrInUse) {
		t.Errorf("a unit in use was reserved: %v", err)
	}
	must(t, a.Reserve(2500, 600))
	must(t, a.Reserve(1100, 400))
	if at, ok := a.Allocate(1, 1); ok {
		t.Errorf("a full chunk gave out %d", at)
	}
	if _, err := m.Allocator(3500, 1000); !errors.Is(err, ErrDamaged) {
		t.Errorf("an allocator takes a missing segment for free space: %v", err)
	}
}

func TestAllocatorIsOneForAllGoroutines(t *testing.T) {
	a := NewAllocator(0, 12000) // never wraps
	var wg sync.WaitGroup
	var owners [12000]atomic.Int32
	for range 8 {
		wg.Go(func() {
			for range 500 {
				kept, ok := a.Allocate(2, 1)
				back, ok2 := a.Allocate(1, 1)
				if !ok || !ok2 || a.Release(back, 1) != nil {
					t.Error("there is room, and it was not given out")
					return
				}
				owners[kept].Add(1)
				owners[kept+1].Add(1)
			}
		})
	}
	wg.Wait()
	for unit := range owners {
		if n := owners[unit].Load(); n > 1 {
			t.Fatalf("unit %d was given out %d times", unit, n)
		}
	}
	if a.Free() != 4000 {
		t.Errorf("%d units are free, want 4000", a.Free())
	}
}

func BenchmarkAllocateInAFullChunk(b *testing.B) {
	a := NewAllocator(0, 1<<18) // 1 GiB, every other unit free
	for i := uint64(0); i < 1<<18; i += 2 {
		_ = a.Reserve(i, 1) // cannot fail: nothing was given out
	}
	for b.Loop() {
		a.Allocate(4, 1)
	}
}

func BenchmarkAllocateAndRelease(b *testing.B) {
	a := NewAllocator(0, 1<<18)
	for b.Loop() {
		at, _ := a.Allocate(4, 1)
		_ = a.Release(at, 4) // cannot fail: it was just given out
	}
}
