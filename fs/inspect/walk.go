package inspect

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// SkipDir is returned by a [Visit] that does not want to see what is below the
// entry.
var SkipDir = errors.New("skip this directory")

// A Visit is called for each entry of a walk, a directory before its children,
// the children in the order of the bytes of their names.
type Visit func(e *Entry) error

// Walk visits all that any layer has at and below a path, seen by users or not.
// What cannot be listed is told to failed.
func (s *Stack) Walk(ctx context.Context, path string, failed func(error), visit Visit) error {
	at, err := s.Lookup(path)
	if err != nil {
		return err
	}
	defer at.Close()
	w := walker{newReader(ctx, len(s.Layers)), failed, visit, true}
	return w.entry(at.dir, at.Entry, func() *reading {
		if d := at.Dir(); d != nil {
			g := w.r.open(nil, d)
			g.borrowed = true // it is the place's
			return g
		}
		return nil
	})
}

type walker struct {
	r      *reader
	failed func(error)
	visit  Visit
	ahead  bool // until something was skipped: what is below may be, too
}

// entry visits an entry, and what is below it.
func (w *walker) entry(d *Dir, e *Entry, open func() *reading) error {
	for i := range e.Sightings {
		if s := &e.Sightings[i]; s.Err != nil && w.failed != nil {
			w.failed(fmt.Errorf("layer %s: /%s: %w", d.stack.layer(s.Layer).Name, s.Path(), s.Err))
		}
	}
	switch err := w.visit(e); {
	case err == SkipDir:
		if e.HasDir() {
			w.ahead = false
		}
		return nil
	case err != nil:
		return err
	}
	if g := open(); g != nil {
		defer g.close()
		return w.children(g)
	}
	return nil
}

func (w *walker) children(g *reading) error {
	if err := tooDeep(g.new); err != nil {
		return err
	}
	for c := g.next(); c != nil; c = g.next() {
		if err := w.r.ctx.Err(); err != nil {
			return err
		}
		g.tell(w.failed)
		for i := range c.used {
			if w.ahead {
				c.ahead(i)
			}
			p := &c.pairs[i]
			if err := w.entry(g.new, &p.new, func() *reading { return c.below(p) }); err != nil {
				return err
			}
		}
	}
	g.tell(w.failed) // of a directory without entries
	return nil
}

// tooDeep bounds how many directories are open at once. No path that the kernel
// takes is as long; redirects of a hostile layer that lead in circles are.
func tooDeep(d *Dir) error {
	if d != nil && strings.Count(d.Path, "/") > maxDepth {
		return fmt.Errorf("/%.200s…: deeper than %d directories: %w", d.Path, maxDepth, unix.ELOOP)
	}
	return nil
}

const maxDepth = 2048

// A Place is an entry that was looked up, and keeps open what leads there.
type Place struct {
	*Entry
	dir  *Dir
	dirs []*Dir
}

// Close gives everything back.
func (p *Place) Close() {
	for i := len(p.dirs) - 1; i >= 0; i-- {
		p.dirs[i].Close()
	}
}

// Dir opens the place as a directory, with all its parts; nil if no layer has
// one there. It is closed with the place.
func (p *Place) Dir() *Dir {
	if p.Name == "" && p.dir.root {
		return p.dir
	}
	d := p.dir.Open(p.Entry)
	if d != nil {
		p.dirs = append(p.dirs, d)
	}
	return d
}

// Lookup finds a path, with or without a leading slash. It follows no symbolic
// links: what is asked for is that name in each layer. ENOENT tells that no layer
// has anything there.
func (s *Stack) Lookup(path string) (*Place, error) {
	root, err := s.Root()
	if err != nil {
		return nil, err
	}
	p := &Place{dir: root, dirs: []*Dir{root}}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		if p.Entry != nil {
			if p.dir = p.dir.Open(p.Entry); p.dir == nil {
				p.Close()
				return nil, fmt.Errorf("%s: /%s is no directory in any layer, so there is no %q in it: %w", s.Name, p.Path, name, unix.ENOTDIR)
			}
			p.dirs = append(p.dirs, p.dir)
		}
		e, err := p.dir.Entry(name)
		if err == nil && e == nil {
			err = fmt.Errorf("%s: no layer has /%s: %w", s.Name, strings.Trim(path, "/"), unix.ENOENT)
		}
		if err != nil {
			p.Close()
			return nil, err
		}
		p.Entry = e
	}
	if p.Entry == nil {
		p.Entry = root.Self()
	}
	return p, nil
}

func splitPath(path string) (names []string) {
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}
