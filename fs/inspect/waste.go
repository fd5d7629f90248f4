package inspect

import (
	"cmp"
	"context"
	"slices"

	"github.com/laminafs/lamina/fs/inspect/safename"
)

// LayerUsage is what one layer holds, and what became of it. Sizes are bytes of
// data of regular files as users see them (not blocks on disk); a file with
// several names in its layer counts once.
type LayerUsage struct {
	LayerJSON
	Entries   int64 `json:"entries"` // names but whiteouts
	Files     int64 `json:"files"`   // regular ones
	Dirs      int64 `json:"directories"`
	Whiteouts int64 `json:"whiteouts"`
	Opaque    int64 `json:"opaque_directories"`
	Bytes     int64 `json:"bytes"`
	Hidden    int64 `json:"hidden_bytes"`    // of Bytes: seen by nobody
	Duplicate int64 `json:"duplicate_bytes"` // of Bytes: seen, and the same as another file
	HidesLow  int64 `json:"hides_bytes"`     // of lower layers: what this one hides
	HidesN    int64 `json:"hides_files"`     // likewise, files
	Added     int64 `json:"shown_files"`     // files that users see from it
}

// HiddenFile is a file that takes space and is not seen.
type HiddenFile struct {
	Path  safename.JSON `json:"path"`
	Layer int           `json:"layer"`
	Size  int64         `json:"size"`
	By    int           `json:"hidden_by"`
	Why   string        `json:"why"`
	paths string
}

// Duplicate is the content that several files have.
type Duplicate struct {
	Size   int64  `json:"size"` // of one
	Copies []Copy `json:"copies"`
	Wasted int64  `json:"wasted_bytes"`
	More   int    `json:"more_copies,omitempty"`
}

// Copy is one file of a [Duplicate].
type Copy struct {
	Layer int           `json:"layer"`
	Path  safename.JSON `json:"path"`
}

// Waste is what a stack holds and nobody needs.
type Waste struct {
	Layers []LayerUsage `json:"layers"` // the top first
	Bytes  int64        `json:"bytes"`  // of all layers
	Shown  int64        `json:"shown_bytes"`
	Hidden int64        `json:"hidden_bytes"`
	Dup    int64        `json:"duplicate_bytes"`
	Wasted int64        `json:"wasted_bytes"` // Hidden + Dup
	// Efficiency is the part of Bytes that is not wasted, 1 for an empty stack.
	Efficiency float64      `json:"efficiency"`
	Largest    []HiddenFile `json:"largest_hidden"`
	Duplicates []Duplicate  `json:"duplicates"`
	Errors     int          `json:"errors"` // what could not be looked at
}

// WasteOptions say what is counted.
type WasteOptions struct {
	// Largest is how many hidden files and duplicates are listed, 20 if 0.
	Largest int
	// DuplicatesFrom is the smallest size of files whose contents are compared;
	// negative: none are.
	DuplicatesFrom int64
	// TempDir takes the list of files to be compared.
	TempDir string
	// Progress is called now and then with the number of entries looked at, then
	// with that of bytes compared and their total.
	Progress func(entries int64, hashed, total int64)
	// Visit, if set, sees each entry of the walk.
	Visit func(e *Entry)
}

// Waste counts what the layers hold. It remembers, per file with several names
// and per candidate for a duplicate, some tens of bytes; the names of the
// latter are kept in a temporary file.
func (s *Stack) Waste(ctx context.Context, o WasteOptions, failed func(error)) (*Waste, error) {
	if o.Largest == 0 {
		o.Largest = 20
	}
	c := &counting{s: s, o: &o, w: &Waste{}, links: map[linkKey]*linkState{}, crossed: map[layerPath]int64{}}
	for i := range s.Layers {
		c.w.Layers = append(c.w.Layers, LayerUsage{LayerJSON: s.Describe(i)})
	}
	if o.DuplicatesFrom >= 0 {
		var err error
		if c.candidates, err = newCandidates(o.TempDir); err != nil {
			return nil, err
		}
		defer c.candidates.close()
	}
	tell := func(err error) {
		c.w.Errors++
		if failed != nil {
			failed(err)
		}
	}
	err := s.Walk(ctx, "", tell, func(e *Entry) error {
		c.count(e)
		if o.Visit != nil {
			o.Visit(e)
		}
		if c.entries++; c.entries%1024 == 0 && o.Progress != nil {
			o.Progress(c.entries, 0, 0)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.settleLinks()
	if err := c.settleRedirects(); err != nil {
		return nil, err
	}
	if c.candidates != nil {
		if err := c.findDuplicates(ctx, tell); err != nil {
			return nil, err
		}
	}
	return c.finish(), nil
}

type linkKey struct {
	layer int
	id    fileID
}

// linkState is a file with several names.
type linkState struct {
	size   int64
	shown  bool
	hidden HiddenFile // by which it counts if no name of it is seen
	by     int
}

// layerPath is a place in one layer.
type layerPath struct {
	layer int
	path  string
}

type counting struct {
	s          *Stack
	o          *WasteOptions
	w          *Waste
	entries    int64
	links      map[linkKey]*linkState
	candidates *candidates
	// crossed holds, for each place that was reached over a redirect, the bytes
	// that were counted there. Its own place was visited too.
	crossed map[layerPath]int64
}

func (c *counting) count(e *Entry) {
	for i := range e.Sightings {
		g := &e.Sightings[i]
		if g.Layer >= len(c.w.Layers) {
			continue // data-only layers are not part of the tree
		}
		u := &c.w.Layers[g.Layer]
		if g.IsFile() {
			c.file(e, g, u)
		}
		if g.Path() == e.Path { // where a redirect led to it, it has its own place too
			u.name(g)
		}
	}
}

// name counts one name of the layer.
func (u *LayerUsage) name(g *Sighting) {
	switch {
	case g.Whiteout != NoWhiteout:
		u.Whiteouts++
		return
	case g.IsDir():
		u.Dirs++
		if g.Marks.Opaque {
			u.Opaque++
		}
	case g.IsFile():
		u.Files++
	}
	u.Entries++
}

func (c *counting) file(e *Entry, g *Sighting, u *LayerUsage) {
	shown := g.State != Hidden
	if shown && g.State == Provides {
		u.Added++
	}
	size := g.Size()
	if path := g.Path(); path != e.Path && size > 0 {
		c.cross(g, e.Path, path, size)
	}
	if g.Stat.Nlink > 1 {
		c.link(e, g, size, shown)
		return
	}
	u.Bytes += size
	if shown {
		c.shown(g, size)
	} else {
		c.hidden(HiddenFile{paths: g.Path(), Layer: g.Layer, Size: size, By: g.By, Why: g.Why.String()})
	}
}

// link notes one name of a file that has several.
func (c *counting) link(e *Entry, g *Sighting, size int64, shown bool) {
	key := linkKey{g.Layer, fileID{g.Stat.Dev, g.Stat.Ino}}
	l := c.links[key]
	if l == nil {
		l = &linkState{size: size, hidden: HiddenFile{paths: g.Path(), Layer: g.Layer, Size: size, By: g.By, Why: g.Why.String()}}
		c.links[key] = l
		c.w.Layers[g.Layer].Bytes += size
	}
	if shown && !l.shown {
		l.shown = true
		c.shown(g, size)
	}
}

func (c *counting) settleLinks() {
	for _, l := range c.links {
		if !l.shown {
			c.hidden(l.hidden)
		}
	}
	c.links = nil
}

func (c *counting) shown(g *Sighting, size int64) {
	if c.candidates != nil && size >= max(c.o.DuplicatesFrom, 1) {
		c.candidates.add(g.Layer, g.Path(), size)
	}
}

func (c *counting) hidden(f HiddenFile) {
	u := &c.w.Layers[f.Layer]
	u.Hidden += f.Size
	if f.By >= 0 && f.By < len(c.w.Layers) {
		c.w.Layers[f.By].HidesLow += f.Size
		c.w.Layers[f.By].HidesN++
	}
	if f.Size > 0 {
		c.w.Largest = keepLargest(c.w.Largest, f, c.o.Largest, func(a, b HiddenFile) int {
			return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.paths, b.paths))
		})
	}
}

// keepLargest inserts into a short sorted list.
func keepLargest[T any](list []T, v T, n int, order func(a, b T) int) []T {
	if len(list) == n && order(v, list[n-1]) >= 0 {
		return list
	}
	i, _ := slices.BinarySearchFunc(list, v, order)
	list = slices.Insert(list, i, v)
	return list[:min(len(list), n)]
}

// cross notes a file that was reached over a redirect: its layer has it at
// another path, where the walk comes by too.
func (c *counting) cross(g *Sighting, at, path string, size int64) {
	// The place that the redirect led to is what remains without the common end.
	for at != "" && path != "" {
		i, j := lastSlash(at), lastSlash(path)
		if at[i+1:] != path[j+1:] {
			break
		}
		at, path = at[:max(i, 0)], path[:max(j, 0)]
	}
	if path == "" {
		path = g.Path()
	}
	if g.Stat.Nlink == 1 {
		c.crossed[layerPath{g.Layer, path}] += size
	}
}

func lastSlash(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '/' {
			return i
		}
	}
	return -1
}

// settleRedirects takes off what was counted twice: at the place that a
// redirect led to, and at the path of its layer, where in most cases it was
// hidden by the whiteout that the rename left.
func (c *counting) settleRedirects() error {
	for at, size := range c.crossed {
		p, err := c.s.Lookup(at.path)
		if err != nil {
			return err
		}
		hiddenThere := false
		by := -1
		for i := range p.Sightings {
			if g := &p.Sightings[i]; g.Layer == at.layer && g.Path() == at.path {
				hiddenThere, by = g.State == Hidden, g.By
			}
		}
		p.Close()
		u := &c.w.Layers[at.layer]
		u.Bytes -= size
		if hiddenThere {
			u.Hidden -= size
			if by >= 0 {
				c.w.Layers[by].HidesLow -= size
			}
		}
		c.w.Largest = slices.DeleteFunc(c.w.Largest, func(f HiddenFile) bool {
			return hiddenThere && f.Layer == at.layer && (f.paths == at.path || len(f.paths) > len(at.path) && f.paths[:len(at.path)+1] == at.path+"/")
		})
	}
	return nil
}

func (c *counting) finish() *Waste {
	w := c.w
	for i := range w.Layers {
		u := &w.Layers[i]
		w.Bytes += u.Bytes
		w.Hidden += u.Hidden
		w.Dup += u.Duplicate
	}
	for i := range w.Largest {
		f := &w.Largest[i]
		f.Path = safename.JSON("/" + f.paths)
		f.Layer, f.By = c.s.Number(f.Layer), c.s.Number(f.By)
	}
	w.Shown = w.Bytes - w.Hidden
	w.Wasted = w.Hidden + w.Dup
	w.Efficiency = 1
	if w.Bytes > 0 {
		w.Efficiency = float64(w.Bytes-w.Wasted) / float64(w.Bytes)
	}
	return w
}
