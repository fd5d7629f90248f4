package inspect

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// part is a directory of one layer at a place of the stack.
type part struct {
	dir   layer.Dir
	layer int
	path  string // in the layer
	live  bool   // users see what is in it
	by    int    // who hides it, if it is not live
	why   Reason
	at    string // path of the entry where that happens

	xattrWhiteouts bool
	bottom         bool // of the lowest layer: nothing is below for marks to act on
	noFollow       bool
}

// A Dir is a directory of a stack: what all layers have of it.
type Dir struct {
	Path string

	stack   *Stack
	parts   []part // the top first
	crossed bool   // two parts may be of one layer
	owned   []layer.Dir
	lost    []error // parts that were there and could not be opened
	items   []item
	entry   Entry
	has     []int
	root    bool
}

// item is a name that one part has, or deletes.
type item struct {
	name string
	part int32
}

// anyPart is the part of an item that tells a name and not who has it.
const anyPart = -1

// Root returns the root directory of the stack.
func (s *Stack) Root() (*Dir, error) {
	d := &Dir{stack: s, root: true}
	for i := range s.Layers {
		p, err := d.rootPart(i)
		if err != nil {
			return nil, err
		}
		d.parts = append(d.parts, *p)
	}
	if len(d.parts) == 0 {
		return nil, fmt.Errorf("%s has no layers: %w", s.Name, unix.EINVAL)
	}
	return d, nil
}

// Close gives back what the directory and its entries have open.
func (d *Dir) Close() {
	d.entry.release()
	for _, o := range d.owned {
		o.Close()
	}
	d.owned = nil
	if !d.root {
		for i := range d.parts {
			d.parts[i].dir.Close()
		}
	}
	d.parts = nil
}

// Self returns the entry of the root directory itself, which is no name of
// any other.
func (d *Dir) Self() *Entry {
	e := &Entry{Path: d.Path}
	state := Provides
	for i := range d.parts {
		p := &d.parts[i]
		st, err := p.dir.Stat()
		sg := Sighting{Layer: p.layer, State: state, By: -1, Stat: st, Err: err, in: p}
		if !p.live {
			sg.State, sg.By, sg.Why, sg.At = Hidden, p.by, p.why, p.at
		} else {
			state = Merges
		}
		e.Sightings = append(e.Sightings, sg)
	}
	return e
}

// Read lists the directory: [Dir.Next] then gives its entries. A part that cannot be is told to failed, which may be nil.
func (d *Dir) Read(failed func(error)) { d.readParts(nil, failed) }

// readParts reads the parts that are wanted, nil for all.
func (d *Dir) readParts(wanted func(*part) bool, failed func(error)) {
	d.items = d.items[:0]
	for _, err := range d.lost {
		if failed != nil {
			failed(err)
		}
	}
	for i := range d.parts {
		p := &d.parts[i]
		if wanted != nil && !wanted(p) {
			continue
		}
		list, err := p.dir.ReadDir()
		if err != nil {
			if failed != nil {
				failed(fmt.Errorf("layer %s: list /%s: %w", d.stack.layer(p.layer).Name, p.path, err))
			}
			continue
		}
		d.items = slices.Grow(d.items, len(list))
		for _, e := range list {
			name := e.Name
			switch kind, target := whiteout.ParseAufsName(name); kind {
			case whiteout.NotMark:
			case whiteout.Whiteout:
				name = target
			default:
				continue
			}
			d.items = append(d.items, item{name, int32(i)})
		}
	}
	slices.SortFunc(d.items, func(a, b item) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return int(a.part - b.part)
	})
}

// Next returns the next entry in the order of the names' bytes, nil at the end.
// The entry before is no longer valid then.
func (d *Dir) Next() *Entry {
	for len(d.items) > 0 {
		name := d.items[0].name
		d.has = d.has[:0]
		n := 0
		for n < len(d.items) && d.items[n].name == name {
			if k := int(d.items[n].part); len(d.has) == 0 || d.has[len(d.has)-1] != k {
				d.has = append(d.has, k)
			}
			n++
		}
		d.items = d.items[n:]
		if e := d.fill(name, d.has); len(e.Sightings) > 0 || e.Err != nil {
			return e
		}
	}
	return nil
}

// Entry looks for one name, nil if no layer has it.
func (d *Dir) Entry(name string) (*Entry, error) {
	if err := layer.CheckName(name); err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	if e := d.fill(name, nil); len(e.Sightings) > 0 || e.Err != nil {
		return e, nil
	}
	return nil, nil
}

func (d *Dir) fill(name string, has []int) *Entry {
	d.entry.release()
	d.entry = Entry{Path: join(d.Path, name), Name: name, Sightings: d.entry.Sightings[:0]}
	d.resolve(&d.entry, has, &d.owned)
	return &d.entry
}

// Open returns the directory that an entry of d is in some layer, hidden parts
// included; nil if none has one. What the entry has open is the new directory's.
func (d *Dir) Open(e *Entry) *Dir {
	c := &Dir{Path: e.Path, stack: d.stack}
	last := -1
	for i := range e.Sightings {
		s := &e.Sightings[i]
		if s.again {
			s.again = false
			var err error
			if s.sub, err = s.in.dir.OpenDir(s.name); err != nil {
				s.sub = nil
				c.lost = append(c.lost, fmt.Errorf("layer %s: open /%s again: %w", d.stack.layer(s.Layer).Name, s.Path(), err))
			}
		}
		if s.sub == nil {
			continue
		}
		p := s.in.child(s.name, s.sub, s.Marks)
		s.sub = nil
		if s.State == Hidden {
			p.live, p.by, p.why, p.at = false, s.By, s.Why, s.At
		}
		c.crossed = c.crossed || p.layer == last
		last = p.layer
		c.parts = append(c.parts, *p)
	}
	if len(c.parts)+len(c.lost) == 0 {
		return nil
	}
	c.markBottom()
	return c
}

// markBottom notes the lowest part that users see where no redirect can lead
// further down. Like the union, who then finds nothing below that a mark could
// be about does not read it.
func (d *Dir) markBottom() {
	if !d.stack.NoFollow || len(d.stack.DataOnly) > 0 {
		return
	}
	for i := len(d.parts) - 1; i >= 0; i-- {
		if d.parts[i].live {
			d.parts[i].bottom = true
			return
		}
	}
}
