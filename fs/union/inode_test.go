package union

import (
	"math"
	"testing"
)

// The first filesystem keeps its numbers, the others differ from it, and with
// ino32_t nothing is too large for a 32-bit program.
func TestInodeNumbers(t *testing.T) {
	var wide, narrow inoSpace
	narrow.fold = true
	for _, s := range []*inoSpace{&wide, &narrow} {
		if got := s.compose(7, 1234); got != 1234 {
			t.Errorf("inode 1234 of the first filesystem shows as %d", got)
		}
		if a, b := s.compose(8, 1234), s.compose(9, 1234); a == 1234 || b == 1234 || a == b {
			t.Errorf("inode 1234 of two more filesystems shows as %#x and %#x", a, b)
		}
	}
	if got := narrow.compose(9, 1<<40|5); got > math.MaxUint32 {
		t.Errorf("folded into 32 bits: %#x", got)
	}
}
