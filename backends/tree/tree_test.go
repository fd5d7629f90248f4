package tree

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/memlayer"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// view looks at directories of the host, the top first.
func view(t testing.TB, dirs ...string) *View {
	t.Helper()
	var b []Branch
	for _, d := range dirs {
		root, err := layer.OpenHost(d)
		ok(t, err)
		b = append(b, Branch{d, root})
	}
	v, err := NewView(b)
	ok(t, err)
	t.Cleanup(func() { v.Close() })
	return v
}

func changes(t testing.TB, old, new *View, o CompareOptions) (list []string) {
	t.Helper()
	ok(t, Compare(context.Background(), old, new, o, func(c Change) error {
		s := string(c.Kind) + " " + c.Path
		if c.Link != "" {
			s += " = " + c.Link
		}
		list = append(list, s)
		return nil
	}))
	return list
}

func fill(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, data := range files {
		ok(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		ok(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644))
	}
	quiet(t, dir)
}

// quiet gives all one time, so that only what a test changes differs.
func quiet(t testing.TB, dir string) {
	t.Helper()
	ok(t, filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		when := time.Unix(1e9, 0)
		return os.Chtimes(path, when, when)
	}))
}

// A change that hides behind equal sizes and times is found all the same.
func TestCompareFindsChangesOfTheSameSizeAndTime(t *testing.T) {
	old, new := t.TempDir(), t.TempDir()
	fill(t, old, map[string]string{"a": "1", "b": "2", "d/e": "3"})
	fill(t, new, map[string]string{"a": "1", "b": "X", "d/e": "3"})
	if got := changes(t, view(t, old), view(t, new), CompareOptions{}); !slices.Equal(got, []string{"C b"}) {
		t.Errorf("changes %q", got)
	}
	later := CompareOptions{Since: time.Now().Add(time.Hour)}
	if got := changes(t, view(t, old), view(t, new), later); len(got) > 0 {
		t.Errorf("what did not change since was read: %q", got)
	}
}

// In trees that share files a new name of an old file is a link, not a copy.
func TestCompareTellsNewNamesOfSharedFiles(t *testing.T) {
	old := t.TempDir()
	fill(t, old, map[string]string{"a": "1", "b": "2"})
	new := t.TempDir()
	for _, l := range [][2]string{{"a", "a"}, {"a", "aa"}, {"b", "moved"}} {
		ok(t, os.Link(filepath.Join(old, l[0]), filepath.Join(new, l[1])))
	}
	quiet(t, new)
	got := changes(t, view(t, old), view(t, new), CompareOptions{SharedInodes: true})
	if want := []string{"A aa = a", "D b", "A moved"}; !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
}

func TestCopyKeepsLinksHolesAndAttributes(t *testing.T) {
	for _, how := range []How{Data, Links} {
		from, to := t.TempDir(), t.TempDir()
		fill(t, from, map[string]string{"d/f": "data"})
		ok(t, os.Link(from+"/d/f", from+"/g"))
		ok(t, os.Symlink("nowhere", from+"/s"))
		ok(t, os.WriteFile(from+"/hole", []byte("x"), 0o600))
		ok(t, os.Truncate(from+"/hole", 64<<20))
		ok(t, os.Chmod(from+"/d", 0o710))
		quiet(t, from+"/d")
		src, err := layer.OpenHost(from)
		ok(t, err)
		defer src.Close()
		if how == Links { // a clone of the mount has no links to the outside
			src, err = layer.OpenHostShared(from)
			ok(t, err)
		}
		dst, err := layer.OpenHostShared(to)
		ok(t, err)
		defer dst.Close()
		ok(t, Copy(context.Background(), src, dst, how))
		if got := changes(t, view(t, from), view(t, to), CompareOptions{}); len(got) > 0 {
			t.Errorf("how %d: the copy differs: %q", how, got)
		}
		var a, b, hole unix.Stat_t
		ok(t, unix.Stat(to+"/d/f", &a))
		ok(t, unix.Stat(to+"/g", &b))
		ok(t, unix.Stat(to+"/hole", &hole))
		if a.Ino != b.Ino || hole.Blocks*512 > 1<<20 {
			t.Errorf("how %d: inodes %d and %d; the sparse file takes %d", how, a.Ino, b.Ino, hole.Blocks*512)
		}
		bytes, objects, shared, err := Usage(context.Background(), dst)
		if err != nil || bytes == 0 || objects == 0 || (shared > 0) != (how == Links) {
			t.Errorf("how %d: usage %d, %d, %d, %v", how, bytes, objects, shared, err)
		}
	}
}

// A cancelled comparison ends, however large the trees are.
func TestCompareEndsWhenCancelled(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, map[string]string{"a": "1"})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Compare(ctx, nil, view(t, dir), CompareOptions{}, func(Change) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// FuzzApply feeds archives to a layer in memory. Whatever they hold, only the
// layer changes, no handle stays open, and what was taken can be written again.
func FuzzApply(f *testing.F) {
	seed := func(headers ...tar.Header) {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, h := range headers {
			h.Mode = 0o644
			h.Size = 0
			if err := w.WriteHeader(&h); err != nil {
				f.Fatal(err)
			}
		}
		w.Close()
		for _, format := range []byte{byte(Full), byte(Overlay), byte(OverlayUser), byte(Aufs)} {
			f.Add(format, out.Bytes())
		}
	}
	seed(tar.Header{Name: "d/", Typeflag: tar.TypeDir}, tar.Header{Name: "d/.wh.x"}, tar.Header{Name: "d/.wh..wh..opq"}, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "d/x"})
	seed(tar.Header{Name: "s", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, tar.Header{Name: "s/passwd"})
	seed(tar.Header{Name: ".wh.low"}, tar.Header{Name: "low/", Typeflag: tar.TypeDir}, tar.Header{Name: "low/x"})
	f.Fuzz(func(t *testing.T, format byte, archive []byte) {
		repairChecksums(archive)
		fs := memlayer.New(memlayer.Options{})
		root := fs.Root()
		target := Target{Root: root, Format: Format(format % 4)}
		_, err := Apply(context.Background(), target, bytes.NewReader(archive), ApplyOptions{MaxBytes: 1 << 20, MaxEntries: 1000})
		if err == nil {
			v, verr := NewView([]Branch{{"it", root}})
			if verr == nil {
				var out bytes.Buffer
				if werr := WriteAll(context.Background(), &out, v); werr != nil && !strings.Contains(werr.Error(), "archive/tar") {
					t.Errorf("what was applied cannot be written: %v", werr)
				}
				v.Close()
				return
			}
			t.Errorf("what was applied cannot be looked at: %v", verr)
		}
		root.Close()
		if left := fs.Open(); len(left) > 0 {
			t.Errorf("handles left open: %q", left)
		}
	})
}

// repairChecksums makes headers pass for whole, so that what they say is looked at.
func repairChecksums(archive []byte) {
	for ; len(archive) >= 512; archive = archive[512:] {
		h := archive[:512]
		if string(h[257:262]) != "ustar" {
			continue
		}
		copy(h[148:156], "        ")
		sum := 0
		for _, b := range h {
			sum += int(b)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	}
}

func ExampleCompare() {
	old, new := must(os.MkdirTemp("", "")), must(os.MkdirTemp("", ""))
	defer os.RemoveAll(old)
	defer os.RemoveAll(new)
	os.WriteFile(old+"/a", []byte("1"), 0o644)
	os.WriteFile(new+"/b", []byte("2"), 0o644)
	before := must(NewView([]Branch{{old, must(layer.OpenHost(old))}}))
	defer before.Close()
	after := must(NewView([]Branch{{new, must(layer.OpenHost(new))}}))
	defer after.Close()
	Compare(context.Background(), before, after, CompareOptions{}, func(c Change) error {
		fmt.Println(c.Kind, c.Path)
		return nil
	})
	// Output:
	// D a
	// A b
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
