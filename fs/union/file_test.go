package union

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/memlayer"
)

// A file that was read while nobody could write to it can be written to later:
// without root that is every file of mode 0444 that is made writable, and what
// was written to it went nowhere.
func TestFileReadWhileReadOnlyCanBeWrittenLater(t *testing.T) {
	u, n, f := upperFile(t)
	if err := f.SetFlags(unix.STATX_ATTR_IMMUTABLE); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, u, n); got != "old" {
		t.Fatalf("read %q", got)
	}
	if _, err := u.Write(n, []byte("new"), 0, false); err != unix.EPERM {
		t.Errorf("write to an immutable file: %v, want EPERM", err)
	}
	if got := contents(t, u, n); got != "old" {
		t.Fatalf("after a refused write: %q", got)
	}
	if err := f.SetFlags(0); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write(n, []byte("new"), 0, false); err != nil {
		t.Errorf("write once that is allowed: %v", err)
	}
	if got := contents(t, u, n); got != "new" {
		t.Errorf("then it holds %q", got)
	}
}

// A log that may only grow takes what is added, in the whole pages that
// write-back hands over too, and nothing else.
func TestAppendOnlyFileGrows(t *testing.T) {
	u, n, _ := upperFile(t)
	if err := u.SetFlags(n, unix.STATX_ATTR_APPEND); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what  string
		text  string
		off   int64
		err   error
		holds string
	}{
		{"add", "+1", 3, nil, "old+1"},
		{"hand over the page", "old+1+2", 0, nil, "old+1+2"},
		{"hand it over again", "old+1+2", 0, nil, "old+1+2"},
		{"change the start", "new", 0, unix.EPERM, "old+1+2"},
		{"change the start and add", "new+1+2+3", 0, unix.EPERM, "old+1+2"},
		{"leave a hole", "far", 99, unix.EPERM, "old+1+2"},
	} {
		k, err := u.Write(n, []byte(c.text), c.off, false)
		if err != c.err || err == nil && k != len(c.text) {
			t.Errorf("%s: wrote %d: %v, want %v", c.what, k, err, c.err)
		}
		if got := contents(t, u, n); got != c.holds {
			t.Errorf("%s: it holds %q, want %q", c.what, got, c.holds)
		}
	}
	if _, err := u.Link(n, u.Root(), "link"); err != unix.EPERM {
		t.Errorf("link: %v, want EPERM", err)
	}
	copied, _, err := u.Create(u.Root(), "copy", 0o644, Caller{})
	if err != nil {
		t.Fatal(err)
	}
	if k, err := u.CopyRange(n, copied, 0, 0, 7, false); k != 7 || err != nil || contents(t, u, copied) != "old+1+2" {
		t.Errorf("copied %d bytes: %v, %q", k, err, contents(t, u, copied))
	}
	if err := u.SetFlags(n, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write(n, []byte("new"), 0, false); err != nil || contents(t, u, n) != "new+1+2" {
		t.Errorf("once it is an ordinary file again: %v, %q", err, contents(t, u, n))
	}
}

// upperFile returns a union, a node of it that is a file of the upper with the
// content "old", and that file.
func upperFile(t *testing.T) (*FS, *Node, layer.File) {
	t.Helper()
	fs := memlayer.New(memlayer.Options{})
	fs.MustBuild(`
		upper/f f 0644 "old"
		work    d
	`)
	f, err := fs.Dir("upper").OpenFile("f", unix.O_RDONLY, 0)
	if err != nil {
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
		f.Close()
	})
	n, _, err := u.Lookup(u.Root(), "f")
	if err != nil {
		t.Fatal(err)
	}
	return u, n, f
}

func contents(t *testing.T, u *FS, n *Node) string {
	t.Helper()
	var buf [16]byte
	k, err := u.Read(n, buf[:], 0)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:k])
}

// What the kernel writes back later carries no time of its own: a file whose
// mtime moves by itself is built again, or looked at again by git.
func TestWriteBackLeavesTheTime(t *testing.T) {
	u, n, _ := upperFile(t)
	then := layer.Time{Sec: 1000, Nsec: 5}
	if _, err := u.SetAttr(n, Change{Mtime: &then}); err != nil {
		t.Fatal(err)
	}
	if k, err := u.WriteBack(n, []byte("newer"), 0, false); k != 5 || err != nil {
		t.Fatalf("wrote %d: %v", k, err)
	}
	if a, err := u.GetAttr(n); err != nil || a.Mtime != then || a.Size != 5 {
		t.Errorf("size %d, mtime %v, %v; want 5, %v", a.Size, a.Mtime, err, then)
	}
	if _, err := u.Write(n, []byte("now"), 0, false); err != nil {
		t.Fatal(err)
	}
	if a, err := u.GetAttr(n); err != nil || a.Mtime == then {
		t.Errorf("a write that nothing held back leaves mtime %v, %v", a.Mtime, err)
	}
}

// The kernel may tell the time while it still hands over data: that time stays.
func TestTimeToldWhileDataIsWrittenBack(t *testing.T) {
	u, n, _ := upperFile(t)
	for round := range 200 {
		told := layer.Time{Sec: int64(round)}
		var done sync.WaitGroup
		for range 2 {
			done.Go(func() {
				if _, err := u.WriteBack(n, []byte("data"), 0, false); err != nil {
					t.Error(err)
				}
			})
		}
		if _, err := u.SetAttr(n, Change{Mtime: &told}); err != nil {
			t.Fatal(err)
		}
		done.Wait()
		if a, err := u.GetAttr(n); err != nil || a.Mtime != told {
			t.Fatalf("round %d: mtime %v, %v; want %v", round, a.Mtime, err, told)
		}
	}
}
