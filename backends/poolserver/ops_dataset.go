package poolserver

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
)

// Datasets have the names that the pool has for them, without the pool's own: "" is
// the pool, whose properties all of them inherit.

// A Dataset is a dataset, volume or snapshot, or the pool, with properties of it.
type Dataset struct {
	Name       string               `json:"name"`
	Properties []blockpool.Property `json:"properties"`
}

// GetDatasets are the arguments of [DatasetGet].
type GetDatasets struct {
	Names []string `json:"names,omitempty"` // none: the pool and all below it
	// Depth is how far below the names: 0 is not at all, -1 is all the way.
	Depth      int      `json:"depth,omitempty"`
	Types      []string `json:"types,omitempty"`      // none: all; those that are named are there whatever they are
	Properties []string `json:"properties,omitempty"` // none: all that each has
}

// DatasetGet returns properties of datasets, volumes and snapshots, by name.
var DatasetGet = Op[GetDatasets, []Dataset]{name: "dataset.get", run: func(c *call, a GetDatasets) ([]Dataset, error) {
	named := a.Names
	if len(named) == 0 {
		named, a.Depth = []string{""}, -1
	}
	list := []Dataset{}
	seen := map[string]bool{}
	add := func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		d, err := c.dataset(name, a.Properties...)
		list = append(list, d)
		return err
	}
	for _, name := range named {
		ofType := func(name string) (bool, error) {
			if len(a.Types) == 0 || len(a.Names) > 0 && slices.Contains(a.Names, name) && a.Depth == 0 {
				return true, nil
			}
			p, err := c.pool.Properties(c.ctx, name, "type")
			return err == nil && slices.Contains(a.Types, p[0].Value), err
		}
		names := []string{name}
		if a.Depth != 0 {
			below, err := c.pool.Children(name, a.Depth)
			if err != nil {
				return nil, err
			}
			names = append(names, below...)
		}
		for _, n := range names {
			ok, err := ofType(n)
			if err == nil && ok {
				err = add(n)
			}
			if err != nil && (n == name || c.exists(n)) { // what is destroyed meanwhile is no failure
				return nil, err
			}
		}
	}
	return list, nil
}}

func (c *call) exists(name string) bool {
	_, err := c.pool.Volume(name)
	return err == nil
}

// dataset returns properties of one.
func (c *call) dataset(name string, properties ...string) (Dataset, error) {
	list, err := c.pool.Properties(c.ctx, name, properties...)
	if err != nil {
		return Dataset{}, err
	}
	for i := range list {
		if p := &list[i]; p.Name == "mounted" && isFilesystem(c.pool, name) {
			p.Value = "no"
			if c.server.mountOf(name) != nil {
				p.Value = "yes"
			}
		}
	}
	return Dataset{Name: name, Properties: list}, nil
}

// isFilesystem reports whether a name is that of a dataset.
func isFilesystem(p *blockpool.Pool, name string) bool {
	v, err := p.Volume(name)
	return err == nil && v.IsDataset() && v.Kind == blockpool.KindVolume.String()
}

// CreateDataset are the arguments of [DatasetCreate].
type CreateDataset struct {
	Name       string            `json:"name"`
	Properties map[string]string `json:"properties,omitempty"`
	Parents    bool              `json:"parents,omitempty"` // make those above it too, and be content when it is there
	// Root is whose the root directory is to be; nil: the user's who runs the server.
	Root *RootOwner `json:"root,omitempty"`
}

// A RootOwner is the owner of a root directory.
type RootOwner struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// DatasetCreate makes a dataset, whose root directory belongs to the user of the
// server.
var DatasetCreate = Op[CreateDataset, Dataset]{name: "dataset.create", run: func(c *call, a CreateDataset) (Dataset, error) {
	owner := RootOwner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if a.Root != nil {
		owner = *a.Root
	}
	err := c.createOwned(a.Name, a.Properties, a.Parents, owner)
	if err != nil {
		return Dataset{}, err
	}
	return c.dataset(a.Name)
}}

// createDataset makes a dataset whose root directory is the server's user's.
func (c *call) createDataset(name string, properties map[string]string, parents bool) error {
	return c.createOwned(name, properties, parents, RootOwner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
}

// createOwned makes a dataset and its root directory.
//
// Crash between the two: a dataset that has nothing; the root is made when it is
// mounted.
func (c *call) createOwned(name string, properties map[string]string, parents bool, owner RootOwner) error {
	err := c.pool.CreateFilesystem(c.ctx, name, blockpool.FilesystemOptions{Properties: properties, Parents: parents})
	if err != nil {
		return err
	}
	t, err := c.pool.OpenTree(name)
	if err != nil {
		return err
	}
	defer t.Close() // nothing is left to be written
	root := dataset.Root{Mode: 0o755, UID: owner.UID, GID: owner.GID}
	err = dataset.Format(c.ctx, dataset.PoolTree(t), root)
	if errors.Is(err, unix.ENOTEMPTY) {
		return nil // it was there already
	}
	return err
}

// SnapshotDatasets are the arguments of [DatasetSnapshot].
type SnapshotDatasets struct {
	Names      []string          `json:"names"`               // DATASET@NAME
	Recursive  bool              `json:"recursive,omitempty"` // and of all below
	Properties map[string]string `json:"properties,omitempty"`
}

// DatasetSnapshot makes snapshots, all of one moment or none, and returns their names.
var DatasetSnapshot = Op[SnapshotDatasets, []string]{name: "dataset.snapshot", run: func(c *call, a SnapshotDatasets) ([]string, error) {
	for _, name := range a.Names {
		if err := c.server.datasets.Flush(name, a.Recursive); err != nil {
			return nil, err
		}
	}
	made, err := c.pool.SnapshotAll(c.ctx, a.Names, a.Recursive, a.Properties)
	c.snapshotsChanged(made)
	return made, err
}}

// snapshotsChanged has mounts show which snapshots there are.
func (c *call) snapshotsChanged(names []string) {
	for _, name := range names {
		if strings.Contains(name, "@") {
			c.server.datasets.SnapshotsChanged(name)
		}
	}
}

// CloneDataset are the arguments of [DatasetClone].
type CloneDataset struct {
	From       string            `json:"from"`
	To         string            `json:"to"`
	Properties map[string]string `json:"properties,omitempty"`
	Parents    bool              `json:"parents,omitempty"` // make those above it too
	Brief      bool              `json:"brief,omitempty"`   // answer with the name alone
}

// DatasetClone makes the dataset To of the dataset or snapshot From.
var DatasetClone = Op[CloneDataset, Dataset]{name: "dataset.clone", run: func(c *call, a CloneDataset) (Dataset, error) {
	if !strings.Contains(a.From, "@") {
		if err := c.server.datasets.Flush(a.From, false); err != nil {
			return Dataset{}, err
		}
	}
	err := c.pool.CloneFilesystem(c.ctx, a.From, a.To, blockpool.FilesystemOptions{Properties: a.Properties, Parents: a.Parents})
	if err != nil {
		return Dataset{}, err
	}
	if a.Brief {
		return Dataset{Name: a.To}, nil
	}
	return c.dataset(a.To)
}}

// RollbackDataset are the arguments of [DatasetRollback].
type RollbackDataset struct {
	Snapshot     string `json:"snapshot"`
	DestroyNewer bool   `json:"destroy_newer,omitempty"` // snapshots that were made since
}

// DatasetRollback makes a dataset what its snapshot is and returns the names of newer
// snapshots that it has destroyed. A mounted one is taken away meanwhile and mounted
// again.
var DatasetRollback = Op[RollbackDataset, []string]{name: "dataset.rollback", run: func(c *call, a RollbackDataset) (gone []string, err error) {
	name, _, _ := strings.Cut(a.Snapshot, "@")
	if !c.exists(a.Snapshot) {
		return nil, fmt.Errorf("roll back to %s: %w", a.Snapshot, blockpool.ErrNotFound)
	}
	err = c.server.offline(name, func() error {
		gone, err = c.pool.RollbackFilesystem(c.ctx, a.Snapshot, a.DestroyNewer)
		return err
	})
	return append([]string{}, gone...), err
}}

// DestroyDatasets are the arguments of [DatasetDestroy].
type DestroyDatasets struct {
	Names     []string `json:"names"`
	Recursive bool     `json:"recursive,omitempty"` // and all below them, snapshots included
	DryRun    bool     `json:"dry_run,omitempty"`   // only tell
	Force     bool     `json:"force,omitempty"`     // also what is mounted and in use
	Untold    bool     `json:"untold,omitempty"`    // do not measure first what comes back
}

// Destroyed is what [DatasetDestroy] has done, or would do.
type Destroyed struct {
	Names []string        `json:"names"`
	Freed blockpool.Freed `json:"freed"` // comes back in the background
}

// DatasetDestroy removes datasets, volumes and snapshots, in one step. What is mounted
// is unmounted first.
var DatasetDestroy = Op[DestroyDatasets, Destroyed]{name: "dataset.destroy", run: func(c *call, a DestroyDatasets) (d Destroyed, err error) {
	for _, name := range a.Names {
		names, err := c.pool.Dependents(name, true)
		if err != nil {
			return d, err
		}
		if !a.Recursive {
			names = []string{name}
		}
		d.Names = append(d.Names, names...)
	}
	slices.Sort(d.Names)
	d.Names = slices.Compact(d.Names)
	if err := c.mayDestroy(a.Names, d.Names); err != nil {
		return Destroyed{}, err
	}
	if !a.Untold {
		d.Freed, err = c.pool.UsageOf(c.ctx, d.Names...)
	}
	if err != nil || a.DryRun {
		return d, err
	}
	// The innermost mount first.
	for _, name := range slices.Backward(d.Names) {
		mounts := c.server.mountsOf(name)
		for _, e := range mounts {
			if err := e.unmount(a.Force); err != nil {
				return Destroyed{}, fmt.Errorf("destroy %s: %w", name, err)
			}
		}
		if len(mounts) > 0 {
			continue
		}
		if err := c.server.datasets.LetGo(name); err != nil {
			return Destroyed{}, fmt.Errorf("destroy %w", err)
		}
	}
	_, err = c.pool.DestroyAll(c.ctx, a.Names, a.Recursive)
	c.snapshotsChanged(d.Names)
	return d, err
}}

// mayDestroy refuses what DestroyAll would, before anything is unmounted.
func (c *call) mayDestroy(names, doomed []string) error {
	for _, name := range names {
		all, err := c.pool.Dependents(name, true)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(all, func(n string) bool { return !slices.Contains(doomed, n) }) {
			_, err := c.pool.Dependents(name, false)
			return fmt.Errorf("%w; with -r they go too, lamina dataset destroy -nv tells what", err)
		}
	}
	return nil
}

// RenameDataset are the arguments of [DatasetRename].
type RenameDataset struct {
	From      string `json:"from"`
	To        string `json:"to"`
	Parents   bool   `json:"parents,omitempty"`   // make those above the new name
	Recursive bool   `json:"recursive,omitempty"` // snapshots of all below, too
}

// DatasetRename gives a dataset another name, and all below it; or a snapshot.
var DatasetRename = Op[RenameDataset, None]{name: "dataset.rename", run: func(c *call, a RenameDataset) (None, error) {
	defer func() {
		for _, m := range c.server.datasets.All() {
			m.SnapshotsChanged()
		}
	}()
	if a.Recursive {
		return None{}, c.pool.RenameSnapshots(c.ctx, a.From, a.To)
	}
	if i := strings.LastIndexByte(a.To, '/'); a.Parents && i >= 0 && !strings.Contains(a.To, "@") {
		if err := c.createDataset(a.To[:i], nil, true); err != nil {
			return None{}, err
		}
	}
	if err := c.pool.Rename(c.ctx, a.From, a.To); err != nil {
		return None{}, err
	}
	return None{}, c.server.reconfigureMounts() // it may inherit from others now
}}

// SetDatasets are the arguments of [DatasetSet].
type SetDatasets struct {
	Names      []string          `json:"names"`
	Properties map[string]string `json:"properties"`
}

// DatasetSet gives properties of datasets other values. What is mounted does at once
// what they say.
var DatasetSet = Op[SetDatasets, None]{name: "dataset.set", run: func(c *call, a SetDatasets) (None, error) {
	for _, name := range a.Names {
		if err := c.pool.SetProperties(c.ctx, name, a.Properties); err != nil {
			return None{}, errors.Join(err, c.server.reconfigureMounts())
		}
	}
	return None{}, c.server.reconfigureMounts()
}}

// InheritDatasets are the arguments of [DatasetInherit].
type InheritDatasets struct {
	Names     []string `json:"names"`
	Property  string   `json:"property"`
	Recursive bool     `json:"recursive,omitempty"`
}

// DatasetInherit takes values of a property away, so that those above count.
var DatasetInherit = Op[InheritDatasets, None]{name: "dataset.inherit", run: func(c *call, a InheritDatasets) (None, error) {
	for _, name := range a.Names {
		if err := c.pool.InheritProperty(c.ctx, name, a.Property, a.Recursive); err != nil {
			return None{}, errors.Join(err, c.server.reconfigureMounts())
		}
	}
	return None{}, c.server.reconfigureMounts()
}}
