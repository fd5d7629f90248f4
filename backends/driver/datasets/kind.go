package datasets

import (
	"context"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

// A Kind is one driver.
type Kind struct {
	Name string // of the driver: btrfs, zfs, …
	// Pool is the directory of a pool that is there; "": ROOT/pool, made if need be.
	Pool string
	// Spec says what ROOT/pool is made of.
	Spec PoolSpec
	// Below is the dataset under which the layers lie; it is made if need be.
	Below string
	// Properties of Below, which layers inherit: compression, recordsize, …
	Properties map[string]string

	// SizeProperty is what bounds the bytes of a layer: refquota, which counts what
	// it has of its parents, or quota, which does not.
	SizeProperty string
	Size, Inodes int64 // limits of layers that have none of their own; 0: none
	MinSize      int64 // the least that can be asked for; 0: no such bound

	MountOptions []string // of every view
	// Status returns the kind's lines of the status; nil for none.
	Status func(ctx context.Context, d *Driver) ([]driver.Field, error)
}

// A PoolSpec says what a new pool is made of.
type PoolSpec struct {
	Config blockpool.Config // without a name
	// Devices are files or block devices that are there. Those that the pool has not
	// when the driver is opened are added to it. None: sparse files in the pool's
	// directory, as many as the profile needs, of Size bytes each.
	Devices []string
	// Size of a file, 0: [DefaultSize], or as much as the filesystem has free if that
	// is less.
	Size int64
}

// DefaultSize is how large the sparse file of a new pool says to be. It takes what is
// written; lamina pool grow and lamina pool add make a pool larger.
const DefaultSize = 100 << 30

// leastSize is the smallest file that a pool is made of when little is free.
const leastSize = 256 << 20

// PoolOptions are those that all kinds have in common.
func PoolOptions() []driver.Option {
	return []driver.Option{
		{Name: "poolsize", Accepts: "bytes, with k, m, g or t", Help: "how large each file of a new pool is, sparse; 100G, or what is free if that is less"},
		{Name: "devices", Accepts: "paths joined by commas", Help: "files and block devices that the pool is made of, in place of a file in its directory; those that it has not yet are added, also while it is in use"},
		{Name: "inodes", Accepts: "a number, with k or m", Help: "how many files each layer may add; only the userspace engine has it"},
	}
}

// place returns where the pool is.
func (d *Driver) place() poolserver.Place {
	if d.kind.Pool != "" {
		return poolserver.Place{Dir: d.kind.Pool}
	}
	return poolserver.Place{Dir: d.path("pool")}
}
