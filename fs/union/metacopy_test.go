package union

import (
	"testing"

	"github.com/laminafs/lamina/fs/layer/memlayer"
)

// An image's layer may hold a file that was only renamed, with its data in a
// layer below. Renaming it again in a container must not lose that data.
func TestMetacopyOfMetacopyFindsItsData(t *testing.T) {
	disk := memlayer.New(memlayer.Options{})
	disk.MustBuild(`
		base/file  f "data"
		base/d     d
		base/e     d
		one        d
		two        d
		work1      d
		work2      d
	`)
	within := func(upper, work string, lowers []string, do func(u *FS)) {
		t.Helper()
		cfg := Config{Options: Options{Metacopy: true, Redirect: true}}
		for _, l := range lowers {
			cfg.Lowers = append(cfg.Lowers, Branch{Name: l, Root: disk.Dir(l)})
		}
		cfg.Upper, cfg.Work = &Branch{Name: upper, Root: disk.Dir(upper)}, &Branch{Name: work, Root: disk.Dir(work)}
		u, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		do(u)
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
	}
	rename := func(u *FS, from, name, to, as string) {
		t.Helper()
		if err := u.Rename(dirOf(t, u, from), name, dirOf(t, u, to), as, 0); err != nil {
			t.Fatalf("rename %s/%s: %v", from, name, err)
		}
	}
	within("one", "work1", []string{"base"}, func(u *FS) {
		rename(u, "", "file", "d", "moved")
		rename(u, "", "d", "", "dd")
	})
	within("two", "work2", []string{"one", "base"}, func(u *FS) { rename(u, "dd", "moved", "e", "again") })
	within("two", "work2", []string{"one", "base"}, func(u *FS) {
		n, _, err := u.Lookup(dirOf(t, u, "e"), "again")
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		k, err := u.Read(n, buf, 0)
		if err != nil || string(buf[:k]) != "data" {
			t.Errorf("read %q: %v", buf[:k], err)
		}
	})
}

func dirOf(t *testing.T, u *FS, name string) *Node {
	t.Helper()
	if name == "" {
		return u.Root()
	}
	n, _, err := u.Lookup(u.Root(), name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
