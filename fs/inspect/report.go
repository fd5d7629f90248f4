package inspect

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/laminafs/lamina/fs/inspect/safename"
)

//go:embed report.html
var reportHTML string

// reportPage escapes what it is given by the place in the page that it goes to.
// Names were made printable by safename before.
var reportPage = template.Must(template.New("report").Funcs(template.FuncMap{
	"size": SizeText,
	"name": func(n any) string {
		switch n := n.(type) {
		case safename.JSON:
			return safename.Text(string(n))
		case string:
			return safename.Text(n)
		}
		return ""
	},
	"percent":   func(part, all int64) string { return fmt.Sprintf("%.3f", 100*float64(part)/float64(max(all, 1))) },
	"hue":       func(number int) int { return number * 47 % 360 },
	"percentOf": func(f float64) float64 { return 100 * f },
	"plus":      func(a, b float64) float64 { return a + b },
	"light":     func(depth int) int { return min(62+5*depth, 86) },
	"minus":     func(a, b, c int64) int64 { return a - b - c },
}).Parse(reportHTML))

// SizeText writes a number of bytes for people.
func SizeText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	unit := 0
	for f >= 1024 && unit < 6 {
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTPE"[unit-1])
}

// A Report collects, during the walk of [Stack.Waste], what its page shows
// beyond the sums: the sizes of directories and the largest files. It keeps
// directories down to a depth, not files.
type Report struct {
	stack   *Stack
	sizes   *sizeTree
	largest []shownFile
}

type shownFile struct {
	Path  string
	Size  int64
	Layer int
}

// NewReport returns an empty report of a stack.
func NewReport(s *Stack) *Report { return &Report{stack: s, sizes: &sizeTree{}} }

const (
	mapDepth     = 4  // directories that the map goes down
	largestShown = 50 // files that are listed
)

// sizeTree is a directory and the bytes that users see in it.
type sizeTree struct {
	name     string
	size     int64
	layers   map[int]int64 // by the layer that has them
	children map[string]*sizeTree
}

func (t *sizeTree) add(path []string, layer int, size int64) {
	t.size += size
	if t.layers == nil {
		t.layers = map[int]int64{}
	}
	t.layers[layer] += size
	if len(path) == 0 {
		return
	}
	c := t.children[path[0]]
	if c == nil {
		if t.children == nil {
			t.children = map[string]*sizeTree{}
		}
		c = &sizeTree{name: path[0]}
		t.children[path[0]] = c
	}
	c.add(path[1:], layer, size)
}

// Visit takes in one entry of the walk.
func (r *Report) Visit(e *Entry) {
	d := e.Data()
	if d == nil || d.Size() == 0 || d.Layer >= len(r.stack.Layers) {
		return
	}
	number := r.stack.Number(d.Layer)
	dirs := splitPath(e.Path)
	dirs = dirs[:len(dirs)-1]
	r.sizes.add(dirs[:min(len(dirs), mapDepth)], number, d.Size())
	r.largest = keepLargest(r.largest, shownFile{"/" + e.Path, d.Size(), number}, largestShown, func(a, b shownFile) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), strings.Compare(a.Path, b.Path))
	})
}

// Write writes the page.
func (r *Report) Write(w io.Writer, waste *Waste, version string) error {
	return reportPage.Execute(w, struct {
		Name    string
		Waste   *Waste
		Largest []shownFile
		Map     []rect
		W, H    float64
		Version string
		Made    string
		Errors  int
	}{r.stack.Name, waste, r.largest, r.treemap(), mapW, mapH, version, time.Now().UTC().Format(time.DateTime), waste.Errors})
}

const (
	mapW = 1000.0
	mapH = 460.0
)

// A rect is a directory in the map.
type rect struct {
	X, Y, W, H float64
	Path       string
	Label      string
	Size       int64
	Layer      int // that has the most of it
	Depth      int
}

// treemap lays the directories out, larger ones larger, parents around children.
func (r *Report) treemap() []rect {
	var out []rect
	layout(&out, r.sizes, "", rect{W: mapW, H: mapH}, 0)
	return out
}

func (t *sizeTree) mainLayer() (layer int) {
	for l, n := range t.layers {
		if best := t.layers[layer]; n > best || n == best && l < layer {
			layer = l
		}
	}
	return layer
}

// layout places a directory and what is in it. What is too small to be seen is
// left out; its parent's colour shows there.
func layout(out *[]rect, t *sizeTree, path string, at rect, depth int) {
	if at.W < 3 || at.H < 3 || t.size == 0 {
		return
	}
	at.Path, at.Size, at.Layer, at.Depth = path+"/", t.size, t.mainLayer(), depth
	if letters := int(at.W / 7); letters > 3 && at.H > 14 {
		at.Label = shorten(safename.Text(t.name+"/"), letters)
	}
	*out = append(*out, at)
	kids := make([]*sizeTree, 0, len(t.children))
	for _, c := range t.children {
		kids = append(kids, c)
	}
	slices.SortFunc(kids, func(a, b *sizeTree) int {
		return cmp.Or(cmp.Compare(b.size, a.size), strings.Compare(a.name, b.name))
	})
	inner := rect{X: at.X + 2, Y: at.Y + 15, W: at.W - 4, H: at.H - 17}
	if inner.W < 3 || inner.H < 3 {
		return
	}
	left := t.size
	for len(kids) > 0 && kids[0].size > 0 {
		n, sum := row(kids, inner, left)
		strip, rest := cut(inner, float64(sum)/float64(left))
		place(out, kids[:n], sum, strip, inner.W >= inner.H, path, depth+1)
		kids, inner, left = kids[n:], rest, left-sum
	}
}

// place lays directories side by side in a strip, upright or lying.
func place(out *[]rect, kids []*sizeTree, sum int64, strip rect, upright bool, path string, depth int) {
	for _, k := range kids {
		part := float64(k.size) / float64(sum)
		at := strip
		if upright {
			at.H *= part
			strip.Y += at.H
		} else {
			at.W *= part
			strip.X += at.W
		}
		at.H, at.W = max(at.H-1, 0), max(at.W-1, 0)
		if upright {
			strip.H, sum = strip.H-at.H-1, sum-k.size
		} else {
			strip.W, sum = strip.W-at.W-1, sum-k.size
		}
		layout(out, k, path+"/"+k.name, at, depth)
	}
}

// cut takes a strip off the shorter side's direction and returns what is left.
func cut(r rect, share float64) (strip, rest rect) {
	strip, rest = r, r
	if r.W >= r.H {
		strip.W *= share
		rest.X, rest.W = r.X+strip.W, r.W-strip.W
	} else {
		strip.H *= share
		rest.Y, rest.H = r.Y+strip.H, r.H-strip.H
	}
	return strip, rest
}

// row tells how many of the directories, which are sorted, go into one strip so
// that they are as square as can be (Bruls, Huizing, van Wijk, "Squarified
// Treemaps", 2000).
func row(kids []*sizeTree, in rect, all int64) (n int, sum int64) {
	side := min(in.W, in.H)
	scale := in.W * in.H / float64(all)
	best := math.Inf(1)
	for n < len(kids) && kids[n].size > 0 {
		next := sum + kids[n].size
		thick := float64(next) * scale / side
		worst := 1.0
		for _, k := range []*sizeTree{kids[0], kids[n]} {
			long := float64(k.size) * scale / thick
			worst = max(worst, long/thick, thick/long)
		}
		if n > 0 && worst > best {
			break
		}
		best, sum, n = worst, next, n+1
	}
	return n, sum
}

// shorten cuts text to a number of characters.
func shorten(text string, n int) string {
	r := []rune(text)
	if len(r) <= n {
		return text
	}
	return string(r[:max(n-1, 0)]) + "…"
}
