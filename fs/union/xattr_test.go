package union

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer/memlayer"
)

// A container that mounts unions itself, rootless or not, keeps their marks in
// the files of its own root, and must find them by the names it gave.
func TestMarksOfNestedUnionsAreListedAsTheyWereSet(t *testing.T) {
	disk := memlayer.New(memlayer.Options{})
	disk.MustBuild("low/file f\nup d\nwork d")
	u, err := New(Config{
		Lowers: []Branch{{Name: "low", Root: disk.Dir("low")}},
		Upper:  &Branch{Name: "up", Root: disk.Dir("up")},
		Work:   &Branch{Name: "work", Root: disk.Dir("work")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	n, _, err := u.Lookup(u.Root(), "file")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"trusted.overlay.opaque", "user.overlay.opaque", "user.plain"}
	for _, name := range names {
		if err := u.Setxattr(n, name, []byte("y"), 0, false); err != nil {
			t.Errorf("set %s: %v", name, err)
		}
	}
	buf := make([]byte, 1000)
	k, err := u.Listxattr(n, buf)
	if err != nil {
		t.Fatal(err)
	}
	got := splitNames(buf[:k])
	slices.Sort(got)
	if !slices.Equal(got, names) {
		t.Errorf("listed: %q, want %q", got, names)
	}
	for _, name := range got {
		if _, err := u.Getxattr(n, name, buf); err != nil {
			t.Errorf("get the listed %s: %v", name, err)
		}
	}
	if _, err := u.Getxattr(n, "user.overlay.origin", buf); err != unix.ENODATA {
		t.Errorf("a mark of the union itself: %v, want ENODATA", err)
	}
}

// Capabilities that grant nothing here are no reason to refuse a change: those
// of another namespace's root cannot even be read.
func TestVoidCapabilitiesAreLeftBehind(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EINVAL, unix.EOVERFLOW} {
		for _, metacopy := range []bool{false, true} {
			disk := memlayer.New(memlayer.Options{})
			disk.MustBuild(`low/file f data security.capability="\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"` + "\nup d\nwork d")
			disk.OnCall(func(c memlayer.Call) error {
				if c.Op == "Getxattr" && c.Attr == "security.capability" {
					return errno
				}
				return nil
			})
			u, err := New(Config{
				Lowers:  []Branch{{Name: "low", Root: disk.Dir("low")}},
				Upper:   &Branch{Name: "up", Root: disk.Dir("up")},
				Work:    &Branch{Name: "work", Root: disk.Dir("work")},
				Options: Options{Metacopy: metacopy},
			})
			if err != nil {
				t.Fatal(err)
			}
			n, _, err := u.Lookup(u.Root(), "file")
			if err != nil {
				t.Fatal(err)
			}
			mode := uint32(0o600)
			if _, err := u.SetAttr(n, Change{Mode: &mode}); err != nil {
				t.Errorf("%v: chmod: %v", errno, err)
			}
			if _, err := u.Write(n, []byte("more"), 4, false); err != nil {
				t.Errorf("%v: write: %v", errno, err)
			}
			if err := u.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// The mark of a metacopy file goes when its data comes, also while a listing of
// its directory is looking at it.
func TestMarksMayGoWhileTheyAreRead(t *testing.T) {
	disk := memlayer.New(memlayer.Options{})
	disk.MustBuild("low/file f data\nup/file f data trusted.overlay.metacopy=\nwork d")
	u, err := New(Config{
		Lowers: []Branch{{Name: "low", Root: disk.Dir("low")}},
		Upper:  &Branch{Name: "up", Root: disk.Dir("up")},
		Work:   &Branch{Name: "work", Root: disk.Dir("work")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	disk.OnCall(func(c memlayer.Call) error {
		if c.Attr == "trusted.overlay.metacopy" {
			return unix.ENODATA
		}
		return nil
	})
	if err := u.ReadDir(u.Root(), 0, func(Listed) bool { return true }); err != nil {
		t.Errorf("list: %v", err)
	}
	if _, _, err := u.Lookup(u.Root(), "file"); err != nil {
		t.Errorf("lookup: %v", err)
	}
}
