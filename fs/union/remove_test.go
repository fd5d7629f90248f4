package union

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer/memlayer"
)

// rm -r empties a directory that it hears is not empty, and must not begin with
// that where it may not remove the directory itself.
func TestRmdirInProtectedDirectoryIsForbiddenFirst(t *testing.T) {
	u, _, _ := upperFile(t)
	root := Caller{}
	d, _, err := u.Mkdir(u.Root(), "d", 0o755, root)
	if err != nil {
		t.Fatal(err)
	}
	full, _, err := u.Mkdir(d, "full", 0o755, root)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := u.Mkdir(full, "x", 0o755, root); err != nil {
		t.Fatal(err)
	}
	for flags, want := range map[uint32]error{
		0:                         unix.ENOTEMPTY,
		unix.STATX_ATTR_IMMUTABLE: unix.EPERM,
		unix.STATX_ATTR_APPEND:    unix.EPERM,
	} {
		if err := u.SetFlags(d, flags); err != nil {
			t.Fatal(err)
		}
		if err := u.Rmdir(d, "full"); err != want {
			t.Errorf("flags %#x: %v, want %v", flags, err, want)
		}
	}
}

// What was removed stays removed: the copy of a lower file that is still open
// has no name, and could get one, but would not find its data by it.
func TestRemovedLowerFilesAreNotLinkedAgain(t *testing.T) {
	for _, metacopy := range []bool{false, true} {
		disk := memlayer.New(memlayer.Options{})
		disk.MustBuild("low/file f data\nup d\nwork d")
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
		if err := u.Unlink(u.Root(), "file"); err != nil {
			t.Fatal(err)
		}
		for _, when := range []string{"removed", "removed and copied up"} {
			if _, err := u.Link(n, u.Root(), "again"); err != unix.ENOENT {
				t.Errorf("metacopy %v: link of a file that was %s: %v, want ENOENT", metacopy, when, err)
			}
			mode := uint32(0o600)
			if _, err := u.SetAttr(n, Change{Mode: &mode}); err != nil {
				t.Fatal(err)
			}
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	}
}
