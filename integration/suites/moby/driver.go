// Package moby makes a storage driver of lamina a graph driver of Docker's daemon.
package moby

import (
	"io"

	"github.com/moby/go-archive"
	"github.com/moby/moby/v2/daemon/graphdriver"
	"github.com/moby/sys/user"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/integration/suites/graph"
)

// Register has the daemon know a driver by a name.
func Register(name string, open func(root string) (driver.Driver, error)) error {
	return graphdriver.Register(name, func(root string, _ []string, _ user.IdentityMapping) (graphdriver.Driver, error) {
		d, err := open(root)
		if err != nil {
			return nil, err
		}
		return &adapter{graph.New(d, 0)}, nil
	})
}

// An adapter translates types.
type adapter struct{ graph *graph.Driver }

var _ graphdriver.Driver = (*adapter)(nil)

func (a *adapter) String() string { return a.graph.Name() }

func (a *adapter) Create(id, parent string, o *graphdriver.CreateOpts) error {
	if o == nil {
		o = &graphdriver.CreateOpts{}
	}
	return a.graph.Create(id, parent, o.StorageOpt)
}

func (a *adapter) CreateReadWrite(id, parent string, o *graphdriver.CreateOpts) error {
	return a.Create(id, parent, o)
}

func (a *adapter) Remove(id string) error { return a.graph.Remove(id) }

func (a *adapter) Get(id, _ string) (string, error) { return a.graph.Get(id, nil) }

func (a *adapter) Put(id string) error { return a.graph.Put(id) }

func (a *adapter) Exists(id string) bool { return a.graph.Exists(id) }

func (a *adapter) Status() [][2]string { return a.graph.Status() }

func (a *adapter) GetMetadata(string) (map[string]string, error) { return map[string]string{}, nil }

func (a *adapter) Cleanup() error { return a.graph.Close() }

func (a *adapter) Diff(id, parent string) (io.ReadCloser, error) { return a.graph.Diff(id, parent) }

func (a *adapter) DiffSize(id, parent string) (int64, error) { return a.graph.DiffSize(id, parent) }

var kinds = map[tree.Kind]archive.ChangeType{tree.Added: archive.ChangeAdd, tree.Modified: archive.ChangeModify, tree.Deleted: archive.ChangeDelete}

func (a *adapter) Changes(id, parent string) (list []archive.Change, err error) {
	changes, err := a.graph.Changes(id, parent)
	for _, c := range changes {
		list = append(list, archive.Change{Path: c.Path, Kind: kinds[c.Kind]})
	}
	return list, err
}

func (a *adapter) ApplyDiff(id, _ string, diff io.Reader) (int64, error) {
	return a.graph.ApplyDiff(id, diff)
}
