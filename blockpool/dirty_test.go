package blockpool

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSpansAreASet(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var s spans
		var model [100]bool
		for range 30 {
			first := rng.Uint64N(100)
			end := min(first+rng.Uint64N(20), 100)
			s.add(first, end)
			for i := first; i < end; i++ {
				model[i] = true
			}
			for i, want := range model {
				if s.has(uint64(i)) != want {
					t.Fatalf("seed %d: %v has(%d) is %v", seed, s, i, !want)
				}
			}
			if !slices.IsSortedFunc(s, func(a, b span) int { return int(a.end) - int(b.first) + 1 }) {
				t.Fatalf("seed %d: %v touch", seed, s)
			}
		}
	}
}
