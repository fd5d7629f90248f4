package union

import (
	"math"
	"testing"

	"github.com/laminafs/lamina/fs/layer/memlayer"
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

// A lookup that has looked at a directory before someone changed it, and goes on
// when that one's node is forgotten already, must look again: the directory may
// hold whiteouts by now.
func TestLookupSeesThatANodeHasComeAndGone(t *testing.T) {
	disk := memlayer.New(memlayer.Options{})
	disk.MustBuild("low/d d\nlow/d/file f\nup/d d\nwork d")
	u, err := New(Config{
		Lowers:  []Branch{{Name: "low", Root: disk.Dir("low")}},
		Upper:   &Branch{Name: "up", Root: disk.Dir("up")},
		Work:    &Branch{Name: "work", Root: disk.Dir("work")},
		Options: Options{Whiteouts: WhiteoutXattr},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	before := u.root.dir.gen
	n, _, err := u.Lookup(u.Root(), "d")
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Unlink(n, "file"); err != nil {
		t.Fatal(err)
	}
	u.Forget(n, 1)
	if u.root.dir.gen == before {
		t.Error("nobody can tell what was found before from what is there now")
	}
}
