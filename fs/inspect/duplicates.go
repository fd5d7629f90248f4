package inspect

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"sync"

	"github.com/laminafs/lamina/fs/inspect/safename"
	"github.com/laminafs/lamina/fs/layer"
)

// candidates are files that may be duplicates. Their paths lie in a temporary
// file, so that a million of them take 24 MB of memory.
type candidates struct {
	list  []candidate
	file  *os.File
	paths *bufio.Writer
	off   int64
	err   error
}

type candidate struct {
	size  int64
	path  int64 // offset in the file
	layer int32
	n     int32 // length of the path
}

func newCandidates(dir string) (*candidates, error) {
	f, err := os.CreateTemp(dir, "lamina-inspect-*")
	if err != nil {
		return nil, fmt.Errorf("a place for the names of files to be compared: %w; TMPDIR names another", err)
	}
	os.Remove(f.Name()) // the descriptor is enough
	return &candidates{file: f, paths: bufio.NewWriterSize(f, 1<<16)}, nil
}

func (c *candidates) add(layer int, path string, size int64) {
	n, err := c.paths.WriteString(path)
	if err != nil && c.err == nil {
		c.err = err
	}
	c.list = append(c.list, candidate{size: size, path: c.off, layer: int32(layer), n: int32(n)})
	c.off += int64(n)
}

func (c *candidates) close() { c.file.Close() }

func (c *candidates) pathOf(x candidate) (string, error) {
	b := make([]byte, x.n)
	_, err := c.file.ReadAt(b, x.path)
	return string(b), err
}

// hashed is a candidate whose content was read.
type hashed struct {
	candidate
	name string
	sum  [sha256.Size]byte
}

// findDuplicates compares the contents of files of one size.
func (c *counting) findDuplicates(ctx context.Context, failed func(error)) error {
	k := c.candidates
	if err := cmp.Or(k.err, k.paths.Flush()); err != nil {
		return fmt.Errorf("the names of files to be compared: %w", err)
	}
	slices.SortFunc(k.list, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.size, a.size), cmp.Compare(a.layer, b.layer), cmp.Compare(a.path, b.path))
	})
	k.list = slices.Clip(sameSizes(k.list))
	var total, done int64
	for _, x := range k.list {
		total += x.size
	}
	err := c.hashGroups(ctx, k.list, func(g *sizeGroup) {
		for _, err := range g.errs {
			failed(err)
		}
		c.takeGroup(g.files)
		done += g.list[0].size * int64(len(g.list))
		if c.o.Progress != nil {
			c.o.Progress(c.entries, done, total)
		}
	})
	if err != nil {
		return err
	}
	for i := range c.w.Duplicates {
		for j := range c.w.Duplicates[i].Copies {
			f := &c.w.Duplicates[i].Copies[j]
			f.Layer = c.s.Number(f.Layer)
		}
	}
	return nil
}

// sizeGroup is the candidates of one size, then the files among them.
type sizeGroup struct {
	list  []candidate
	files []hashed
	errs  []error
	done  chan struct{}
}

// hashGroups reads the files of each size, on all processors, and calls take for
// the sizes in their order.
func (c *counting) hashGroups(ctx context.Context, list []candidate, take func(*sizeGroup)) error {
	ctx, stop := context.WithCancel(ctx)
	groups := make(chan *sizeGroup, 2*runtime.GOMAXPROCS(0)) // to be taken
	work := make(chan *sizeGroup)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer stop()
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for g := range work {
				c.hashGroup(ctx, g)
			}
		})
	}
	workers.Go(func() {
		defer close(groups)
		defer close(work)
		for len(list) > 0 {
			n := 1
			for n < len(list) && list[n].size == list[0].size {
				n++
			}
			g := &sizeGroup{list: list[:n], done: make(chan struct{})}
			list = list[n:]
			for _, to := range []chan *sizeGroup{groups, work} {
				select {
				case to <- g:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	for g := range groups {
		select {
		case <-g.done:
			take(g)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

func (c *counting) hashGroup(ctx context.Context, g *sizeGroup) {
	defer close(g.done)
	seen := map[fileID]bool{}
	for _, x := range g.list {
		if ctx.Err() != nil {
			return
		}
		h, fresh, err := c.hash(x, seen)
		if err != nil {
			g.errs = append(g.errs, err)
		} else if fresh {
			g.files = append(g.files, h)
		}
	}
}

// sameSizes keeps what has the size of a neighbour.
func sameSizes(list []candidate) []candidate {
	out := list[:0]
	for i := 0; i < len(list); {
		n := i + 1
		for n < len(list) && list[n].size == list[i].size {
			n++
		}
		if n-i > 1 {
			out = append(out, list[i:n]...)
		}
		i = n
	}
	return out
}

// hash reads a file. An inode that was read already, which happens when layers
// share files by hard links or a redirect leads to it twice, is not fresh.
func (c *counting) hash(x candidate, seen map[fileID]bool) (h hashed, fresh bool, err error) {
	h = hashed{candidate: x}
	if h.name, err = c.candidates.pathOf(x); err != nil {
		return h, false, err
	}
	fail := func(err error) (hashed, bool, error) {
		return h, false, fmt.Errorf("layer %s: /%s: %w", c.s.layer(int(x.layer)).Name, h.name, err)
	}
	f, err := c.s.openIn(int(x.layer), h.name)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	id := fileID{st.Dev, st.Ino}
	if seen[id] {
		return h, false, nil
	}
	seen[id] = true
	sum := sha256.New()
	buf := make([]byte, min(x.size, 256<<10))
	for off := int64(0); off < x.size; {
		n, err := f.ReadAt(buf, off)
		if err != nil {
			return fail(err)
		}
		if n == 0 {
			break
		}
		sum.Write(buf[:n])
		off += int64(n)
	}
	sum.Sum(h.sum[:0])
	return h, true, nil
}

// openIn opens a file of one layer by its path there.
func (s *Stack) openIn(i int, name string) (layer.File, error) {
	d, err := s.root(i)
	if err != nil {
		return nil, err
	}
	root := d
	for _, c := range splitPath(path.Dir(name)) {
		sub, err := d.OpenDir(c)
		if d != root {
			d.Close()
		}
		if err != nil {
			return nil, err
		}
		d = sub
	}
	if d != root {
		defer d.Close()
	}
	return d.OpenFile(path.Base(name), os.O_RDONLY, 0)
}

const listedCopies = 20

// takeGroup enters the duplicates among files of one size.
func (c *counting) takeGroup(group []hashed) {
	slices.SortStableFunc(group, func(a, b hashed) int { return slices.Compare(a.sum[:], b.sum[:]) })
	for len(group) > 0 {
		n := 1
		for n < len(group) && group[n].sum == group[0].sum {
			n++
		}
		if n > 1 {
			d := Duplicate{Size: group[0].size, Wasted: group[0].size * int64(n-1), More: max(0, n-listedCopies)}
			same := group[:n]
			// The lowest one is what the others need not be.
			slices.SortStableFunc(same, func(a, b hashed) int { return cmp.Compare(b.layer, a.layer) })
			for i, h := range same {
				if i > 0 {
					c.w.Layers[h.layer].Duplicate += h.size
				}
				if i < listedCopies {
					d.Copies = append(d.Copies, Copy{int(h.layer), safename.JSON("/" + h.name)})
				}
			}
			c.w.Duplicates = keepLargest(c.w.Duplicates, d, c.o.Largest, func(a, b Duplicate) int {
				return cmp.Or(cmp.Compare(b.Wasted, a.Wasted), cmp.Compare(a.Copies[0].Path, b.Copies[0].Path))
			})
		}
		group = group[n:]
	}
}
