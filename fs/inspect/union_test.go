package inspect_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/fs/union"
)

// noRedirects makes layers in which each object has one place.
var noRedirects bool

var names = []string{"a", "b", "c", "d", "e\n"}

// randomLayer builds a layer with every mark there is, some of them malformed.
func randomLayer(r *rand.Rand, data string) *memlayer.FS {
	fs := memlayer.New(memlayer.Options{})
	types := map[string]byte{"": 'd'}
	pick := func() string { return names[r.IntN(len(names))] }
	for range 3 + r.IntN(30) {
		dir := ""
		for range 1 + r.IntN(3) {
			if types[dir] != 'd' {
				break
			}
			path := strings.TrimPrefix(dir+"/"+pick(), "/")
			if types[path] == 0 {
				types[path] = randomObject(r, fs, path, data, pick)
			}
			dir = path
		}
	}
	if r.IntN(4) == 0 {
		setXattr(fs.Root(), "", "user.overlay.opaque", "x")
	}
	return fs
}

func randomObject(r *rand.Rand, fs *memlayer.FS, path, data string, pick func() string) byte {
	dir, name := fs.Root(), path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = fs.Dir(path[:i]), path[i+1:]
	}
	file := func(name, content string) {
		f, err := dir.OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
		if err == unix.EEXIST {
			return
		}
		if err != nil {
			panic(err)
		}
		f.WriteAt([]byte(content), 0)
		f.Close()
	}
	redirect := func() {
		if noRedirects {
			return
		}
		switch r.IntN(5) {
		case 0:
			setXattr(dir, name, "trusted.overlay.redirect", pick())
		case 1, 2:
			setXattr(dir, name, "user.overlay.redirect", "/"+pick()+"/"+pick())
		case 3:
			setXattr(dir, name, "trusted.overlay.redirect", "/"+pick())
		case 4:
			if r.IntN(6) == 0 {
				setXattr(dir, name, "trusted.overlay.redirect", "a//b")
			}
		}
	}
	switch k := r.IntN(20); {
	case k < 9:
		if err := dir.Mkdir(name, 0o755); err != nil {
			panic(err)
		}
		switch r.IntN(8) {
		case 0:
			setXattr(dir, name, "trusted.overlay.opaque", "y")
		case 1:
			setXattr(dir, name, "user.overlay.opaque", "x")
		case 2:
			sub, err := dir.OpenDir(name)
			if err != nil {
				panic(err)
			}
			f, err := sub.OpenFile(".wh..wh..opq", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
			if err != nil {
				panic(err)
			}
			f.Close()
			sub.Close()
		case 3, 4, 5:
			redirect()
		}
		return 'd'
	case k < 14:
		file(name, data+path)
		if r.IntN(3) == 0 {
			setXattr(dir, name, "trusted.overlay.metacopy", "")
			redirect()
		}
		return 'f'
	case k < 15:
		dir.Symlink("../"+pick(), name)
		return 'l'
	case k < 17:
		dir.Mknod(name, unix.S_IFCHR, 0)
		return 'w'
	case k < 18:
		file(name, "")
		setXattr(dir, name, "user.overlay.whiteout", "y")
		return 'w'
	default:
		file(".wh."+name, "")
		return 0 // the name itself may come too
	}
}

func setXattr(dir layer.Dir, name, attr, value string) {
	var o layer.Object = dir
	if name != "" {
		var err error
		if o, err = dir.Lookup(name); err != nil {
			panic(err)
		}
		defer o.Close()
	}
	if err := o.Setxattr(attr, []byte(value), 0); err != nil {
		panic(err)
	}
}

// randomStack returns a stack of up to five layers, some data-only.
func randomStack(seed uint64) *inspect.Stack {
	r := rand.New(rand.NewPCG(seed, 1))
	s := &inspect.Stack{Name: "stack", NoFollow: r.IntN(8) == 0}
	for i := range 1 + r.IntN(5) {
		fs := randomLayer(r, fmt.Sprint(i, " "))
		s.Layers = append(s.Layers, inspect.Layer{Name: fmt.Sprint(i), Open: func() (layer.Dir, error) { return fs.Root(), nil }})
	}
	for i := range r.IntN(3) {
		fs := randomLayer(r, fmt.Sprint("data", i, " "))
		s.DataOnly = append(s.DataOnly, inspect.Layer{Name: fmt.Sprint("data", i), Open: func() (layer.Dir, error) { return fs.Root(), nil }})
	}
	return s
}

// seeds returns how many random stacks a test takes.
func seeds(n uint64) uint64 {
	if testing.Short() {
		return n / 10
	}
	return n
}

// shown is a tree as text, one line for each name that users see.
type shown []string

func fromUnion(t *testing.T, s *inspect.Stack) (lines shown) {
	fs, err := s.Union()
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	var walk func(n *union.Node, path string)
	walk = func(n *union.Node, path string) {
		if strings.Count(path, "/") > 8 {
			return
		}
		var list []union.Listed
		if err := fs.ReadDir(n, 0, func(e union.Listed) bool { list = append(list, e); return true }); err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			child := path + "/" + e.Name
			c, a, err := fs.Lookup(n, e.Name)
			if err != nil {
				lines = append(lines, fmt.Sprintf("%q error", child))
				continue
			}
			line := fmt.Sprintf("%q %o %d %d", child, a.Mode, a.UID, a.Size)
			if c.Type() == unix.S_IFREG {
				buf := make([]byte, a.Size)
				n, err := fs.Read(c, buf, 0)
				line += fmt.Sprintf(" %q %v", buf[:n], err)
			}
			lines = append(lines, line)
			if c.IsDir() {
				walk(c, child)
			}
			fs.Forget(c, 1)
		}
	}
	walk(fs.Root(), "")
	slices.Sort(lines)
	return lines
}

func fromInspect(t *testing.T, s *inspect.Stack) (lines shown) {
	err := s.Walk(context.Background(), "", nil, func(e *inspect.Entry) error {
		if strings.Count(e.Path, "/") > 8 {
			return inspect.SkipDir
		}
		top := e.Top()
		switch {
		case e.Path == "":
			return nil
		case e.Err != nil:
			if top != nil || len(e.Sightings) == 0 {
				lines = append(lines, fmt.Sprintf("%q error", "/"+e.Path))
			}
			return inspect.SkipDir
		case top == nil:
			return nil
		}
		line := fmt.Sprintf("%q %o %d %d", "/"+e.Path, top.Stat.Mode, top.Stat.UID, top.Stat.Size)
		if top.IsFile() {
			f, err := e.Data().OpenFile()
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, top.Stat.Size)
			n, err := f.ReadAt(buf, 0)
			f.Close()
			line += fmt.Sprintf(" %q %v", buf[:n], err)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

// What users would lose: inspect and the mount telling different stories.
func TestShowsWhatTheUnionShows(t *testing.T) {
	stacks := seeds(4000)
	seen := uint64(0)
	for seed := range stacks {
		s := randomStack(seed)
		want, got := fromUnion(t, s), fromInspect(t, s)
		seen += uint64(len(want))
		if !slices.Equal(want, got) {
			t.Fatalf("seed %d\nunion:   %s\ninspect: %s", seed, strings.Join(want, "\n         "), strings.Join(got, "\n         "))
		}
		s.Close()
	}
	if seen < stacks {
		t.Errorf("the stacks show %d names only", seen)
	}
}
