// Package blocks shows the volumes of a pool to those who serve block devices:
// backends/serve, which makes files of them, and backends/nbd.
//
//	blockpool.Pool ──> Volumes ──> serve.MountVolumes
//	               └─> Named   ──> nbd.Server
//
// A [blockpool.Volume] has the methods of a serve.Block and an nbd.Block itself;
// here are only the names, and who has what open. The two sides know nothing of
// each other, so this is the one place where a pool is adapted to either.
package blocks

import (
	"context"
	"fmt"
	"io/fs"
	"sync/atomic"

	"github.com/laminafs/lamina/backends/nbd"
	"github.com/laminafs/lamina/backends/serve"
	"github.com/laminafs/lamina/blockpool"
)

var (
	_ serve.Block         = (*blockpool.Volume)(nil)
	_ serve.ReadOnlyBlock = (*blockpool.Volume)(nil)
	_ serve.Allocator     = (*blockpool.Volume)(nil)
	_ serve.WatchedBlock  = (*blockpool.Volume)(nil)
	_ nbd.Block           = (*blockpool.Volume)(nil)
	_ nbd.ReadOnlyBlock   = (*blockpool.Volume)(nil)
	_ nbd.RecordBlock     = (*blockpool.Volume)(nil)
	_ nbd.AllocatedBlock  = (*blockpool.Volume)(nil)
	_ serve.Volumes       = Volumes{}
	_ serve.Capacity      = Volumes{}
	_ nbd.Exports         = (*Named)(nil)
)

// Volumes are all volumes and snapshots of a pool, as files.
type Volumes struct{ Pool *blockpool.Pool }

// List implements [serve.Volumes]. A volume that is being received is left out:
// nobody may open it.
func (v Volumes) List() ([]serve.VolumeInfo, error) {
	var list []serve.VolumeInfo
	for _, i := range v.Pool.Volumes() {
		if !i.Receiving && !i.IsDataset() {
			list = append(list, infoOf(i))
		}
	}
	return list, nil
}

// Stat implements [serve.Volumes].
func (v Volumes) Stat(name string) (serve.VolumeInfo, error) {
	i, err := v.Pool.Volume(name)
	switch {
	case err != nil:
	case i.Receiving:
		err = fmt.Errorf("%s is being received: %w", name, blockpool.ErrNotFound)
	case i.IsDataset():
		err = fmt.Errorf("%s is a dataset: %w", name, blockpool.ErrNotFound)
	}
	return infoOf(i), err
}

// Open implements [serve.Volumes].
func (v Volumes) Open(name string) (serve.Block, error) { return v.Pool.Open(name) }

// Capacity implements [serve.Capacity].
func (v Volumes) Capacity() (total, free int64, err error) {
	room := v.Pool.Status().Usable
	return room.Size, room.Free, nil
}

func infoOf(i blockpool.VolumeInfo) serve.VolumeInfo {
	return serve.VolumeInfo{
		ID: i.ID, Name: i.Name, Size: i.Size, Used: i.Referenced,
		ReadOnly: i.Kind == blockpool.KindSnapshot.String(), Created: i.Created, BlockSize: i.RecordSize,
	}
}

// Named are volumes of a pool as NBD exports: all of them by name, or one, which
// clients also get who ask for no name.
type Named struct {
	Pool *blockpool.Pool
	Only string // the one volume; empty: all

	clients atomic.Int64
}

// Open implements [nbd.Exports].
func (n *Named) Open(_ context.Context, name string) (nbd.Block, func(), error) {
	if n.Only != "" {
		if name == "" {
			name = n.Only
		}
		if name != n.Only {
			return nil, nil, fs.ErrNotExist
		}
	}
	v, err := n.Pool.Open(name)
	if err != nil {
		return nil, nil, err
	}
	n.clients.Add(1)
	return v, func() {
		n.clients.Add(-1)
		v.Close() // fails only for who closes twice
	}, nil
}

// List implements [nbd.Exports].
func (n *Named) List(context.Context) ([]string, error) {
	if n.Only != "" {
		return []string{n.Only}, nil
	}
	var names []string
	for _, i := range n.Pool.Volumes() {
		if !i.Receiving && !i.IsDataset() {
			names = append(names, i.Name)
		}
	}
	return names, nil
}

// Clients returns how many connections have a volume open.
func (n *Named) Clients() int { return int(n.clients.Load()) }
