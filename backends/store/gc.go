package store

import (
	"context"
	"errors"

	"github.com/laminafs/lamina/backends/driver"
)

// Collected is what a collection has removed.
type Collected struct {
	Layers []string `json:"layers"`
	Bytes  int64    `json:"bytes"`
	Swept  []string `json:"swept,omitempty"` // leftovers of the driver
}

// GC removes the layers of images that no image, layer, lease or mount needs, children
// before their parents, and sweeps the driver. tell, when not nil, is called before each.
func (s *Store) GC(ctx context.Context, tell func(layer string)) (Collected, error) {
	var c Collected
	if err := s.dropExpired(); err != nil {
		return c, err
	}
	for again := true; again; {
		again = false
		layers, err := s.Layers()
		if err != nil {
			return c, err
		}
		for i := len(layers) - 1; i >= 0; i-- {
			if err := ctx.Err(); err != nil {
				return c, err
			}
			l := &layers[i]
			if l.Kind != ImageKind {
				continue
			}
			if s.view(func(t *tx) error { return t.removable(l) }) != nil {
				continue
			}
			if tell != nil {
				tell(l.Name)
			}
			// What was taken into use meanwhile is no garbage.
			switch err := s.Remove(ctx, l.Name); {
			case errors.Is(err, driver.ErrMounted), errors.Is(err, driver.ErrHasChildren), errors.Is(err, ErrInUse), errors.Is(err, driver.ErrNotFound):
				continue
			case err != nil:
				return c, err
			}
			again = true
			c.Layers = append(c.Layers, l.Name)
			if l.Usage != nil {
				c.Bytes += l.Usage.Bytes
			}
		}
	}
	var err error
	c.Swept, err = s.Driver.Cleanup(ctx)
	return c, err
}
