package union

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer/memlayer"
)

// A file that was read while nobody could write to it can be written to later:
// without root that is every file of mode 0444 that is made writable, and what
// was written to it went nowhere.
func TestFileReadWhileReadOnlyCanBeWrittenLater(t *testing.T) {
	fs := memlayer.New(memlayer.Options{})
	fs.MustBuild(`
		upper/f f 0644 "old"
		work    d
	`)
	f, err := fs.Dir("upper").OpenFile("f", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.SetFlags(unix.STATX_ATTR_IMMUTABLE); err != nil {
		t.Fatal(err)
	}
	u, err := New(Config{
		Upper: &Branch{Name: "upper", Root: fs.Dir("upper")},
		Work:  &Branch{Name: "work", Root: fs.Dir("work")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	n, _, err := u.Lookup(u.Root(), "f")
	if err != nil {
		t.Fatal(err)
	}
	read := func() string {
		t.Helper()
		var buf [9]byte
		k, err := u.Read(n, buf[:], 0)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:k])
	}
	if got := read(); got != "old" {
		t.Fatalf("read %q", got)
	}
	if _, err := u.Write(n, []byte("new"), 0, false); err != unix.EPERM {
		t.Errorf("write to an immutable file: %v, want EPERM", err)
	}
	if got := read(); got != "old" {
		t.Fatalf("after a refused write: %q", got)
	}
	if err := f.SetFlags(0); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write(n, []byte("new"), 0, false); err != nil {
		t.Errorf("write once that is allowed: %v", err)
	}
	if got := read(); got != "new" {
		t.Errorf("then it holds %q", got)
	}
}
