package datasets

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
)

// tree is an open tree of a pool as a dataset.FS takes it, with what else to give
// back when it is closed.
type tree struct {
	dataset.Differ
	release func() // may be nil
	// property returns a property of a nested subvolume; nil: it is none.
	property func(name string) string
}

var (
	_ dataset.Tree    = (*tree)(nil)
	_ dataset.Limited = (*tree)(nil)
)

func newTree(t *blockpool.Tree) *tree { return &tree{Differ: dataset.PoolTree(t)} }

func (t *tree) ShareRecords(ctx context.Context, b *blockpool.Batch, from dataset.Tree, s blockpool.Share) error {
	if src, ok := from.(*tree); ok {
		from = src.Differ
	}
	return t.Differ.ShareRecords(ctx, b, from, s)
}

// ReadOnly reports whether nothing can be changed.
func (t *tree) ReadOnly() bool {
	return t.Differ.ReadOnly() || t.property != nil && t.property("readonly") == "on"
}

// MaxInodes bounds the objects of a nested subvolume.
func (t *tree) MaxInodes() (limit uint64) {
	if t.property != nil {
		limit, _ = strconv.ParseUint(t.property("inodes"), 10, 64) // the pool has made it
	}
	return limit
}

// format makes an empty filesystem in a tree that has none. Its root belongs to
// whoever serves: an ordinary user could make nothing in another one.
func (t *tree) format() error {
	if t.ReadOnly() || t.Objects() > 0 {
		return nil
	}
	root := dataset.Root{Mode: 0o755, UID: uint32(unix.Geteuid()), GID: uint32(unix.Getegid())}
	err := dataset.Format(context.Background(), t, root)
	if errors.Is(err, unix.ENOTEMPTY) {
		return nil // it has one
	}
	return err
}

// Close gives the tree back.
func (t *tree) Close() error {
	err := t.Differ.Close()
	if t.release != nil {
		t.release()
	}
	return err
}

// views leads from a mounted dataset to its snapshots and nested subvolumes.
type views struct {
	mounts *Mounts
	mount  *Mount
	name   func() string // of the dataset as it is now
}

var _ dataset.Views = (*views)(nil)

func isSnapshot(name string) bool { return strings.Contains(name, "@") }

// datasetOf returns a name without that of a snapshot.
func datasetOf(name string) string {
	name, _, _ = strings.Cut(name, "@")
	return name
}

// snapshotOf returns the name of a snapshot without that of its dataset; what is no
// snapshot has none.
func snapshotOf(name string) string {
	_, name, _ = strings.Cut(name, "@")
	return name
}

func (v *views) Snapshots() ([]dataset.Snapshot, error) {
	prefix := datasetOf(v.name()) + "@"
	var list []dataset.Snapshot
	for _, i := range v.mounts.pool.Volumes() {
		if snap, ok := strings.CutPrefix(i.Name, prefix); ok && !i.Receiving {
			list = append(list, dataset.Snapshot{Name: snap, ID: i.ID})
		}
	}
	return list, nil
}

func (v *views) OpenSnapshot(name string) (dataset.Tree, error) {
	t, err := v.mounts.pool.OpenTree(datasetOf(v.name()) + "@" + name)
	if err != nil {
		return nil, err
	}
	return newTree(t), nil
}

// enter opens a nested subvolume.
func (s *Mounts) enter(name string, m *Mount) (*tree, error) {
	t, err := s.open(name, m)
	if err != nil {
		return nil, err
	}
	t.property = func(property string) string {
		p, err := s.pool.Properties(context.Background(), t.Name(), property)
		if err != nil {
			return "" // it is being destroyed
		}
		return p[0].Value
	}
	return t, nil
}

func (v *views) OpenTree(in dataset.Tree, id uint64) (dataset.Tree, error) {
	below := in.Name() + "/" // nothing is below a snapshot, whose name has an @
	for _, i := range v.mounts.pool.Volumes() {
		if i.ID == id && strings.HasPrefix(i.Name, below) && !isSnapshot(i.Name) {
			return v.mounts.enter(i.Name, v.mount)
		}
	}
	return nil, fmt.Errorf("subvolume %d of %s: %w", id, v.name(), unix.ENOENT)
}
