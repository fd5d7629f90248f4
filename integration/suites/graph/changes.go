package graph

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"path"

	"github.com/laminafs/lamina/backends/tree"
)

// A Change is a path, with a leading slash, and what became of it.
type Change struct {
	Path string
	Kind tree.Kind
}

// Changes tells in what a layer differs from another, or from nothing.
func (d *Driver) Changes(id, from string) (list []Change, err error) {
	known := map[string]bool{"/": true}
	err = d.compare(id, from, func(c tree.Change) error {
		p := path.Join("/", c.Path)
		var way []Change
		for dir := path.Dir(p); !known[dir]; dir = path.Dir(dir) {
			known[dir] = true
			way = append(way, Change{dir, tree.Modified})
		}
		list = append(list, way...)
		if p != "/" { // no graph driver tells of its root
			known[p] = true
			list = append(list, Change{p, c.Kind})
		}
		return nil
	})
	return list, err
}

// compare asks the driver when the other layer is the parent, which it knows best.
func (d *Driver) compare(id, from string, f func(tree.Change) error) error {
	ctx := context.Background()
	l, err := d.lamina.Layer(id)
	if err != nil {
		return err
	}
	if from == l.Parent() {
		return d.lamina.Changes(ctx, id, f)
	}
	old, now, err := d.views(from, id)
	if err != nil {
		return err
	}
	return errors.Join(tree.Compare(ctx, old, now, tree.CompareOptions{}, f), closeViews(old, now))
}

// Diff returns the same as a layer archive.
func (d *Driver) Diff(id, from string) (io.ReadCloser, error) {
	l, err := d.lamina.Layer(id)
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(d.write(w, id, from, from == l.Parent())) }()
	return r, nil
}

func (d *Driver) write(w io.Writer, id, from string, parent bool) error {
	ctx := context.Background()
	if parent {
		return d.lamina.Diff(ctx, id, w)
	}
	old, now, err := d.views(from, id)
	if err != nil {
		return err
	}
	return errors.Join(tree.Write(ctx, w, old, now, tree.CompareOptions{}), closeViews(old, now))
}

// DiffSize returns the bytes of the files of such an archive.
func (d *Driver) DiffSize(id, from string) (size int64, err error) {
	diff, err := d.Diff(id, from)
	if err != nil {
		return 0, err
	}
	defer diff.Close()
	for r := tar.NewReader(diff); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return 0, err
		}
		size += h.Size
	}
}

// views opens two layers; the first may be "", for nothing.
func (d *Driver) views(from, id string) (old, now *tree.View, err error) {
	if from != "" {
		if old, err = d.lamina.View(from); err != nil {
			return nil, nil, err
		}
	}
	if now, err = d.lamina.View(id); err != nil {
		return nil, nil, errors.Join(err, closeViews(old, nil))
	}
	return old, now, nil
}

func closeViews(views ...*tree.View) (err error) {
	for _, v := range views {
		if v != nil {
			err = errors.Join(err, v.Close())
		}
	}
	return err
}
