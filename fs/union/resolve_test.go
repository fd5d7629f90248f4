package union

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer/memlayer"
)

// A mark that a listing leaves out must not be found by its name either: a
// copying tool that tries the name would carry a deletion into another tree.
func TestMarksOfAufsAreFoundByNoName(t *testing.T) {
	upper := memlayer.New(memlayer.Options{})
	upper.MustBuild(`
		changes/d/.wh..wh..opq f
		changes/.wh.gone       f
		work                   d
	`)
	lower := memlayer.New(memlayer.Options{})
	lower.MustBuild(`
		d/hidden     f
		gone         f
		e/.wh..wh.aufs f
		e/.wh.x      f
	`)
	u, err := New(Config{
		Lowers: []Branch{{Name: "lower", Root: lower.Root()}},
		Upper:  &Branch{Name: "upper", Root: upper.Dir("changes")},
		Work:   &Branch{Name: "work", Root: upper.Dir("work")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	for dir, names := range map[string][]string{
		"":  {".wh.gone", "gone"},
		"d": {".wh..wh..opq", "hidden"},
		"e": {".wh..wh.aufs", ".wh.x"},
	} {
		p := u.Root()
		if dir != "" {
			if p, _, err = u.Lookup(p, dir); err != nil {
				t.Fatalf("%s: %v", dir, err)
			}
		}
		for _, name := range names {
			if _, _, err := u.Lookup(p, name); err != unix.ENOENT {
				t.Errorf("%s in %q: %v, want ENOENT", name, dir, err)
			}
		}
	}
}
