package layerdir

import (
	"context"
	"io"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/override"
	"github.com/laminafs/lamina/fs/mountopt"
)

// View opens the content of a layer.
func (d *Driver) View(id string) (*tree.View, error) {
	l, err := d.record(id)
	if err != nil {
		return nil, d.fail("read", id, err, "")
	}
	s, err := d.kind.Stack(d, l)
	if err != nil {
		return nil, d.fail("read", id, err, "")
	}
	v, err := d.view(append([]string{s.Top.Path}, s.Lowers...))
	return v, d.fail("read", id, err, "")
}

// Stack implements [driver.Stacker].
func (d *Driver) Stack(id string) (o mountopt.Options, whole bool, err error) {
	l, err := d.record(id)
	if err != nil {
		return o, false, d.fail("read", id, err, "")
	}
	s, err := d.kind.Stack(d, l)
	if err != nil || len(s.Lowers) != len(l.Parents) {
		return o, false, d.fail("read", id, err, "")
	}
	o, err = d.unionOptions(l, &s, true, nil)
	o.Lower = append([]string{s.Top.Path}, s.Lowers...)
	return o, true, d.fail("read", id, err, "")
}

// view merges directories, the top first.
func (d *Driver) view(dirs []string) (*tree.View, error) {
	var branches []tree.Branch
	for _, path := range dirs {
		dir, err := layer.OpenHost(path)
		if err != nil {
			for _, b := range branches {
				b.Root.Close()
			}
			return nil, err
		}
		if d.OwnersInXattrs() {
			dir = override.Wrap(dir, d.owners(path))
		}
		branches = append(branches, tree.Branch{Name: path, Root: dir})
	}
	return tree.NewView(branches)
}

// Changes compares a layer with its parent.
func (d *Driver) Changes(ctx context.Context, id string, f func(tree.Change) error) error {
	err := d.compare(id, func(old, new *tree.View, o tree.CompareOptions) error {
		return tree.Compare(ctx, old, new, o, f)
	})
	return d.fail("compare", id, err, "")
}

// Diff writes the same as an archive.
func (d *Driver) Diff(ctx context.Context, id string, w io.Writer) error {
	err := d.compare(id, func(old, new *tree.View, o tree.CompareOptions) error {
		return tree.Write(ctx, w, old, new, o)
	})
	return d.fail("diff", id, err, "")
}

func (d *Driver) compare(id string, use func(old, new *tree.View, o tree.CompareOptions) error) error {
	l, err := d.record(id)
	if err != nil {
		return err
	}
	s, err := d.kind.Stack(d, l)
	if err != nil {
		return err
	}
	new, err := d.view(append([]string{s.Top.Path}, s.Lowers...))
	if err != nil {
		return err
	}
	defer new.Close()
	if l.Parent() == "" {
		return use(nil, new, s.Compare)
	}
	below := s.Lowers
	if len(s.Old) > 0 {
		below = s.Old
	}
	old, err := d.view(below)
	if err != nil {
		return err
	}
	defer old.Close()
	if s.Top.Format != tree.Full {
		if s.Compare.Upper, err = layer.OpenHost(s.Top.Path); err != nil {
			return err
		}
		defer s.Compare.Upper.Close()
	}
	return use(old, new, s.Compare)
}

// Usage counts the layer's own directory.
func (d *Driver) Usage(ctx context.Context, id string) (driver.Usage, error) {
	l, err := d.record(id)
	if err != nil {
		return driver.Usage{}, d.fail("measure", id, err, "")
	}
	s, err := d.kind.Stack(d, l)
	if err != nil {
		return driver.Usage{}, d.fail("measure", id, err, "")
	}
	root, err := layer.OpenHost(s.Top.Path)
	if err != nil {
		return driver.Usage{}, d.fail("measure", id, err, "")
	}
	defer root.Close()
	var u driver.Usage
	u.Bytes, u.Inodes, u.Links, err = tree.Usage(ctx, root)
	return u, d.fail("measure", id, err, "")
}

// Mkroot makes the directory that holds the content of a new layer, with the
// attributes of its parent's.
func (d *Driver) Mkroot(path string, parent *driver.Layer) error {
	root, err := d.OpenDir(path)
	if err != nil {
		return err
	}
	defer root.Close()
	if parent == nil {
		if err := root.Chown(0, 0); err != nil {
			return err
		}
		return root.Chmod(0o755)
	}
	s, err := d.kind.Stack(d, parent)
	if err != nil {
		return err
	}
	from, err := d.OpenDir(s.Top.Path)
	if err != nil {
		return err
	}
	defer from.Close()
	return tree.CopyRoot(from, root)
}
