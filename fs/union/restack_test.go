package union

import (
	"testing"

	"github.com/laminafs/lamina/fs/layer/memlayer"
)

// A directory that only the upper has keeps its names when layers come and go,
// also those that were listed and that nobody uses.
func TestUpperNamesStayWhenLayersChange(t *testing.T) {
	disk := memlayer.New(memlayer.Options{})
	disk.MustBuild("low/other f\nspare/else f\nup/d/file f\nup/d/sub d\nwork d")
	u, err := New(Config{
		Lowers: []Branch{{Name: "low", Root: disk.Dir("low")}},
		Upper:  &Branch{Name: "up", Root: disk.Dir("up")},
		Work:   &Branch{Name: "work", Root: disk.Dir("work")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	d, _, err := u.Lookup(u.Root(), "d")
	if err != nil {
		t.Fatal(err)
	}
	look := func(when string) {
		t.Helper()
		count := 0
		if err := u.ReadDir(d, 0, func(Listed) bool { count++; return true }); err != nil || count != 2 {
			t.Errorf("%s: %d names (%v), want 2", when, count, err)
		}
		for _, name := range []string{"file", "sub"} {
			n, _, err := u.Lookup(d, name)
			if err != nil {
				t.Fatalf("%s: lookup %s: %v", when, name, err)
			}
			u.Forget(n, 1)
		}
	}
	look("before")
	if _, err := u.AddLower(0, Branch{Name: "spare", Root: disk.Dir("spare")}); err != nil {
		t.Fatal(err)
	}
	look("with another layer")
	if _, err := u.DelLower("spare"); err != nil {
		t.Fatal(err)
	}
	look("without it")
}
