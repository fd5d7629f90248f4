package inspect

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// search merges what the parts of a directory say of one name, from the top
// down. Its rules are those of fs/union's walk (resolve.go there), which ends
// when done; here the rest is hidden, and by and why tell by what.
type search struct {
	d        *Dir
	owned    *[]layer.Dir // gets the directories on the way of redirects
	e        *Entry
	name     string   // the name in the parts still to come
	absolute []string // or the path from the layers' roots, after a redirect
	jumped   bool     // what was visited last led to such a path
	// redirector is the layer of the last redirect.
	redirector int
	below      int  // layers with a larger index are still to come
	top        int  // index in e.Sightings of the provider, -1: none yet
	meta       bool // the data of the metacopy file are not found yet
	done       bool
	by         int
	why        Reason
}

// resolve fills in the sightings of a name. has tells which parts have it, nil
// for any. What is opened on the way of redirects goes to owned: it is part of what
// the entry refers to.
func (d *Dir) resolve(e *Entry, has []int, owned *[]layer.Dir) {
	s := search{d: d, owned: owned, e: e, name: e.Name, top: -1}
	next := 0
	for i := range d.parts {
		p := &d.parts[i]
		listed := true
		if has != nil {
			listed = next < len(has) && has[next] == i
			if listed {
				next++
			}
		}
		moved := s.absolute != nil || s.name != e.Name
		if !p.live || s.done || moved {
			if listed {
				s.hide(p, e.Name)
			}
			if !p.live || s.done || s.absolute != nil {
				continue
			}
		} else if !listed {
			continue
		}
		s.below = p.layer
		s.visit(p, s.name)
	}
	if s.absolute != nil && !s.done {
		s.follow()
	}
	if s.meta && e.Err == nil {
		s.findDataOnly()
	}
	if d.crossed || s.absolute != nil || s.name != e.Name {
		slices.SortStableFunc(e.Sightings, func(a, b Sighting) int { return a.Layer - b.Layer })
	}
}

// hide takes in what a part has that users do not see.
func (s *search) hide(p *part, name string) {
	h, err := p.probe(name)
	if err != nil {
		h = hit{there: true, err: err}
	}
	if !h.there {
		return
	}
	by, why, at := s.by, s.why, s.e.Path
	switch {
	case !p.live:
		by, why, at = p.by, p.why, p.at
	case !s.done:
		by, why = s.redirector, ByRedirect
	}
	s.add(p, name, h, Hidden, by, why)
	s.e.Sightings[len(s.e.Sightings)-1].At = at
}

func (s *search) add(p *part, name string, h hit, st State, by int, why Reason) {
	s.e.Sightings = append(s.e.Sightings, Sighting{
		Layer: p.layer, State: st, By: by, Why: why, At: s.e.Path, Whiteout: h.form, Stat: h.st, Marks: h.m, Err: h.err,
		in: p, name: name, sub: h.sub,
	})
}

// end says that nothing below counts any more.
func (s *search) end(by int, why Reason) { s.done, s.by, s.why = true, by, why }

func (s *search) fail(p *part, name string, err error) {
	if s.e.Err == nil {
		s.e.Err = s.at(p, name, err)
	}
	s.end(p.layer, ByObject)
}

func (s *search) at(p *part, name string, err error) error {
	return fmt.Errorf("layer %s: %q: %w", s.d.stack.layer(p.layer).Name, join(p.path, name), err)
}

// visit takes in what one live part has.
func (s *search) visit(p *part, name string) {
	s.below = p.layer
	h, err := p.probe(name)
	if h.err != nil && !h.unopened && s.e.Err == nil {
		s.e.Err = s.at(p, name, h.err)
	}
	switch {
	case err != nil:
		s.fail(p, name, err)
		return
	case !h.there:
		return
	case h.form != NoWhiteout:
		s.add(p, name, h, Deletes, -1, NoReason)
		s.end(p.layer, ByWhiteout)
		return
	case s.top < 0:
		s.top = len(s.e.Sightings)
		s.add(p, name, h, Provides, -1, NoReason)
		if !h.st.IsDir() {
			s.takeFile(p, h)
			return
		}
	case s.meta:
		s.takeData(p, name, h)
		return
	case !h.st.IsDir():
		// What is no directory ends the merging.
		s.add(p, name, h, Hidden, s.e.Sightings[s.top].Layer, ByObject)
		s.end(p.layer, ByObject)
		return
	default:
		s.add(p, name, h, Merges, -1, NoReason)
	}
	if h.m.Opaque {
		s.end(p.layer, ByOpaque)
		return
	}
	s.redirect(h.m.Redirect)
}

// takeFile takes in the topmost object when it is no directory.
func (s *search) takeFile(p *part, h hit) {
	if !h.m.Metacopy || !h.st.IsRegular() {
		s.end(p.layer, ByObject)
		return
	}
	s.meta = true
	s.redirect(h.m.Redirect)
}

// takeData takes in what may have the data of the metacopy file above.
func (s *search) takeData(p *part, name string, h hit) {
	by := s.e.Sightings[s.top].Layer
	switch {
	case !h.st.IsRegular():
		s.add(p, name, h, Hidden, by, ByObject)
		s.end(p.layer, ByObject)
	case h.m.Metacopy:
		s.add(p, name, h, Hidden, by, ByObject)
		s.redirect(h.m.Redirect)
	default:
		s.add(p, name, h, HoldsData, -1, NoReason)
		s.meta = false
		s.end(by, ByObject)
	}
}

// redirect changes the name under which the layers below are searched.
func (s *search) redirect(r *whiteout.Redirect) {
	if r == nil {
		return
	}
	s.redirector = s.below
	switch {
	case r.Absolute:
		s.absolute, s.jumped = r.Path, true
	case len(r.Path) == 1:
		s.name = r.Path[0]
		if s.absolute != nil {
			s.absolute = append(slices.Clone(s.absolute[:len(s.absolute)-1]), s.name)
		}
	}
}

// follow goes through the layers that are still to come by path.
func (s *search) follow() {
	for i := range s.d.stack.Layers {
		if s.done {
			return
		}
		if i > s.below {
			s.visitPath(i)
		}
	}
}

// visitPath walks the absolute path in one layer, as fs/union's visitPath.
func (s *search) visitPath(i int) {
	p, err := s.d.rootPart(i)
	if err != nil {
		s.e.Err = err
		s.end(i, ByObject)
		return
	}
	path, stop := s.absolute, false
	for k, name := range path[:len(path)-1] {
		h, err := p.probe(name)
		if err == nil {
			err = h.err
		}
		switch {
		case err != nil:
			s.fail(p, name, err)
			return
		case !h.there:
			if stop {
				s.end(i, ByOpaque)
			}
			return
		case h.form != NoWhiteout:
			s.end(i, ByWhiteout)
			return
		case h.sub == nil:
			s.end(i, ByObject)
			return
		case h.m.Opaque:
			stop = true
		case h.m.Redirect != nil:
			r := h.m.Redirect
			stop = stop && !r.Absolute
			var to []string
			if !r.Absolute {
				to = append(to, s.absolute[:len(s.absolute)-len(path)+k]...)
			}
			s.absolute = append(append(to, r.Path...), path[k+1:]...)
		}
		p = s.own(p, name, h)
	}
	s.jumped = false
	s.visit(p, path[len(path)-1])
	if stop && !s.jumped && !s.done {
		s.end(i, ByOpaque)
	}
}

// findDataOnly looks for the data of a metacopy file in the data-only layers,
// which absolute redirects alone lead to.
func (s *search) findDataOnly() {
	if s.absolute != nil {
		for i := range s.d.stack.DataOnly {
			if s.findDataIn(len(s.d.stack.Layers) + i) {
				return
			}
		}
	}
	s.e.Err = fmt.Errorf("%q is a metacopy file and no layer below has its data: %w", s.e.Path, unix.EIO)
}

func (s *search) findDataIn(i int) bool {
	p, err := s.d.rootPart(i)
	if err != nil {
		s.e.Err = err
		return true
	}
	for _, name := range s.absolute[:len(s.absolute)-1] {
		h, err := p.probe(name)
		if err = errors.Join(err, h.err); err != nil {
			s.fail(p, name, err)
			return true
		}
		if h.sub == nil {
			return false
		}
		p = s.own(p, name, h)
	}
	name := s.absolute[len(s.absolute)-1]
	h, err := p.probe(name)
	if err = errors.Join(err, h.err); err != nil {
		s.fail(p, name, err)
		return true
	}
	if h.form != NoWhiteout || !h.there || !h.st.IsRegular() {
		return false
	}
	s.add(p, name, h, HoldsData, -1, NoReason)
	return true
}

// rootPart returns the root of a layer as a part.
func (d *Dir) rootPart(i int) (*part, error) {
	root, err := d.stack.root(i)
	if err != nil {
		return nil, err
	}
	m, err := readMarks(objectXattrs{root})
	if err != nil {
		return nil, fmt.Errorf("layer %s: the marks of its root: %w", d.stack.layer(i).Name, err)
	}
	return &part{
		dir: root, layer: i, live: true, xattrWhiteouts: m.xattrWhiteouts,
		bottom: i >= len(d.stack.Layers)-1+min(len(d.stack.DataOnly), 1), noFollow: d.stack.NoFollow,
	}, nil
}

// own makes a part of a directory on the way of a redirect.
func (s *search) own(p *part, name string, h hit) *part {
	*s.owned = append(*s.owned, h.sub)
	return p.child(name, h.sub, h.m)
}

func (p *part) child(name string, sub layer.Dir, m Marks) *part {
	return &part{
		dir: sub, layer: p.layer, path: join(p.path, name), live: true,
		xattrWhiteouts: m.xattrWhiteouts, bottom: p.bottom && !p.noFollow, noFollow: p.noFollow,
	}
}
