package inspect

import (
	"errors"
	"slices"
	"strings"

	"github.com/laminafs/lamina/fs/layer"
)

// common is what two stacks share: their lowest layers.
//
// What users see of a name that only common layers have in a directory is the same
// in both stacks, with all that is below it, provided that these layers have the same
// parts of the directory and that users see them: neither an opaque mark nor a
// redirect has come between then, and where redirects of theirs lead further down is
// common too. So a comparison of a stack with one that has a layer more costs what
// that layer has, not what is there.
type common struct{ layers int }

// commonOf returns how many layers, from the bottom, two stacks have in common.
func commonOf(a, b *Stack) (c common, err error) {
	if a.NoFollow != b.NoFollow || len(a.DataOnly) != len(b.DataOnly) {
		return c, nil
	}
	for i := range a.DataOnly {
		if same, err := sameLayer(a, b, len(a.Layers)+i, len(b.Layers)+i); err != nil || !same {
			return c, err
		}
	}
	for c.layers < min(len(a.Layers), len(b.Layers)) {
		same, err := sameLayer(a, b, len(a.Layers)-1-c.layers, len(b.Layers)-1-c.layers)
		if err != nil || !same {
			return c, err
		}
		c.layers++
	}
	return c, nil
}

// sameLayer tells whether two stacks have one and the same layer.
func sameLayer(a, b *Stack, i, j int) (bool, error) {
	if a.layer(i).View != b.layer(j).View {
		return false, nil
	}
	stat := func(s *Stack, i int) (st layer.Stat, err error) {
		root, err := s.root(i)
		if err == nil {
			st, err = root.Stat()
		}
		return st, err
	}
	x, err1 := stat(a, i)
	y, err2 := stat(b, j)
	return x.Dev == y.Dev && x.Ino == y.Ino, errors.Join(err1, err2)
}

// fewNames is how many names are looked up rather than the directory listed.
const fewNames = 16

// list puts the names that may differ in a directory of both stacks before a
// reading. It does nothing and returns false if all may.
func (c common) list(g *reading, failed func(error)) bool {
	if c.layers == 0 || !slices.Equal(c.shared(g.old), c.shared(g.new)) {
		return false
	}
	var names []item
	for _, d := range []*Dir{g.old, g.new} {
		own := func(p *part) bool { return p.live && !c.has(d, p) }
		d.readParts(own, failed)
		for _, it := range d.items {
			names = append(names, item{it.name, anyPart})
		}
		d.items = d.items[:0]
	}
	slices.SortFunc(names, func(a, b item) int { return strings.Compare(a.name, b.name) })
	names = slices.CompactFunc(names, func(a, b item) bool { return a.name == b.name })
	if len(names) <= fewNames {
		g.left.old, g.left.new = names, names
		return true
	}
	// Who has which name is cheaper told by the listings.
	g.old.Read(nil) // what fails was told, or is a common part and no difference
	g.new.Read(nil)
	g.left.old, g.left.new = among(g.old.items, names), among(g.new.items, names)
	return true
}

// has tells whether a part is of a common layer.
func (c common) has(d *Dir, p *part) bool { return p.layer >= len(d.stack.Layers)-c.layers }

// shared returns the parts of common layers that users see, by the layer's number
// from the bottom.
func (c common) shared(d *Dir) (out []layerPath) {
	for i := range d.parts {
		if p := &d.parts[i]; p.live && c.has(d, p) {
			out = append(out, layerPath{d.stack.Number(p.layer), p.path})
		}
	}
	return out
}

// among keeps the items of some names; both are sorted.
func among(items, names []item) []item {
	kept := items[:0]
	for _, it := range items {
		for len(names) > 0 && names[0].name < it.name {
			names = names[1:]
		}
		if len(names) > 0 && names[0].name == it.name {
			kept = append(kept, it)
		}
	}
	return kept
}
