package union

import (
	"testing"

	"golang.org/x/sys/unix"
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
