package explore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/inspect/safename"
)

// A status is what the layer on top of the shown tree did to a node.
type status byte

const (
	same    status = ' '
	added   status = 'A'
	changed status = 'M'
	removed status = 'D'
)

// node is one name of the tree.
type node struct {
	name     string
	parent   *node
	children []*node
	mode     uint32
	size     int64 // of a file, or of all that is seen in a directory
	layer    int   // number of the layer that has it
	status   status
	touched  bool // something in the directory has a status
	open     bool
	match    bool // itself or something in it passes the filter
}

func (n *node) isDir() bool { return n.mode&unix.S_IFMT == unix.S_IFDIR }

func (n *node) path() string {
	if n.parent == nil {
		return ""
	}
	return strings.TrimPrefix(n.parent.path()+"/"+n.name, "/")
}

// ErrStopped tells that the user did not want to wait for a layer.
var ErrStopped = errors.New("reading was stopped")

// load walks the stack up to layer number and returns its tree. tell is called
// now and then with the number of entries; it returns true to end with ErrStopped.
func load(ctx context.Context, s *inspect.Stack, number int, tell func(int) (stop bool)) (root *node, failed int, err error) {
	part, err := s.Part(1, number)
	if err != nil {
		return nil, 0, err
	}
	defer part.Close()
	var at []*node // the directories on the way
	count := 0
	err = part.Walk(ctx, "", func(error) { failed++ }, func(e *inspect.Entry) error {
		if count++; count%4096 == 0 && tell(count) {
			return ErrStopped
		}
		st := statusOf(e)
		g := e.Top()
		if g == nil {
			if st != removed {
				return inspect.SkipDir // it was gone before
			}
			g = firstHidden(e)
		}
		n := &node{name: e.Name, mode: g.Stat.Mode, layer: part.Number(g.Layer), status: st}
		if d := e.Data(); d != nil {
			n.size = d.Stat.Size
		} else if st == removed && g.IsFile() {
			n.size = g.Stat.Size
		}
		if e.Path == "" {
			root, at = n, []*node{n}
			return nil
		}
		depth := strings.Count(e.Path, "/") + 1
		at = at[:depth]
		n.parent = at[depth-1]
		n.parent.children = append(n.parent.children, n)
		at = append(at, n)
		for p := n.parent; p != nil; p = p.parent {
			p.touched = p.touched || st != same
			if st != removed && !n.isDir() {
				p.size += n.size
			}
		}
		return nil
	})
	if err != nil {
		return nil, failed, err
	}
	if root == nil {
		return nil, failed, fmt.Errorf("layer %d: its root cannot be read", number)
	}
	root.open = true
	return root, failed, nil
}

// statusOf tells what the top layer, number 0 of the sightings, did.
func statusOf(e *inspect.Entry) status {
	top := e.Top()
	before := false
	for i := range e.Sightings {
		g := &e.Sightings[i]
		switch {
		case g.Layer == 0 || g.Whiteout != inspect.NoWhiteout:
		case g.State == inspect.Merges, g.State == inspect.HoldsData, g.State == inspect.Hidden && g.By == 0:
			before = true
		}
		if g.Layer != 0 && g.State == inspect.Hidden && g.By == 0 {
			before = g.Whiteout == inspect.NoWhiteout
			break // what lies below it was hidden before
		}
	}
	switch {
	case top == nil && before:
		return removed
	case top == nil || top.Layer != 0:
		return same
	case !before:
		return added
	case top.IsDir() && sameAttrs(e):
		return same
	}
	return changed
}

// sameAttrs tells whether a directory that the top layer has is there only for
// what is in it.
func sameAttrs(e *inspect.Entry) bool {
	for i := range e.Sightings {
		if g := &e.Sightings[i]; g.State == inspect.Merges {
			a, b := &e.Top().Stat, &g.Stat
			return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID
		}
	}
	return false
}

func firstHidden(e *inspect.Entry) *inspect.Sighting {
	for i := range e.Sightings {
		if g := &e.Sightings[i]; g.State == inspect.Hidden && g.Whiteout == inspect.NoWhiteout {
			return g
		}
	}
	return &e.Sightings[0]
}

// order sorts a directory and all below it.
func (n *node) order(bySize bool) {
	slices.SortFunc(n.children, func(a, b *node) int {
		if bySize {
			return cmp.Or(cmp.Compare(b.size, a.size), strings.Compare(a.name, b.name))
		}
		return strings.Compare(a.name, b.name)
	})
	for _, c := range n.children {
		c.order(bySize)
	}
}

// filter marks what passes: what has the text in its name or path, and with
// onlyTouched what the layer did something to; the directories on the way too.
func (n *node) filter(text string, onlyTouched bool) bool {
	own := text == "" || strings.Contains(strings.ToLower(safename.Text(n.name)), strings.ToLower(text))
	n.match = own && n.parent != nil && (!onlyTouched || n.status != same) || n.parent == nil
	for _, c := range n.children {
		if c.filter(text, onlyTouched) {
			n.match = true
		}
	}
	return n.match
}

// row is a node as the tree shows it.
type row struct {
	*node
	depth int
}

// rows returns what is to be seen of an open tree; a filter opens directories.
func (n *node) rows(all bool) (out []row) {
	var add func(n *node, depth int)
	add = func(n *node, depth int) {
		for _, c := range n.children {
			if !c.match {
				continue
			}
			out = append(out, row{c, depth})
			if c.open || all {
				add(c, depth+1)
			}
		}
	}
	add(n, 0)
	return out
}
