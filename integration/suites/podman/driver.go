// Package podman makes a storage driver of lamina a graph driver of podman's storage
// library, go.podman.io/storage.
package podman

import (
	"fmt"
	"io"
	"os"

	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/pkg/directory"
	"go.podman.io/storage/pkg/idtools"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/integration/suites/graph"
)

// rootMode is what podman expects of a layer without a parent: /, as distributions
// have it.
const rootMode = os.FileMode(0o555)

// Register has the library know a driver by a name.
func Register(name string, open func(root string) (driver.Driver, error)) error {
	return graphdriver.Register(name, func(root string, _ graphdriver.Options) (graphdriver.Driver, error) {
		d, err := open(root)
		if err != nil {
			return nil, err
		}
		return &adapter{Graph: graph.New(d, rootMode)}, nil
	})
}

// An adapter translates types.
type adapter struct {
	// Nil. It has the methods whose types are internal to the library, so that nobody
	// else can write them: DeferredRemove, Dedup and the directories of the former. The
	// suite calls none.
	graphdriver.Driver
	Graph *graph.Driver
}

var _ graphdriver.Driver = (*adapter)(nil)

func (a *adapter) String() string { return a.Graph.Name() }

func (a *adapter) Create(id, parent string, o *graphdriver.CreateOpts) error {
	return a.Graph.Create(id, parent, storageOptions(o))
}

func (a *adapter) CreateReadWrite(id, parent string, o *graphdriver.CreateOpts) error {
	return a.Create(id, parent, o)
}

func (a *adapter) CreateFromTemplate(id, template string, _ *idtools.IDMappings, parent string, _ *idtools.IDMappings, o *graphdriver.CreateOpts, readWrite bool) error {
	return a.Graph.Copy(id, template, parent, storageOptions(o), readWrite)
}

func storageOptions(o *graphdriver.CreateOpts) map[string]string {
	if o == nil {
		return nil
	}
	return o.StorageOpt
}

func (a *adapter) Remove(id string) error { return a.Graph.Remove(id) }

func (a *adapter) Get(id string, o graphdriver.MountOpts) (string, error) {
	return a.Graph.Get(id, o.Options)
}

func (a *adapter) Put(id string) error { return a.Graph.Put(id) }

func (a *adapter) Exists(id string) bool { return a.Graph.Exists(id) }

func (a *adapter) ListLayers() ([]string, error) { return a.Graph.Layers() }

func (a *adapter) Status() [][2]string { return a.Graph.Status() }

func (a *adapter) Metadata(string) (map[string]string, error) { return map[string]string{}, nil }

func (a *adapter) ReadWriteDiskUsage(id string) (*directory.DiskUsage, error) {
	u, err := a.Graph.Usage(id)
	return &directory.DiskUsage{Size: u.Bytes, InodeCount: u.Inodes}, err
}

func (a *adapter) Cleanup() error { return a.Graph.Close() }

func (a *adapter) AdditionalImageStores() []string { return nil }

func (a *adapter) SyncMode() graphdriver.SyncMode { return graphdriver.SyncModeNone }

func (a *adapter) Diff(id string, _ *idtools.IDMappings, parent string, _ *idtools.IDMappings, _ string) (io.ReadCloser, error) {
	return a.Graph.Diff(id, parent)
}

func (a *adapter) DiffSize(id string, _ *idtools.IDMappings, parent string, _ *idtools.IDMappings, _ string) (int64, error) {
	return a.Graph.DiffSize(id, parent)
}

var kinds = map[tree.Kind]archive.ChangeType{tree.Added: archive.ChangeAdd, tree.Modified: archive.ChangeModify, tree.Deleted: archive.ChangeDelete}

func (a *adapter) Changes(id string, _ *idtools.IDMappings, parent string, _ *idtools.IDMappings, _ string) (list []archive.Change, err error) {
	changes, err := a.Graph.Changes(id, parent)
	for _, c := range changes {
		list = append(list, archive.Change{Path: c.Path, Kind: kinds[c.Kind]})
	}
	return list, err
}

func (a *adapter) ApplyDiff(id string, o graphdriver.ApplyDiffOpts) (int64, error) {
	return a.Graph.ApplyDiff(id, o.Diff)
}

func (a *adapter) UpdateLayerIDMap(id string, _, _ *idtools.IDMappings, _ string) error {
	return fmt.Errorf("map the owners of %s: %w", id, driver.ErrUnsupported)
}

func (a *adapter) SupportsShifting(_, _ []idtools.IDMap) bool { return false }
