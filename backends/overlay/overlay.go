// Package overlay keeps each image as a whole tree, in which the files that the
// parent has too are hard links to it, and shows a container as a union of one
// such tree and what was changed.
//
//	ROOT/ID/root        the tree of a committed layer
//	ROOT/ID/upper       what an active layer changes
//	ROOT/ID/work        for its union
//	ROOT/ID/merged      where it is mounted unless another place is given
//	ROOT/ID/lower-id    the parent
//	ROOT/ID/layer.json  the record
//
// The layout is that of Docker's driver of this name. A view never merges more than
// two directories, however deep the layer lies, and reading costs no lookups in
// vain. The price are names: each layer has a directory for each directory of the image and a
// name for each file, which Usage counts as Links.
//
// # Shared files
//
// Files of a committed tree are written to by nobody: a view has the tree as its
// lower, and what an archive changes is made anew ([tree.Apply]).
//
// # Commit
//
//	1 root.new  links to the parent's tree
//	2 root.new  with the changes carried out
//	3 root      by rename
//	4 the record says committed
//	5 upper and work are removed
//
// Crash before 4: the active layer, whose upper was only read; root is made anew.
// Behind it: the committed layer; the rest of 5 is swept.
package overlay

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/layerdir"
	"github.com/laminafs/lamina/backends/driver/overlayfs"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/mountopt"
)

// Open opens the directory of an overlay driver; see [layerdir.Open].
func Open(cfg driver.Config) (driver.Driver, error) {
	d, err := layerdir.Open(kind{}, cfg)
	if err != nil {
		return nil, err
	}
	return d, nil
}

type kind struct{}

func (kind) Name() string { return "overlay" }

func (kind) Options() []driver.Option {
	return append(layerdir.LimitOptions(),
		driver.Option{Name: "mountopt", Accepts: "mount options joined by commas", Help: "further options of each view"})
}

func (kind) Prepare(d *layerdir.Driver, options map[string]string) (obstacles []string, err error) {
	if o := options["mountopt"]; o != "" {
		d.MountOptions = []string{o}
	}
	if obstacles, err = d.TakeLimits(options); err != nil {
		return nil, err
	}
	more, err := d.TryNative(func(dir string) []string {
		return overlayfs.Obstacles(dir, d.OverlayFormat() == tree.OverlayUser)
	})
	return append(obstacles, more...), err
}

func (kind) Capabilities(d *layerdir.Driver) driver.Capabilities {
	return driver.Capabilities{Size: d.Userspace(), Inodes: d.Userspace(), Shares: true, ArbitraryTargets: true}
}

func (kind) Parts(id string) []layerdir.Part {
	return []layerdir.Part{{Staged: "layer", Final: id}}
}

func (kind) Record(id string) string { return id + "/layer.json" }

func (kind) Fill(_ context.Context, d *layerdir.Driver, s *layerdir.Stage, l, parent *driver.Layer) error {
	for _, dir := range []struct {
		name string
		mode os.FileMode
	}{{"upper", 0o755}, {"work", 0o700}, {"merged", 0o711}} {
		if err := os.Mkdir(s.Path("layer", dir.name), dir.mode); err != nil {
			return err
		}
	}
	if err := d.Mkroot(s.Path("layer", "upper"), parent); err != nil || parent == nil {
		return err
	}
	return os.WriteFile(s.Path("layer", "lower-id"), []byte(parent.ID), 0o644)
}

// BeginApply makes a tree like the parent's.
func (kind) BeginApply(ctx context.Context, d *layerdir.Driver, l *driver.Layer) (layerdir.Content, error) {
	content := layerdir.Content{Path: d.Path(l.ID, "root.new"), Format: tree.Full}
	if err := os.RemoveAll(content.Path); err != nil { // of a commit that crashed
		return content, err
	}
	if err := os.Mkdir(content.Path, 0o755); err != nil {
		return content, err
	}
	if l.Parent() == "" {
		return content, d.Mkroot(content.Path, nil)
	}
	from, err := d.OpenDir(d.Path(l.Parent(), "root"))
	if err != nil {
		return content, err
	}
	defer from.Close()
	to, err := d.OpenDir(content.Path)
	if err != nil {
		return content, err
	}
	defer to.Close()
	return content, tree.Copy(ctx, from, to, tree.Links)
}

func (kind) EndApply(_ context.Context, d *layerdir.Driver, l *driver.Layer) error {
	if err := os.RemoveAll(d.Path(l.ID, "root")); err != nil {
		return err
	}
	return os.Rename(d.Path(l.ID, "root.new"), d.Path(l.ID, "root"))
}

// Seal makes the tree of an active layer from its parent's and its changes.
func (k kind) Seal(ctx context.Context, d *layerdir.Driver, l *driver.Layer) error {
	if l.Filled {
		return nil
	}
	content, err := k.BeginApply(ctx, d, l)
	if err != nil {
		return err
	}
	root, err := d.OpenDir(content.Path)
	if err != nil {
		return err
	}
	defer root.Close()
	d.Step("carry out changes")
	r, w := io.Pipe()
	go func() { w.CloseWithError(d.Diff(ctx, l.ID, w)) }()
	_, err = tree.Apply(ctx, tree.Target{Root: root, Format: content.Format}, r, tree.ApplyOptions{})
	r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if err != nil {
		return err
	}
	d.Step("show tree")
	return k.EndApply(ctx, d, l)
}

// Tidy removes what only an active layer has.
func (kind) Tidy(d *layerdir.Driver, l *driver.Layer) error {
	return errors.Join(os.RemoveAll(d.Path(l.ID, "upper")), os.RemoveAll(d.Path(l.ID, "work")))
}

func (kind) Sweep(*layerdir.Driver) ([]string, error) { return nil, nil }

func (kind) Stack(d *layerdir.Driver, l *driver.Layer) (layerdir.Stack, error) {
	s := layerdir.Stack{Place: d.Path(l.ID, "merged")}
	var parent []string
	if p := l.Parent(); p != "" {
		parent = []string{d.Path(p, "root")}
	}
	if l.Committed || l.Filled {
		s.Top = layerdir.Content{Path: d.Path(l.ID, "root"), Format: tree.Full}
		s.Old = parent
		s.Compare.SharedInodes = true
		return s, nil
	}
	s.Top = layerdir.Content{Path: d.Path(l.ID, "upper"), Format: d.OverlayFormat()}
	s.Lowers, s.Work = parent, d.Path(l.ID, "work")
	return s, nil
}

func (kind) NativeLacks(o *mountopt.Options) []string { return o.KernelObstacles() }

func (kind) MountNative(_ *layerdir.Driver, _ *layerdir.Stack, o *mountopt.Options, target string) error {
	return overlayfs.Mount(o, target)
}

func (kind) Status(*layerdir.Driver) []driver.Field {
	return []driver.Field{{Name: "Supports d_type", Value: "true"}}
}
