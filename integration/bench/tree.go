package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// layerCount is the number of lower layers of every stack but the one that
// memory is measured with.
const layerCount = 8

// tree is what the lower layers hold. It depends on the scale alone: two runs
// compare the same trees. There are no whiteouts and opaque directories in it,
// because unionfs-fuse knows others than overlayfs and would show another tree.
//
//	tree/tNN/sNN/…   many small files, in directories that lie in one layer, or in all
//	src/             a C program
//	big              one large file, in the lowest layer
type tree struct {
	layers []string // the topmost first
	files  []string // regular files below tree/, relative to the mount, sorted
	dirs   []string // directories that hold them
	links  int      // symbolic links
	bytes  int64    // of all files
	tops   []string // directories directly below tree/
}

// generator makes contents that look like text and differ from file to file.
type generator struct {
	text []byte
}

func newGenerator() *generator {
	words := strings.Fields("layer union upper lower merged opaque whiteout copy rename the of and a inode with page cache mount server reads writes name file directory tree block extent sync open close link mode owner time")
	rng := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for b.Len() < 1<<20 {
		for range 8 + rng.IntN(6) {
			b.WriteString(words[rng.IntN(len(words))])
			b.WriteByte(' ')
		}
		b.WriteByte('\n')
	}
	return &generator{text: []byte(b.String())}
}

// content is that of file number i: 200 bytes to 48 KiB, small ones more often,
// as in the root filesystem of a distribution.
func (g *generator) content(i int) []byte {
	rng := rand.New(rand.NewPCG(uint64(i), 3))
	size := 200 << rng.IntN(8)
	size += rng.IntN(size)
	start := rng.IntN(len(g.text) - size)
	return fmt.Appendf(nil, "file %d\n%s", i, g.text[start:start+size])
}

// makeTree writes the layers below dir.
func makeTree(dir string, sc scale) (*tree, error) {
	t := &tree{}
	for i := range layerCount {
		t.layers = append(t.layers, filepath.Join(dir, fmt.Sprintf("l%d", i)))
	}
	g := newGenerator()
	bottom := t.layers[layerCount-1]
	for _, step := range []func() error{
		func() error { return t.makeFiles(g, sc) },
		func() error { return t.makeSources(sc.sources) },
		func() error { return writeBig(filepath.Join(bottom, "big"), g, sc.bigMB) },
	} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("make layers: %w", err)
		}
	}
	return t, nil
}

// makeFiles spreads the files. Every third directory is merged: its files lie in
// all layers. A tenth of the files hide another version in the layer below.
func (t *tree) makeFiles(g *generator, sc scale) error {
	tops := map[string]bool{}
	for d := range sc.dirs {
		dir := fmt.Sprintf("tree/t%02d/s%03d", d%20, d)
		t.dirs = append(t.dirs, dir)
		tops[filepath.Dir(dir)] = true
	}
	for i := range sc.files {
		d := i % sc.dirs
		layer := d % layerCount
		if d%3 == 0 {
			layer = (i / sc.dirs) % layerCount
		}
		name := fmt.Sprintf("%s/file-%05d.txt", t.dirs[d], i)
		data := g.content(i)
		if err := writeFile(filepath.Join(t.layers[layer], name), data); err != nil {
			return err
		}
		t.files = append(t.files, name)
		t.bytes += int64(len(data))
		if i%10 == 0 && layer+1 < layerCount {
			if err := writeFile(filepath.Join(t.layers[layer+1], name), []byte("hidden version\n")); err != nil {
				return err
			}
		}
		if i%50 == 0 {
			t.links++
			link := filepath.Join(t.layers[layer], t.dirs[d], fmt.Sprintf("link-%05d", i))
			if err := os.Symlink(filepath.Base(name), link); err != nil {
				return err
			}
		}
	}
	for top := range tops {
		t.tops = append(t.tops, top)
	}
	slices.Sort(t.tops)
	slices.Sort(t.files)
	return nil
}

// entries is how many names a walk of tree/ finds below it.
func (t *tree) entries() int {
	return len(t.tops) + len(t.dirs) + len(t.files) + t.links
}

// makeSources writes a C program of n files and a main, its header two layers away.
func (t *tree) makeSources(n int) error {
	var header, calls strings.Builder
	for i := range n {
		fmt.Fprintf(&header, "int part%d(int x);\n", i)
		fmt.Fprintf(&calls, "\tx += part%d(x);\n", i)
		src := fmt.Sprintf("#include \"parts.h\"\nint part%d(int x)\n{\n\tint sum = 0;\n\tfor (int i = 0; i < x; i++)\n\t\tsum += i * %d;\n\treturn sum;\n}\n", i, i+1)
		if err := writeFile(filepath.Join(t.layers[3], fmt.Sprintf("src/part%d.c", i)), []byte(src)); err != nil {
			return err
		}
	}
	main := "#include \"parts.h\"\nint main(void)\n{\n\tint x = 1;\n" + calls.String() + "\treturn x == 0;\n}\n"
	if err := writeFile(filepath.Join(t.layers[3], "src/main.c"), []byte(main)); err != nil {
		return err
	}
	return writeFile(filepath.Join(t.layers[5], "src/parts.h"), []byte(header.String()))
}

func writeFile(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o644)
}

// writeBig writes data, not holes, and no two equal blocks of 1 MiB.
func writeBig(name string, g *generator, megabytes int) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	for i := range megabytes {
		if _, err := fmt.Fprintf(w, "block %012d\n", i); err != nil {
			return err
		}
		if _, err := w.Write(g.text[:1<<20-19]); err != nil {
			return err
		}
	}
	return w.Flush()
}

// makeManyEntries writes two lower layers with empty files, for the memory that a
// server needs for each name it has shown.
func makeManyEntries(dir string, sc scale) ([]string, error) {
	layers := []string{filepath.Join(dir, "m0"), filepath.Join(dir, "m1")}
	for d := range sc.manyDirs {
		sub := filepath.Join(layers[d%2], fmt.Sprintf("tree/d%04d", d))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return nil, err
		}
		for i := range sc.manyPerDir {
			f, err := os.OpenFile(fmt.Sprintf("%s/entry-%06d", sub, i), os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				return nil, err
			}
			if err := f.Close(); err != nil {
				return nil, err
			}
		}
	}
	return layers, nil
}

// removeTree removes dir also where a workload has taken permissions away.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil {
		return nil
	}
	// WalkDir reads a directory after it has been visited, hence after its chmod.
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return err
	}); err != nil {
		return fmt.Errorf("clean up %s: %w", dir, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}
