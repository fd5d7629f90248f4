package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/laminafs/lamina/backends/driver"
)

// A Problem is something that does not fit together.
type Problem struct {
	Object   string `json:"object"` // "layer NAME", "image NAME", "layer id ID"
	Problem  string `json:"problem"`
	Repair   string `json:"repair"` // what mends it
	Repaired bool   `json:"repaired"`
}

// Check compares the store with its driver and with itself. With repair it makes
// them fit: what names nothing that is there goes, and so do layers that nothing
// names. Nothing that can be read is lost by it but layers without a name.
func (s *Store) Check(ctx context.Context, repair bool) ([]Problem, error) {
	c := checker{s: s, ctx: ctx, repair: repair}
	if err := c.run(); err != nil {
		return c.found, fmt.Errorf("check the store: %w", err)
	}
	return c.found, nil
}

type checker struct {
	s      *Store
	ctx    context.Context
	repair bool
	found  []Problem
}

func (c *checker) report(object, problem, how string, mend func() error) error {
	p := Problem{Object: object, Problem: problem, Repair: how}
	var err error
	if c.repair && mend != nil {
		err = mend()
		p.Repaired = err == nil
	}
	c.found = append(c.found, p)
	return err
}

func (c *checker) run() error {
	layers, err := c.s.Layers()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	var lost []string
	for i := range layers {
		known[layers[i].ID] = true
		gone, err := c.layer(&layers[i], layers)
		if err != nil {
			return err
		}
		if gone {
			lost = append(lost, layers[i].Name)
		}
	}
	if err := c.images(layers, lost); err != nil {
		return err
	}
	if err := c.drop(layers, lost); err != nil {
		return err
	}
	return c.orphans(known)
}

// layer checks one layer against the driver. It is true when that has lost it.
func (c *checker) layer(l *Layer, all []Layer) (gone bool, err error) {
	d, err := c.s.Driver.Layer(l.ID)
	if errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrDamaged) {
		c.found = append(c.found, Problem{Object: "layer " + l.Name, Problem: "the driver has lost it: " + err.Error(), Repair: "forget it and what is built on it", Repaired: c.repair})
		return true, nil
	}
	if err != nil {
		return false, err
	}
	parent := ""
	if i := slices.IndexFunc(all, func(p Layer) bool { return p.Name == l.Parent }); i >= 0 {
		parent = all[i].ID
	} else if l.Parent != "" {
		p, err := c.s.elsewhere(l.Parent)
		if err != nil && !errors.Is(err, driver.ErrNotFound) {
			return false, err
		}
		if _, lost := c.s.Driver.Layer(d.Parent()); err != nil && errors.Is(lost, driver.ErrNotFound) {
			return false, c.report("layer "+l.Name, "what it is built on, "+l.Parent+", is in no store", "name the additional store that has it, or remove the layer", nil)
		}
		parent = p.ID
	}
	if parent != d.Parent() {
		err = c.report("layer "+l.Name, fmt.Sprintf("the store has parent %q, the driver %q", parent, d.Parent()), "take the driver's word", func() error { return c.reparent(l, d.Parent(), all) })
		if err != nil {
			return false, err
		}
	}
	if d.Committed != (l.Kind != Active) {
		kind := Committed
		if !d.Committed {
			kind = Active
		}
		err = c.report("layer "+l.Name, fmt.Sprintf("the store has it as %s, the driver as committed: %v", l.Kind, d.Committed), "take the driver's word", func() error {
			l.Kind = kind
			return c.s.update(func(t *tx) error { return t.put("layers", l.Name, l) })
		})
	}
	return false, err
}

func (c *checker) reparent(l *Layer, id string, all []Layer) error {
	return c.s.update(func(t *tx) error {
		if err := t.dropLayer(l); err != nil {
			return err
		}
		l.Parent = ""
		if i := slices.IndexFunc(all, func(p Layer) bool { return p.ID == id }); i >= 0 {
			l.Parent = all[i].Name
		}
		return t.putLayer(l, id)
	})
}

// images checks that images have all of their layers.
func (c *checker) images(layers []Layer, lost []string) error {
	images, err := c.s.Images()
	if err != nil {
		return err
	}
	for _, i := range images {
		for _, name := range i.Layers {
			there := slices.ContainsFunc(layers, func(l Layer) bool { return l.Name == name })
			if !there {
				_, err := c.s.elsewhere(name)
				if err != nil && !errors.Is(err, driver.ErrNotFound) {
					return err
				}
				there = err == nil
			}
			if there && !slices.Contains(lost, name) {
				continue
			}
			if err := c.report("image "+i.title(), "its layer "+name+" is gone", "forget the image, and load it again", func() error { return c.s.RemoveImage(i.ID) }); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// drop forgets layers that the driver has lost.
func (c *checker) drop(layers []Layer, lost []string) error {
	if !c.repair {
		return nil
	}
	for i := range layers {
		if !slices.Contains(lost, layers[i].Name) {
			continue
		}
		if err := c.s.update(func(t *tx) error { return t.dropLayer(&layers[i]) }); err != nil {
			return err
		}
		// A damaged one may still have parts.
		if err := c.s.Driver.Remove(c.ctx, layers[i].ID); err != nil && !errors.Is(err, driver.ErrNotFound) {
			return err
		}
	}
	return nil
}

// orphans finds layers of the driver without a name, children first.
func (c *checker) orphans(known map[string]bool) error {
	ids, err := c.s.Driver.Layers()
	if err != nil {
		return err
	}
	err = c.s.view(func(t *tx) error { // what is being made has no name yet
		pending, err := all[intent](t, "intents")
		for _, in := range pending {
			known[in.ID] = true
		}
		return err
	})
	if err != nil {
		return err
	}
	for round := 0; len(ids) > 0; round++ {
		var left []string
		for _, id := range ids {
			if known[id] {
				continue
			}
			var refused error
			if c.repair {
				refused = c.s.Driver.Remove(c.ctx, id)
			}
			if errors.Is(refused, driver.ErrHasChildren) {
				left = append(left, id)
				continue
			}
			c.found = append(c.found, Problem{Object: "layer id " + id, Problem: "it has no name", Repair: "remove it", Repaired: c.repair && refused == nil})
			if refused != nil && !errors.Is(refused, driver.ErrMounted) {
				return refused
			}
		}
		if len(left) == len(ids) {
			return fmt.Errorf("%d layers without a name are built on each other", len(left))
		}
		ids = left
	}
	return nil
}
