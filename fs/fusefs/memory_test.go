package fusefs

import "testing"

// A server of a few files must not spend its time on looking for garbage, and one
// of many must not keep as much garbage as it has files.
func TestCollectorWaitsForMoreOnlyWhileLittleIsAlive(t *testing.T) {
	for _, c := range []struct {
		live    uint64
		percent int
	}{
		{0, 200}, // the runtime's least heap is then heapFloor
		{1 << 20, 200},
		{4 << 20, 100},
		{6 << 20, 40},
		{100 << 20, 40},
	} {
		if got := collectAfter(c.live); got != c.percent {
			t.Errorf("with %d bytes alive the heap may grow by %d %%, want %d %%", c.live, got, c.percent)
		}
	}
}
