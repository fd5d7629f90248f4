// Package vfs keeps each layer as a whole tree, copied from its parent: by sharing
// extents where the filesystem can (FICLONE), else byte by byte. It needs nothing
// of the kernel and is what other drivers are compared with.
//
//	ROOT/dir/ID          the tree
//	ROOT/work/ID         for views that the userspace engine serves
//	ROOT/mnt/ID          where such a view is mounted
//	ROOT/layers/ID.json  the record
//
// dir/ID is where Docker's driver of this name has it. With the native engine an
// active layer is used in place, without any mount. The userspace engine serves the tree as the
// upper of a union with nothing below, which gives limits, and owners to users
// who cannot give files away.
package vfs

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/layerdir"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/mountopt"
)

// Open opens the directory of a vfs driver; see [layerdir.Open].
func Open(cfg driver.Config) (driver.Driver, error) {
	d, err := layerdir.Open(kind{}, cfg)
	if err != nil {
		return nil, err
	}
	return d, nil
}

type kind struct{}

func (kind) Name() string { return "vfs" }

func (kind) Options() []driver.Option { return layerdir.LimitOptions() }

func (kind) Prepare(d *layerdir.Driver, options map[string]string) (obstacles []string, err error) {
	if err := d.MakeDirs("dir", "work", "mnt", "layers"); err != nil {
		return nil, err
	}
	if obstacles, err = d.TakeLimits(options); err != nil {
		return nil, err
	}
	if unix.Geteuid() != 0 {
		obstacles = append(obstacles, "bind mounts are for root and the root of user namespaces")
	}
	return obstacles, nil
}

func (kind) Capabilities(d *layerdir.Driver) driver.Capabilities {
	return driver.Capabilities{Size: d.Userspace(), Inodes: d.Userspace(), ArbitraryTargets: true}
}

func (kind) Parts(id string) []layerdir.Part {
	return []layerdir.Part{
		{Staged: "dir", Final: "dir/" + id},
		{Staged: "work", Final: "work/" + id},
		{Staged: "mnt", Final: "mnt/" + id},
		{Staged: "record", Final: "layers/" + id + ".json"},
	}
}

func (kind) Record(id string) string { return "layers/" + id + ".json" }

func (kind) Fill(ctx context.Context, d *layerdir.Driver, s *layerdir.Stage, _, parent *driver.Layer) error {
	if parent == nil {
		return d.Mkroot(s.Path("dir"), nil)
	}
	src, err := d.OpenDir(d.Of(parent.ID, "dir", parent.ID))
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := d.OpenDir(s.Path("dir"))
	if err != nil {
		return err
	}
	defer dst.Close()
	return tree.Copy(ctx, src, dst, tree.Data)
}

func (kind) BeginApply(_ context.Context, d *layerdir.Driver, l *driver.Layer) (layerdir.Content, error) {
	return layerdir.Content{Path: d.Path("dir", l.ID), Format: tree.Full}, nil
}

func (kind) EndApply(context.Context, *layerdir.Driver, *driver.Layer) error { return nil }
func (kind) Seal(context.Context, *layerdir.Driver, *driver.Layer) error     { return nil }

func (kind) Tidy(*layerdir.Driver, *driver.Layer) error { return nil }
func (kind) Sweep(*layerdir.Driver) ([]string, error)   { return nil, nil }

// tick is how far behind the clock the times may be that the kernel gives to
// inodes: they are those of its last timer interrupt.
const tick = 20 * time.Millisecond

func (kind) Stack(d *layerdir.Driver, l *driver.Layer) (layerdir.Stack, error) {
	s := layerdir.Stack{
		Top:     layerdir.Content{Path: d.Of(l.ID, "dir", l.ID), Format: tree.Full},
		Work:    d.Path("work", l.ID),
		Place:   d.Path("mnt", l.ID),
		Plain:   true,
		Compare: tree.CompareOptions{Since: l.Created.Add(-tick)},
	}
	if p := l.Parent(); p != "" {
		s.Old = []string{d.Of(p, "dir", p)}
	}
	return s, nil
}

func (kind) NativeLacks(o *mountopt.Options) []string { return o.KernelObstacles() }

func (kind) MountNative(_ *layerdir.Driver, s *layerdir.Stack, o *mountopt.Options, target string) error {
	return layerdir.BindMount(s.Top.Path, target, o.ReadOnly)
}

func (kind) Status(*layerdir.Driver) []driver.Field { return nil }
