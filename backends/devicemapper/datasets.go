package devicemapper

import (
	"context"
	"fmt"
	"strconv"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/datasets"
	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

// maxRecord is the largest record of a pool of lamina's.
const maxRecord = 128 << 10

// poolConfig is what a new pool of lamina's is made as, or why the options ask for one
// that it cannot be.
func poolConfig(set *settings) (blockpool.Config, error) {
	c := blockpool.DevicemapperConfig("")
	c.RecordSize, c.MinFree, c.MetadataSize = set.blockSize, set.minFree, set.metadataSize
	c.Discard = set.discard == nil || *set.discard
	for _, o := range []struct {
		given bool
		what  string
	}{
		{set.blockSize > maxRecord, "dm.blocksize above 128k"},
		{set.thinPool != "", "dm.thinpooldev, a pool of the kernel's,"},
		{set.metadataDev != "", "dm.metadatadev: the metadata is a file in the pool's directory, so that"},
	} {
		if o.given {
			return c, fmt.Errorf("%s is %w by the userspace engine; take --engine=native, or leave it out", o.what, driver.ErrUnsupported)
		}
	}
	return c, nil
}

// openDatasets opens a root whose layers are datasets with a hard limit: what a device
// of that size would hold.
func openDatasets(cfg driver.Config, set settings, choice driver.Choice) (driver.Driver, error) {
	c, err := poolConfig(&set)
	if err != nil {
		return nil, &driver.Error{Driver: Name, Op: "options", Cause: err}
	}
	for _, o := range []struct {
		given bool
		name  string
	}{{set.filesystem != "", "fs"}, {set.mkfsArgs != nil, "mkfsarg"}, {set.xfsRetries != "", "xfs_nospace_max_retries"}} {
		if o.given {
			return nil, &driver.Error{Driver: Name, Op: "option dm." + o.name, Cause: fmt.Errorf("%w: a dataset has no filesystem of the kernel's in it", driver.ErrUnsupported), Next: "as root, take dm.backing=loop or --engine=native"}
		}
	}
	k := datasets.Kind{
		Name: Name, Below: "devices", SizeProperty: "refquota", Size: max(set.size, set.baseSize), MinSize: set.baseSize,
		Spec: datasets.PoolSpec{Config: c, Size: set.dataSize},
		Status: func(ctx context.Context, d *datasets.Driver) ([]driver.Field, error) {
			return datasetStatus(ctx, d, &set)
		},
	}
	if set.mountOptions != "" {
		k.MountOptions = []string{set.mountOptions}
	}
	d, err := datasets.Open(context.Background(), k, cfg, choice)
	if err != nil {
		return nil, err
	}
	return d, nil
}

func datasetStatus(ctx context.Context, d *datasets.Driver, set *settings) ([]driver.Field, error) {
	st, err := datasets.Ask(ctx, d, poolserver.PoolStatus, poolserver.None{})
	if err != nil {
		return nil, err
	}
	return append([]driver.Field{{Name: "Base Device Size", Value: human(set.baseSize)}}, poolFields(&st)...), nil
}

// poolFields are the lines of docker info about a pool of lamina's.
func poolFields(st *poolserver.Status) []driver.Field {
	return []driver.Field{
		{Name: "Pool Name", Value: st.Name},
		{Name: "Pool Blocksize", Value: human(st.RecordSize)},
		{Name: "Data Space Used", Value: human(st.Usable.Used)},
		{Name: "Data Space Total", Value: human(st.Usable.Size)},
		{Name: "Data Space Available", Value: human(st.Usable.Free)},
		{Name: "Metadata Space Used", Value: human(st.Metadata.Used)},
		{Name: "Thin Pool Minimum Free Space", Value: human(st.Usable.Size / 100 * int64(st.MinFree))},
		{Name: "Library Version", Value: "lamina " + strconv.Itoa(poolserver.ProtocolVersion)},
	}
}
