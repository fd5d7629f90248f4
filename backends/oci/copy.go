package oci

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/store"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/layer"
)

// LabelCopyOf names the layer of another driver or store that a layer was copied
// from, as DRIVER/ID.
const LabelCopyOf = "lamina.copy-of"

// Copy brings an image and its layers from one store into another, which may be the
// same directory with another driver. Layers that are there are not copied again.
// An error leaves the layers that were whole, for the next try or the next collection.
func Copy(ctx context.Context, from, to *store.Store, i store.Image, o LoadOptions) (store.Image, error) {
	l, err := newCopier(ctx, from, to, o)
	if err != nil {
		return i, err
	}
	defer l.close()
	if i.Top() != "" {
		_, err = l.layer(i.Top(), i.Top())
	}
	if err == nil {
		err = to.AddImage(i)
	}
	if err != nil {
		return i, fmt.Errorf("copy image %s to %s: %w", i.ID, to.Driver.Name(), err)
	}
	return to.Image(i.ID)
}

// CopyLayer brings a layer, and those that it is built on, from one store into another,
// as [Copy] does. Committed ones keep their names, but for the one that was asked for,
// which is called newName unless that is "". An active one stays active; it must not
// be mounted.
func CopyLayer(ctx context.Context, from, to *store.Store, name, newName string, o LoadOptions) (store.Layer, error) {
	l, err := newCopier(ctx, from, to, o)
	if err != nil {
		return store.Layer{}, err
	}
	defer l.close()
	if newName == "" {
		newName = name
	}
	made, err := l.layer(name, newName)
	if err != nil {
		err = fmt.Errorf("copy layer %s to %s: %w", name, to.Driver.Name(), err)
	}
	return made, err
}

// A copier is a loader whose archives are the layers of another store.
type copier struct {
	*loader
	from *store.Store
}

func newCopier(ctx context.Context, from, to *store.Store, o LoadOptions) (*copier, error) {
	o.fill()
	l, err := newLoader(ctx, to, o)
	return &copier{l, from}, err
}

// layer copies what a layer is built on, and the layer.
func (c *copier) layer(name, newName string) (store.Layer, error) {
	src, err := c.from.Layer(name)
	if err != nil {
		return src, err
	}
	parent := ""
	if src.Parent != "" {
		p, err := c.layer(src.Parent, src.Parent)
		if err != nil {
			return p, err
		}
		parent = p.Name
	}
	done, there, err := c.find(&src, newName)
	if there || err != nil {
		return done, err
	}
	switch src.Kind {
	case store.ImageKind:
		_, err = c.fill(parent, &blob{name: name, size: -1}, digest.Digest(src.Labels[LabelDiffID]), c.archive(&src))
		newName = name // it is made of what the layer holds
	case store.Committed:
		err = c.committed(&src, parent, newName)
	case store.Active:
		err = c.active(&src, parent, newName)
	}
	if err != nil {
		return src, fmt.Errorf("layer %s: %w", name, err)
	}
	return c.s.Layer(newName)
}

// find reports whether the layer is there already, and holds it then.
func (c *copier) find(src *store.Layer, name string) (store.Layer, bool, error) {
	there, err := c.s.Layer(name)
	if errors.Is(err, driver.ErrNotFound) || err == nil && there.Name != name {
		return there, false, nil
	}
	same := src.Kind == store.ImageKind && there.Kind == store.ImageKind ||
		src.Kind == store.Committed && there.Labels[LabelCopyOf] == c.origin(src)
	if err == nil && !same {
		err = fmt.Errorf("%s: %w, and it is another one; take it away, or give the copy a name of its own", name, driver.ErrExists)
	}
	if err == nil {
		err = c.s.Hold(c.lease.ID, name)
	}
	return there, err == nil, err
}

func (c *copier) origin(src *store.Layer) string { return c.from.Driver.Name() + "/" + src.ID }

func (c *copier) labels(src *store.Layer) map[string]string {
	labels := map[string]string{LabelCopyOf: c.origin(src)}
	for k, v := range src.Labels {
		if k != LabelCopyOf {
			labels[k] = v
		}
	}
	return labels
}

// archive opens what a layer changes, as an archive.
func (c *copier) archive(src *store.Layer) opener {
	return func() (io.ReadCloser, int64, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(Archive(c.ctx, c.from, src, w)) }()
		return r, 0, nil
	}
}

// committed copies a layer that was committed here.
func (c *copier) committed(src *store.Layer, parent, name string) error {
	made, err := c.s.Create(c.ctx, c.temporary(), parent, store.CreateOptions{Lease: c.lease.ID})
	if err != nil {
		return err
	}
	err = c.read(src, func(r io.Reader) error {
		_, err := c.s.Driver.Apply(c.ctx, made.ID, r, bounds(&c.o))
		return err
	})
	if err == nil {
		_, err = c.s.Commit(c.ctx, made.Name, name, store.Committed, c.labels(src))
	}
	if err != nil {
		return errors.Join(err, c.s.Remove(context.WithoutCancel(c.ctx), made.Name))
	}
	return c.s.Hold(c.lease.ID, name)
}

// active copies a layer that can be written to.
func (c *copier) active(src *store.Layer, parent, name string) error {
	at, err := c.from.Driver.Mounts(src.ID)
	if err != nil {
		return err
	}
	if len(at) > 0 {
		return fmt.Errorf("%w on %s; unmount it first: lamina layer umount %s", driver.ErrMounted, at[0], src.Name)
	}
	limits, err := c.from.Driver.Layer(src.ID)
	if err != nil {
		return err
	}
	made, err := c.s.Create(c.ctx, c.temporary(), parent, store.CreateOptions{
		CreateOptions: driver.CreateOptions{Size: limits.Size, Inodes: limits.Inodes}, Labels: c.labels(src), Lease: c.lease.ID,
	})
	if err != nil {
		return err
	}
	err = c.read(src, func(r io.Reader) error { return c.write(&made, r) })
	if err == nil {
		_, err = c.s.Rename(made.Name, name)
	}
	if err != nil {
		return errors.Join(err, c.s.Remove(context.WithoutCancel(c.ctx), made.Name))
	}
	return nil
}

// write carries an archive out on a layer that stays one to write to: by the driver, or
// through a mount.
func (c *copier) write(to *store.Layer, r io.Reader) (err error) {
	if w, ok := c.s.Driver.(driver.Writer); ok {
		_, err := w.Write(c.ctx, to.ID, r, bounds(&c.o))
		return err
	}
	path, err := c.s.Driver.Mount(c.ctx, to.ID, driver.MountOptions{})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, c.s.Driver.Unmount(context.WithoutCancel(c.ctx), to.ID, "", false))
	}()
	root, err := layer.OpenHost(path)
	if err != nil {
		return err
	}
	defer root.Close()
	_, err = tree.Apply(c.ctx, tree.Target{Root: root, Format: tree.Full}, r, bounds(&c.o))
	return err
}

// read calls f with the archive of a layer, all of which must be well.
func (c *copier) read(src *store.Layer, f func(io.Reader) error) error {
	r, _, err := c.archive(src)()
	if err != nil {
		return err
	}
	defer r.Close()
	err = f(&progress{r, 0, 0, src.Name, c.o.Progress})
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	return err
}
