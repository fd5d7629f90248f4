package spacemap

import "testing"

func TestTakeGoesOverAllThatIsFree(t *testing.T) {
	a := NewAllocator(5000, 3000)
	for _, used := range [][2]uint64{{5000, 10}, {5100, 1}, {6000, 900}, {7999, 1}} {
		if err := a.Reserve(used[0], used[1]); err != nil {
			t.Fatal(err)
		}
	}
	free, taken, from := a.Free(), uint64(0), uint64(0)
	var runs [][2]uint64
	for {
		unit, n, ok := a.Take(from, 500)
		if !ok {
			break
		}
		if n > 500 {
			t.Fatalf("%d units at once", n)
		}
		runs = append(runs, [2]uint64{unit, n})
		taken, from = taken+n, unit+n
	}
	if taken != free || a.Free() != 0 || runs[0] != [2]uint64{5010, 90} || runs[1] != [2]uint64{5101, 500} {
		t.Fatalf("%d of %d taken: %v", taken, free, runs)
	}
	for _, r := range runs {
		if err := a.Release(r[0], r[1]); err != nil {
			t.Fatal(err)
		}
	}
	if a.Free() != free {
		t.Fatalf("%d are free, %d were", a.Free(), free)
	}
}
