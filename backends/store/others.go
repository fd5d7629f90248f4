package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"github.com/laminafs/lamina/backends/driver"
)

// findOthers looks at the additional stores, and returns what they have for the
// driver: directories of layers. Stores that have nothing for it are left out, as one
// configuration may serve several drivers.
func (s *Store) findOthers(cfg Config) (dirs []string, err error) {
	for _, root := range cfg.Additional {
		if root, err = filepath.Abs(root); err != nil {
			return nil, err
		}
		if _, err := os.Stat(filepath.Join(root, storeFile)); err != nil {
			return nil, fmt.Errorf("additional store %s: %w", root, err)
		}
		dir := filepath.Join(root, cfg.Driver)
		switch _, err := os.Stat(dir); {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, fmt.Errorf("additional store %s: %w", root, err)
		}
		s.others = append(s.others, root)
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// Additional returns the roots of the stores that are only read and have layers of
// this store's driver.
func (s *Store) Additional() []string { return s.others }

// viewOther reads a state of an additional store.
func (s *Store) viewOther(root string, f func(*tx) error) error {
	path := filepath.Join(root, storeFile)
	db, err := bolt.Open(path, 0, &bolt.Options{Timeout: lockWait, ReadOnly: true})
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("additional store: %w; its owner lets others read it with: chmod o+r %s", err, path)
	case errors.Is(err, bolt.ErrTimeout):
		return fmt.Errorf("additional store: %s has been locked for %v by another process; see which with: fuser -v %s", path, lockWait, path)
	case err != nil:
		return fmt.Errorf("additional store: %s: %w", path, err)
	}
	err = db.View(func(t *bolt.Tx) error { return f(&tx{t.Bucket([]byte(s.Driver.Name())), s}) })
	return errors.Join(err, db.Close())
}

// elsewhere looks a committed layer up by its whole name in the additional stores.
func (s *Store) elsewhere(name string) (l Layer, err error) {
	for _, root := range s.others {
		known := false
		err := s.viewOther(root, func(t *tx) (err error) {
			known, err = t.get("layers", name, &l)
			return err
		})
		if err != nil || known && l.Kind != Active {
			l.Store = root
			return l, err
		}
	}
	return Layer{}, fmt.Errorf("%s: %w; see: lamina layer ls", name, driver.ErrNotFound)
}

// any looks a layer up by its whole name, here first.
func (t *tx) any(name string) (Layer, error) {
	l, err := t.layer(name)
	if errors.Is(err, driver.ErrNotFound) {
		return t.s.elsewhere(name)
	}
	return l, err
}

// AdditionalLayers returns the committed layers of the additional stores.
func (s *Store) AdditionalLayers() (list []Layer, err error) {
	for _, root := range s.others {
		err := s.viewOther(root, func(t *tx) error {
			layers, err := all[Layer](t, "layers")
			for _, l := range layers {
				if l.Store = root; l.Kind != Active {
					list = append(list, l)
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// AdditionalImages returns the images of the additional stores.
func (s *Store) AdditionalImages() (list []Image, err error) {
	for _, root := range s.others {
		err := s.viewOther(root, func(t *tx) error {
			images, err := all[Image](t, "images")
			for _, i := range images {
				i.Store = root
				list = append(list, i)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// onlyRead makes an error say that what was to be changed is in an additional store, if
// that is why it was not found.
func (s *Store) onlyRead(err error, name string) error {
	if errors.Is(err, driver.ErrNotFound) {
		if l, e := s.elsewhere(name); e == nil {
			return fmt.Errorf("%w: %s", ErrOnlyRead, l.Store)
		}
	}
	if errors.Is(err, ErrNoImage) {
		for _, root := range s.others {
			if s.viewOther(root, func(t *tx) error { _, err := t.image(name); return err }) == nil {
				return fmt.Errorf("%w: %s", ErrOnlyRead, root)
			}
		}
	}
	return err
}
