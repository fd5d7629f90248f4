package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Image is a stack of committed layers and what an image configuration says
// of it.
type Image struct {
	ID      string    `json:"id"`     // digest of Config
	Names   []string  `json:"names"`  // sorted; none when another image took the last one
	Layers  []string  `json:"layers"` // names, the bottom first
	Config  []byte    `json:"config"`
	Created time.Time `json:"created"` // in this store
	// Store is the root of the additional store that has the image, "" for this one.
	Store string `json:"store,omitempty"`
}

func (i *Image) title() string {
	if len(i.Names) > 0 {
		return i.Names[0]
	}
	return i.ID
}

// Top is the name of the topmost layer, "" for an image without any.
func (i *Image) Top() string {
	if len(i.Layers) == 0 {
		return ""
	}
	return i.Layers[len(i.Layers)-1]
}

// AddImage records an image and gives it names, which are taken from whoever has
// them. All of its layers must be there.
func (s *Store) AddImage(i Image) error {
	names := i.Names
	i.Store = ""
	err := s.update(func(t *tx) error {
		for _, name := range i.Layers {
			if l, err := t.any(name); err != nil {
				return err
			} else if l.Kind == Active {
				return fmt.Errorf("layer %s is not committed", name)
			}
		}
		var before Image
		known, err := t.get("images", i.ID, &before)
		if err != nil {
			return err
		}
		if known {
			i.Names, i.Created = before.Names, before.Created
		} else {
			i.Names = nil
			i.Created = time.Now().UTC()
		}
		if err := t.put("images", i.ID, i); err != nil {
			return err
		}
		for _, name := range names {
			if err := t.tag(name, i.ID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record image %s: %w", i.title(), err)
	}
	return nil
}

// tag gives an image a name.
func (t *tx) tag(name, id string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := t.untag(name); err != nil {
		return err
	}
	var i Image
	if _, err := t.get("images", id, &i); err != nil {
		return err
	}
	i.Names = append(i.Names, name)
	slices.Sort(i.Names)
	return errors.Join(t.put("images", id, i), t.put("refs", name, id))
}

func (t *tx) untag(name string) error {
	var id string
	known, err := t.get("refs", name, &id)
	if err != nil || !known {
		return err
	}
	var i Image
	if _, err := t.get("images", id, &i); err != nil {
		return err
	}
	i.Names = slices.DeleteFunc(i.Names, func(n string) bool { return n == name })
	return errors.Join(t.put("images", id, i), t.delete("refs", name))
}

// Image finds an image by name, by a name without ":latest", or by the beginning
// of its id, here first and then in the additional stores. [ErrNoImage] for none.
func (s *Store) Image(name string) (i Image, err error) {
	find := func(t *tx) error {
		i, err = t.image(name)
		return err
	}
	err = s.view(find)
	for _, root := range s.others {
		if !errors.Is(err, ErrNoImage) {
			break
		}
		if err = s.viewOther(root, find); err == nil {
			i.Store = root
		}
	}
	return i, err
}

func (t *tx) image(name string) (i Image, err error) {
	for _, n := range []string{name, name + ":latest"} {
		var id string
		known, err := t.get("refs", n, &id)
		if err != nil {
			return i, err
		}
		if known {
			_, err = t.get("images", id, &i)
			return i, err
		}
	}
	images, err := all[Image](t, "images")
	if err != nil {
		return i, err
	}
	var found []Image
	for _, c := range images {
		if len(name) >= 4 && (strings.HasPrefix(c.ID, name) || strings.HasPrefix(c.ID, "sha256:"+name)) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return i, fmt.Errorf("%s: %w; see: lamina image ls", name, ErrNoImage)
	case 1:
		return found[0], nil
	}
	return i, fmt.Errorf("%s: the ids of %d images begin so", name, len(found))
}

// Images returns all of this store, by id.
func (s *Store) Images() (list []Image, err error) {
	err = s.view(func(t *tx) error {
		list, err = all[Image](t, "images")
		return err
	})
	return list, err
}

// RemoveImage takes a name away, and with the last one, or when called by its id, the
// image. Its layers stay until GC.
func (s *Store) RemoveImage(name string) error {
	err := s.update(func(t *tx) error {
		i, err := t.image(name)
		if err != nil {
			return err
		}
		called := slices.IndexFunc(i.Names, func(n string) bool { return n == name || n == name+":latest" })
		if called >= 0 && len(i.Names) > 1 {
			return t.untag(i.Names[called])
		}
		for _, n := range i.Names {
			if err := t.untag(n); err != nil {
				return err
			}
		}
		return t.delete("images", i.ID)
	})
	if err != nil {
		return fmt.Errorf("remove image: %w", s.onlyRead(err, name))
	}
	return nil
}
