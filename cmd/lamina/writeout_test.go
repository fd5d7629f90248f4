package main

import "testing"

// A bar that is watched for minutes must tell of what is left, and never go back.
func TestTheBarOfWritingOut(t *testing.T) {
	const text = "MemTotal:  24683656 kB\nDirty:   2048 kB\nWriteback:    1024 kB\nWritebackTmp:  7 kB\n"
	if got := heldBack(text); got != 3<<20 {
		t.Errorf("%d bytes, want 3 MiB", got)
	}
	if got := heldBack("Dirty: lots kB\nWriteback:"); got != 0 {
		t.Errorf("%d bytes of what is not understood", got)
	}
	var w writeOut
	last := int64(0)
	for _, held := range []int64{100, 80, 90, 150, 60, 0} {
		p := w.next(held)
		if p.Done < last || p.Done > p.Total {
			t.Errorf("held back %d: %d of %d behind %d", held, p.Done, p.Total, last)
		}
		last = p.Done
	}
	if last != 150 {
		t.Errorf("at the end %d of 150 are done", last)
	}
}
