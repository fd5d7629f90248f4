package union_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/fs/union"
)

// heap returns the bytes that are in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestHundredThousandEntries lists a directory of which every second name is
// deleted, and removes the rest. It must not take more memory than a name, an
// inode number and a place in a table for each.
func TestHundredThousandEntries(t *testing.T) {
	const count = 100_000
	fs := memlayer.New(memlayer.Options{})
	fs.MustBuild("l0/d d\nl1/d d\nup d\nwork d")
	l0, l1 := fs.Dir("l0/d"), fs.Dir("l1/d")
	for k := range count {
		name := fmt.Sprintf("entry-%06d", k)
		if err := l1.Mknod(name, unix.S_IFREG|0o644, 0); err != nil {
			t.Fatal(err)
		}
		if k%2 == 1 {
			if err := l0.Mknod(name, unix.S_IFCHR, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	l0.Close()
	l1.Close()
	s := &scenario{}
	d := disks{fs, fs}
	u := s.mustMount(t, variants[0], d)
	calls, before := fs.Calls(), heap()
	seen := 0
	err := u.walk("d", func(n *union.Node) error {
		for pos, more := uint64(0), true; more; { // as a kernel with small buffers does
			more = false
			got := 0
			err := u.ReadDir(n, pos, func(l union.Listed) bool {
				if got++; got > 100 {
					return false
				}
				seen++
				pos, more = l.Pos, true
				return true
			})
			if err != nil {
				return err
			}
		}
		grown := heap() - before
		if per := grown / count; per > 400 {
			t.Errorf("the listing takes %d bytes for each name", per)
		}
		t.Logf("%d bytes and %d calls for %d names", grown, fs.Calls()-calls, count)
		calls = fs.Calls()
		for k := range 1000 {
			name := fmt.Sprintf("entry-%06d", k*97%count)
			c, _, err := u.Lookup(n, name)
			if err == nil {
				u.Forget(c, 1)
			}
			if deleted := k*97%2 == 1; (errnoOf(err) == unix.ENOENT) != deleted {
				t.Fatalf("%s: %v", name, err)
			}
			if _, _, err := u.Lookup(n, fmt.Sprint("absent-", k)); errnoOf(err) != unix.ENOENT {
				t.Fatalf("absent-%d: %v", k, err)
			}
		}
		if used := fs.Calls() - calls; used > 10_000 {
			t.Errorf("%d calls for 500 names that are there and 1,500 that are not", used)
		}
		for k := 0; k < count; k += 2 {
			if err := u.Unlink(n, fmt.Sprintf("entry-%06d", k)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || seen != count/2 {
		t.Fatalf("%d names are listed, want %d; %v", seen, count/2, err)
	}
	if err := rmdir("d")(u); err != nil {
		t.Error(err)
	}
	u.unmount(t, d)
	u = s.mustMount(t, variants[0], d)
	if got := look(u, ""); got != "dir" {
		t.Errorf("after removing all: %s", got)
	}
	u.unmount(t, d)
}

// TestThousandLevels goes down to the end of a very deep tree, with few
// descriptors, changes what is there and moves parts of it.
func TestThousandLevels(t *testing.T) {
	const depth = 1000
	deep := strings.Repeat("deep/", depth)
	fs := memlayer.New(memlayer.Options{})
	fs.MustBuild("l0/" + deep + "f f \"bottom\"\nl1/" + deep + "g f \"below\"\nup d\nwork d\nl0/top d")
	s := &scenario{opt: func(o *union.Options) { o.MaxHandles = 16 }}
	d := disks{fs, fs}
	u := s.mustMount(t, variants[0], d)
	for path, want := range map[string]string{deep: "dir f g", deep + "f": `file "bottom"`, deep + "g": `file "below"`} {
		if got := look(u, path); got != want {
			t.Errorf("%d levels down: %s, want %s", depth, got, want)
		}
	}
	if err := seq(write(deep+"f", "BOTTOM", 0), create(deep+"new", 0o600, 0), unlink(deep+"g"))(u); err != nil {
		t.Fatalf("changes %d levels down: %v", depth, err)
	}
	half := strings.Repeat("deep/", depth/2)
	// Where the lower parts lie takes a path that is too long to be noted.
	if err := rename(deep[:len(deep)-1], "top/x", 0)(u); errnoOf(err) != unix.EXDEV {
		t.Errorf("moving the lowest directory to the top: %v, want EXDEV", err)
	}
	if err := rename("top", half+"top", 0)(u); err != nil {
		t.Errorf("moving a directory down: %v", err)
	}
	if err := rename("deep", half+"deep/x", 0)(u); errnoOf(err) != unix.EINVAL {
		t.Errorf("moving the tree into itself: %v, want EINVAL", err)
	}
	if err := rename("deep", "e", 0)(u); err != nil {
		t.Errorf("renaming all of it: %v", err)
	}
	u.unmount(t, d)
	u = s.mustMount(t, variants[0], d)
	if got := look(u, "e/"+deep[5:]); got != "dir f new" {
		t.Errorf("after the changes: %s", got)
	}
	if got := look(u, "e/"+deep[5:]+"f"); got != `file "BOTTOM"` {
		t.Errorf("after the changes: %s", got)
	}
	u.unmount(t, d)
}

// xattrBomb is a layer of a filesystem that keeps xattrs as large as Linux lets
// them be, on everything: FUSE filesystems and ext4 with ea_inode do.
type xattrBomb struct{ layer.Dir }

const bombSize = 65536

func (xattrBomb) list(dest []byte) (int, error) {
	names := strings.Repeat("trusted.overlay.x\x00", bombSize/18)
	if len(dest) == 0 {
		return len(names), nil
	}
	if len(dest) < len(names) {
		return 0, unix.ERANGE
	}
	return copy(dest, names), nil
}

func (xattrBomb) value(dest []byte) (int, error) {
	if len(dest) == 0 {
		return bombSize, nil
	}
	if len(dest) < bombSize {
		return 0, unix.ERANGE
	}
	return copy(dest, strings.Repeat("/", bombSize)), nil
}

func (b xattrBomb) ListxattrAt(_ string, dest []byte) (int, error)   { return b.list(dest) }
func (b xattrBomb) Listxattr(dest []byte) (int, error)               { return b.list(dest) }
func (b xattrBomb) GetxattrAt(_, _ string, dest []byte) (int, error) { return b.value(dest) }
func (b xattrBomb) Getxattr(_ string, dest []byte) (int, error)      { return b.value(dest) }
func (b xattrBomb) OpenDir(name string) (layer.Dir, error) {
	d, err := b.Dir.OpenDir(name)
	return xattrBomb{d}, err
}

// TestXattrBombs mounts a layer whose every object has 64 KiB of names and of
// values: each is read and dropped, not kept.
func TestXattrBombs(t *testing.T) {
	fs := memlayer.New(memlayer.Options{})
	var text strings.Builder
	for k := range 500 {
		fmt.Fprintf(&text, "l0/dir%d/f f \"x\"\nl1/dir%d/g f\n", k, k)
	}
	fs.MustBuild(text.String())
	u, err := union.New(union.Config{Lowers: []union.Branch{
		{Name: "bomb", Root: xattrBomb{fs.Dir("l0")}}, {Name: "plain", Root: fs.Dir("l1")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	before := heap()
	tr := &tree{FS: u}
	if err := tr.remember(); err != nil {
		t.Error(err)
	}
	if got := look(tr, "dir7"); got != "dir f g" {
		t.Errorf("a directory with 64 KiB of xattrs: %s", got)
	}
	if grown := heap() - before; grown > 5<<20 {
		t.Errorf("1,500 objects with 64 KiB of xattrs each take %d MiB", grown>>20)
	}
	tr.unmount(t, disks{fs, fs})
}

// TestManyMarksDoNotAddUp follows redirects over many layers, each of which
// makes the path to search in the layers below longer.
func TestManyMarksDoNotAddUp(t *testing.T) {
	const layers = 50
	fs := memlayer.New(memlayer.Options{})
	deep := strings.Repeat("/x", 200)
	var cfg union.Config
	for k := range layers {
		root := fmt.Sprintf("m%d", k)
		fs.MustBuild(fmt.Sprintf("%s%s d\n%s/x d trusted.overlay.redirect=%q\n%s/d d trusted.overlay.redirect=%q", root, deep, root, deep, root, deep))
		cfg.Lowers = append(cfg.Lowers, union.Branch{Name: root, Root: fs.Dir(root)})
	}
	before := heap()
	u, err := union.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tr := &tree{FS: u}
	look(tr, "d")
	look(tr, "x/x")
	if grown := heap() - before; grown > 64<<20 {
		t.Errorf("%d layers with redirects of 200 components take %d MiB", layers, grown>>20)
	}
	tr.unmount(t, disks{fs, fs})
}
