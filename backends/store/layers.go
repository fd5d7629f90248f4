package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/laminafs/lamina/backends/driver"
)

// A Kind says what a layer is.
type Kind string

// The kinds of layers.
const (
	Active    Kind = "active"    // is written to, and has no children
	Committed Kind = "committed" // never changes
	ImageKind Kind = "image"     // committed, and gone when no image and no layer needs it
)

// A Layer is what the store knows of one.
type Layer struct {
	Name    string            `json:"name"`
	ID      string            `json:"id"` // by which the driver knows it
	Parent  string            `json:"parent,omitempty"`
	Kind    Kind              `json:"kind"`
	Labels  map[string]string `json:"labels,omitempty"`
	Created time.Time         `json:"created"`
	Updated time.Time         `json:"updated"`
	// Usage is what a layer takes that does not change any more; of an active
	// one it is measured when asked for.
	Usage *driver.Usage `json:"usage,omitempty"`
	// Lease is what an active layer goes with, unless it is committed or gets a
	// name of its own before.
	Lease string `json:"lease,omitempty"`
	// Store is the root of the additional store that has the layer, "" for this one.
	Store string `json:"store,omitempty"`
}

// NameMax is the longest name in bytes.
const NameMax = 255

func checkName(name string) error {
	if name == "" || len(name) > NameMax || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%q is no name; 1 to %d characters that can be printed", name, NameMax)
	}
	return nil
}

// An intent is what a process is about to do to the driver.
type intent struct {
	Op    string `json:"op"` // create, commit or remove
	ID    string `json:"id"`
	Layer Layer  `json:"layer"` // as it shall be, or was
	Owner string `json:"owner"`
}

// CreateOptions are the wishes for a new layer.
type CreateOptions struct {
	driver.CreateOptions
	Labels map[string]string
	// Lease is one of this process, see [Store.OwnLease]; "" for none.
	Lease string
}

// Create makes an active layer on a committed one, or on none.
func (s *Store) Create(ctx context.Context, name, parent string, o CreateOptions) (Layer, error) {
	now := time.Now().UTC()
	l := Layer{Name: name, ID: newID(), Parent: parent, Kind: Active, Labels: maps.Clone(o.Labels), Created: now, Updated: now, Lease: o.Lease}
	if err := checkName(name); err != nil {
		return l, fmt.Errorf("create a layer: %w", err)
	}
	parentID := ""
	err := s.update(func(t *tx) error {
		if err := t.free(name); err != nil || parent == "" {
			return errors.Join(err, t.put("intents", l.ID, intent{"create", l.ID, l, s.owner()}))
		}
		p, err := t.any(parent)
		if err != nil {
			return fmt.Errorf("parent %w", err)
		}
		parentID = p.ID
		return t.put("intents", l.ID, intent{"create", l.ID, l, s.owner()})
	})
	if err != nil {
		return l, fmt.Errorf("create layer %s: %w", name, err)
	}
	err = s.Driver.Create(ctx, l.ID, parentID, o.CreateOptions)
	if err == nil {
		err = s.update(func(t *tx) error {
			if err := t.free(name); err != nil {
				return err
			}
			return errors.Join(t.putLayer(&l, parentID), t.delete("intents", l.ID))
		})
		if err != nil {
			err = errors.Join(err, s.Driver.Remove(ctx, l.ID))
		}
	}
	if err != nil {
		err = errors.Join(err, s.update(func(t *tx) error { return t.delete("intents", l.ID) }))
		return l, fmt.Errorf("create layer %s: %w", name, err)
	}
	return l, nil
}

// free reports that a name is taken.
func (t *tx) free(name string) error {
	switch known, err := t.get("layers", name, &Layer{}); {
	case err != nil:
		return err
	case known:
		return driver.ErrExists
	}
	return nil
}

func (t *tx) layer(name string) (Layer, error) {
	var l Layer
	known, err := t.get("layers", name, &l)
	if err == nil && !known {
		err = fmt.Errorf("%s: %w; see: lamina layer ls", name, driver.ErrNotFound)
	}
	return l, err
}

// putLayer writes a new layer to all buckets that know it.
func (t *tx) putLayer(l *Layer, parentID string) error {
	err := errors.Join(t.put("layers", l.Name, l), t.put("ids", l.ID, l.Name))
	if parentID != "" {
		err = errors.Join(err, t.put("children", parentID+"\x00"+l.ID, true))
	}
	return err
}

// dropLayer is the reverse.
func (t *tx) dropLayer(l *Layer) error {
	err := errors.Join(t.delete("layers", l.Name), t.delete("ids", l.ID))
	if l.Parent == "" {
		return err
	}
	p, e := t.any(l.Parent)
	if errors.Is(e, driver.ErrNotFound) {
		return err // it was lost
	}
	if e != nil {
		return errors.Join(err, e)
	}
	return errors.Join(err, t.delete("children", p.ID+"\x00"+l.ID))
}

// Layer returns what is known of a layer by its name, or by the beginning of its id
// when only one has it. The additional stores are asked last, by whole names.
func (s *Store) Layer(name string) (Layer, error) {
	l, err := s.ownLayer(name)
	if errors.Is(err, driver.ErrNotFound) {
		return s.elsewhere(name)
	}
	return l, err
}

func (s *Store) ownLayer(name string) (l Layer, err error) {
	err = s.view(func(t *tx) error {
		if known, err := t.get("layers", name, &l); known || err != nil {
			return err
		}
		var found []string
		if len(name) >= 4 {
			if err := t.each("ids", name, func(id string, _ []byte) error { found = append(found, id); return nil }); err != nil {
				return err
			}
		}
		switch len(found) {
		case 0:
			_, err := t.layer(name)
			return err
		case 1:
			var full string
			if _, err := t.get("ids", found[0], &full); err != nil {
				return err
			}
			l, err = t.layer(full)
			return err
		}
		return fmt.Errorf("%s: %d layers have an id that begins so", name, len(found))
	})
	return l, err
}

// Layers returns all of this store, sorted by name.
func (s *Store) Layers() (list []Layer, err error) {
	err = s.view(func(t *tx) error {
		list, err = all[Layer](t, "layers")
		return err
	})
	return list, err
}

// Commit makes an active layer a parent for others. kind is Committed or
// ImageKind; labels are added. With newName it is called so from then on.
func (s *Store) Commit(ctx context.Context, name, newName string, kind Kind, labels map[string]string) (Layer, error) {
	if newName == "" {
		newName = name
	}
	var l Layer
	err := s.update(func(t *tx) (err error) {
		if l, err = t.layer(name); err != nil {
			return err
		}
		if err := checkName(newName); err != nil {
			return err
		}
		if newName != name {
			if err := t.free(newName); err != nil {
				return fmt.Errorf("%s: %w", newName, err)
			}
		}
		after := l
		after.Name, after.Kind, after.Lease = newName, kind, ""
		after.Labels = maps.Clone(l.Labels)
		if after.Labels == nil {
			after.Labels = map[string]string{}
		}
		maps.Copy(after.Labels, labels)
		return t.put("intents", l.ID, intent{"commit", l.ID, after, s.owner()})
	})
	if err == nil {
		err = s.Driver.Commit(ctx, l.ID)
		if err != nil {
			err = errors.Join(err, s.update(func(t *tx) error { return t.delete("intents", l.ID) }))
		}
	}
	if err == nil {
		l, err = s.finishCommit(ctx, l.ID)
	}
	if err != nil {
		return l, fmt.Errorf("commit layer %s: %w", name, s.onlyRead(err, name))
	}
	return l, nil
}

// finishCommit records what the driver has done.
func (s *Store) finishCommit(ctx context.Context, id string) (l Layer, err error) {
	u, err := s.Driver.Usage(ctx, id)
	if err != nil {
		return l, err
	}
	err = s.update(func(t *tx) error {
		var in intent
		var before string
		known, err := t.get("intents", id, &in)
		if err != nil || !known {
			return err // another process has finished it
		}
		l = in.Layer
		l.Usage, l.Updated = &u, time.Now().UTC()
		if _, err := t.get("ids", id, &before); err != nil {
			return err
		}
		return errors.Join(t.delete("layers", before), t.put("layers", l.Name, l), t.put("ids", id, l.Name), t.delete("intents", id))
	})
	return l, err
}

// Remove takes a layer away. [ErrInUse] tells which image or lease needs it; the
// driver's causes tell of children and mounts.
func (s *Store) Remove(ctx context.Context, name string) error {
	var l Layer
	err := s.update(func(t *tx) (err error) {
		if l, err = t.layer(name); err != nil {
			return err
		}
		if err := t.removable(&l); err != nil {
			return err
		}
		at, err := s.Driver.Mounts(l.ID)
		if err == nil && len(at) > 0 {
			return fmt.Errorf("%w on %s; unmount it first: lamina layer umount %s", driver.ErrMounted, at[0], name)
		}
		if err != nil && !errors.Is(err, driver.ErrNotFound) && !errors.Is(err, driver.ErrDamaged) {
			return err
		}
		return errors.Join(t.dropLayer(&l), t.put("intents", l.ID, intent{"remove", l.ID, l, s.owner()}))
	})
	if err == nil {
		err = s.finishRemove(ctx, &l)
	}
	if err != nil {
		return fmt.Errorf("remove layer %s: %w", name, s.onlyRead(err, name))
	}
	return nil
}

// removable reports what needs a layer.
func (t *tx) removable(l *Layer) error {
	err := t.each("children", l.ID+"\x00", func(key string, _ []byte) error {
		var child string
		if _, err := t.get("ids", key[len(l.ID)+1:], &child); err != nil {
			return err
		}
		return fmt.Errorf("%w: %s; remove that first", driver.ErrHasChildren, child)
	})
	if err != nil {
		return err
	}
	images, err := all[Image](t, "images")
	if err != nil {
		return err
	}
	for _, i := range images {
		if slices.Contains(i.Layers, l.Name) {
			return fmt.Errorf("%w by image %s; remove that first", ErrInUse, i.title())
		}
	}
	leases, err := all[Lease](t, "leases")
	if err != nil {
		return err
	}
	for _, lease := range leases {
		if slices.Contains(lease.Layers, l.Name) && !lease.expired() {
			return fmt.Errorf("%w by lease %s", ErrInUse, lease.ID)
		}
	}
	return nil
}

// finishRemove removes what the driver has. When that is refused, because the layer was
// mounted meanwhile, it is put back.
func (s *Store) finishRemove(ctx context.Context, l *Layer) error {
	err := s.Driver.Remove(ctx, l.ID)
	if errors.Is(err, driver.ErrNotFound) {
		err = nil
	}
	if errors.Is(err, driver.ErrMounted) || errors.Is(err, driver.ErrHasChildren) {
		return errors.Join(err, s.update(func(t *tx) error {
			var p Layer
			if l.Parent != "" {
				var err error
				if p, err = t.any(l.Parent); err != nil {
					return err
				}
			}
			return errors.Join(t.putLayer(l, p.ID), t.delete("intents", l.ID))
		}))
	}
	if err != nil {
		return err // the intent stays, and the next one who opens the store tries again
	}
	blobs, err := filepath.Glob(s.Blob(l, "*"))
	for _, b := range blobs {
		err = errors.Join(err, os.Remove(b))
	}
	return errors.Join(err, s.update(func(t *tx) error { return t.delete("intents", l.ID) }))
}

// Blob is the path of a file that belongs to a layer and goes with it.
func (s *Store) Blob(l *Layer, kind string) string {
	root := l.Store
	if root == "" {
		root = s.root
	}
	return filepath.Join(root, "blobs", l.ID+"."+kind)
}

// Rename gives an active layer another name, with which it stays when its lease ends.
func (s *Store) Rename(name, newName string) (l Layer, err error) {
	err = s.update(func(t *tx) error {
		if l, err = t.layer(name); err != nil {
			return err
		}
		if l.Kind != Active {
			return driver.ErrCommitted // its children and images know it by name
		}
		if err := errors.Join(checkName(newName), t.free(newName)); err != nil {
			return fmt.Errorf("to %s: %w", newName, err)
		}
		l.Name, l.Lease, l.Updated = newName, "", time.Now().UTC()
		return errors.Join(t.delete("layers", name), t.put("layers", newName, l), t.put("ids", l.ID, newName))
	})
	if err != nil {
		return l, fmt.Errorf("rename layer %s: %w", name, s.onlyRead(err, name))
	}
	return l, nil
}

// SetLabels changes labels; an empty value removes one.
func (s *Store) SetLabels(name string, labels map[string]string) (l Layer, err error) {
	err = s.update(func(t *tx) error {
		if l, err = t.layer(name); err != nil {
			return err
		}
		if l.Labels == nil {
			l.Labels = map[string]string{}
		}
		for k, v := range labels {
			if v == "" {
				delete(l.Labels, k)
			} else {
				l.Labels[k] = v
			}
		}
		l.Updated = time.Now().UTC()
		return t.put("layers", name, l)
	})
	if err != nil {
		return l, fmt.Errorf("label layer %s: %w", name, s.onlyRead(err, name))
	}
	return l, nil
}

// Usage returns what a layer takes by itself.
func (s *Store) Usage(ctx context.Context, l *Layer) (driver.Usage, error) {
	if l.Usage != nil {
		return *l.Usage, nil
	}
	return s.Driver.Usage(ctx, l.ID)
}

// recover finishes what processes that died were about to do.
func (s *Store) recover(ctx context.Context) error {
	var left []intent
	var leases []Lease
	err := s.view(func(t *tx) (err error) {
		if left, err = all[intent](t, "intents"); err == nil {
			leases, err = all[Lease](t, "leases")
		}
		return err
	})
	for _, in := range left {
		if err != nil {
			return err
		}
		if !s.lives(in.Owner) {
			err = s.finish(ctx, &in)
		}
	}
	if err != nil {
		return err
	}
	return s.endLeases(ctx, leases)
}

func (s *Store) finish(ctx context.Context, in *intent) error {
	cross := func() error { return s.update(func(t *tx) error { return t.delete("intents", in.ID) }) }
	switch in.Op {
	case "create":
		err := s.Driver.Remove(ctx, in.ID)
		if err != nil && !errors.Is(err, driver.ErrNotFound) {
			return err
		}
		return cross()
	case "commit":
		l, err := s.Driver.Layer(in.ID)
		if err == nil && l.Committed {
			_, err = s.finishCommit(ctx, in.ID)
			return err
		}
		if err != nil && !errors.Is(err, driver.ErrNotFound) {
			return err
		}
		return cross()
	case "remove":
		return s.finishRemove(ctx, &in.Layer)
	}
	return fmt.Errorf("intent %q of layer %s: %w: it may come from a newer version", in.Op, in.ID, driver.ErrUnsupported)
}
