package devicemapper

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/blockpool"
)

// settings are the options, read.
type settings struct {
	baseSize                 int64
	dataSize, metadataSize   int64
	blockSize                int64
	filesystem               string // "": the best there is
	mkfsArgs                 []string
	mountOptions             string
	dataDev, metadataDev     string
	thinPool                 string
	discard                  *bool // nil: where the pool lies in files
	minFree                  int   // percent
	deferRemove, deferDelete bool
	xfsRetries               string
	backing                  string // in the userspace engine; "": the best there is
	size                     int64  // of layers that have no size of their own
}

const (
	minBlockSize = 64 << 10
	maxBlockSize = 1 << 30
)

const noLVM = "lamina leaves volume groups to LVM: make a thin pool with lvcreate --type thin-pool, extended by its thin_pool_autoextend settings, and give it as dm.thinpooldev"

// What a device is in the userspace engine.
const (
	backingLoop    = "loop"
	backingDataset = "dataset"
	backingFuse2fs = "fuse2fs"
)

// knownOptions are listed as their users know them, behind "dm.".
var knownOptions = []driver.Option{
	{Name: "basesize", Accepts: "bytes, with k, m, g or t", Help: "size of the base device, 10G; of a root that has one, larger only"},
	{Name: "loopdatasize", Accepts: "bytes", Help: "size of the sparse file with the data, 100G; a larger one later makes it grow"},
	{Name: "loopmetadatasize", Accepts: "bytes", Help: "size of the sparse file with the metadata, 2G"},
	{Name: "blocksize", Accepts: "a multiple of 64k, 1g at most", Help: "what is allocated at once, 64k; of a new pool"},
	{Name: "fs", Accepts: "xfs, ext4", Help: "filesystem of the base device; xfs natively, ext4 over a volume of lamina's"},
	{Name: "mkfsarg", Accepts: "arguments, separated by spaces", Help: "further arguments of mkfs"},
	{Name: "mountopt", Accepts: "mount options joined by commas", Help: "further options of each view"},
	{Name: "datadev", Accepts: "a block device", Help: "holds the data, in place of a file; along with metadatadev"},
	{Name: "metadatadev", Accepts: "a block device", Help: "holds the metadata, in place of a file; new ones must begin with 4096 zeros"},
	{Name: "thinpooldev", Accepts: "the name of a thin pool, or its path in /dev/mapper", Help: "a pool that is there, made by lvcreate or dmsetup"},
	{Name: "blkdiscard", Accepts: "true, false", Help: "give the space of removed layers back to what the pool lies on; true for files"},
	{Name: "min_free_space", Accepts: "a percentage, 0% to 99%", Help: "new layers are refused below that, 10%"},
	{Name: "use_deferred_removal", Accepts: "true, false", Help: "a device that is in use goes when it no longer is, true"},
	{Name: "use_deferred_deletion", Accepts: "true, false", Help: "a layer can be removed while something has it open still, and is deleted later, true"},
	{Name: "xfs_nospace_max_retries", Accepts: "a number, -1 for ever", Help: "how often xfs tries again to write metadata when the pool is full"},
	{Name: "size", Accepts: "bytes", Help: "size of each layer that has none of its own; that of the base device, or larger"},
	{Name: "backing", Accepts: "loop, dataset, fuse2fs", Help: "what a device is in the userspace engine: a loop device with a filesystem of the kernel's, for root, a dataset of limited size, or an ext4 that fuse2fs serves; of a new root"},
	{Name: "override_udev_sync_check", Accepts: "true, false", Help: "no effect: nothing here waits for udev"},
	{Name: "libdm_log_level", Accepts: "a number", Help: "no effect: the library is not used"},
	{Name: "directlvm_device", Refused: noLVM},
	{Name: "directlvm_device_force", Refused: noLVM},
	{Name: "thinp_percent", Refused: noLVM},
	{Name: "thinp_metapercent", Refused: noLVM},
	{Name: "thinp_autoextend_threshold", Refused: noLVM},
	{Name: "thinp_autoextend_percent", Refused: noLVM},
}

// parseOptions reads NAME=VALUE with "dm.", "devicemapper." or nothing before the
// name.
func parseOptions(given []string) (settings, error) {
	s := settings{
		baseSize: blockpool.DevicemapperBaseSize, dataSize: blockpool.DevicemapperDataSize, metadataSize: blockpool.DevicemapperMetadataSize,
		blockSize: blockpool.DevicemapperRecordSize, minFree: blockpool.DevicemapperMinFree, deferRemove: true, deferDelete: true,
	}
	plain := make([]string, len(given))
	for i, g := range given {
		plain[i] = strings.TrimPrefix(strings.TrimSpace(g), "dm.")
	}
	values, err := driver.ParseOptions(Name, knownOptions, plain)
	if err != nil {
		return s, err
	}
	for name, value := range values {
		if err := s.take(name, value); err != nil {
			return s, &driver.Error{Driver: Name, Op: "option dm." + name + "=" + value, Cause: err}
		}
	}
	first := func(names ...string) string {
		for _, name := range names {
			if _, is := values[name]; is {
				return "dm." + name
			}
		}
		return ""
	}
	own := first("loopdatasize", "loopmetadatasize")
	switch {
	case s.thinPool != "" && (own != "" || first("blocksize") != ""):
		err = fmt.Errorf("dm.thinpooldev along with %s is %w: the pool is as it was made", cmp.Or(own, "dm.blocksize"), driver.ErrUnsupported)
	case s.dataDev != "" && own != "":
		err = fmt.Errorf("dm.datadev along with %s is %w: devices have their sizes", own, driver.ErrUnsupported)
	case (s.dataDev == "") != (s.metadataDev == ""):
		err = fmt.Errorf("dm.datadev and dm.metadatadev are %w one without the other", driver.ErrUnsupported)
	case s.thinPool != "" && s.dataDev != "":
		err = fmt.Errorf("dm.thinpooldev along with dm.datadev is %w: the pool has its devices", driver.ErrUnsupported)
	case s.deferDelete && !s.deferRemove:
		err = fmt.Errorf("dm.use_deferred_deletion without dm.use_deferred_removal is %w", driver.ErrUnsupported)
		if _, asked := values["use_deferred_deletion"]; !asked {
			s.deferDelete, err = false, nil
		}
	}
	if err != nil {
		err = &driver.Error{Driver: Name, Op: "options", Cause: err}
	}
	return s, err
}

func (s *settings) take(name, value string) (err error) {
	switch name {
	case "basesize":
		s.baseSize, err = driver.ParseSize(value)
	case "loopdatasize":
		s.dataSize, err = driver.ParseSize(value)
	case "loopmetadatasize":
		s.metadataSize, err = driver.ParseSize(value)
	case "size":
		s.size, err = driver.ParseSize(value)
	case "blocksize":
		s.blockSize, err = driver.ParseSize(value)
		if err == nil && (s.blockSize < minBlockSize || s.blockSize > maxBlockSize || s.blockSize%minBlockSize != 0) {
			err = fmt.Errorf("%w: accepted are multiples of 64k, 1g at most", driver.ErrUnsupported)
		}
	case "fs":
		s.filesystem = value
		if value != xfs && value != ext4 {
			err = fmt.Errorf("%w: accepted are xfs and ext4", driver.ErrUnsupported)
		}
	case "mkfsarg":
		s.mkfsArgs = strings.Fields(value)
	case "mountopt":
		s.mountOptions = value
	case "datadev":
		s.dataDev = value
	case "metadatadev":
		s.metadataDev = value
	case "thinpooldev":
		s.thinPool = strings.TrimPrefix(value, "/dev/mapper/")
	case "backing":
		s.backing = value
		if value != backingLoop && value != backingDataset && value != backingFuse2fs {
			err = fmt.Errorf("%w: accepted are loop, dataset and fuse2fs", driver.ErrUnsupported)
		}
	case "blkdiscard":
		s.discard = new(bool)
		*s.discard, err = parseBool(value)
	case "min_free_space":
		s.minFree, err = strconv.Atoi(strings.TrimSuffix(value, "%"))
		if err != nil || s.minFree < 0 || s.minFree > 99 || !strings.HasSuffix(value, "%") {
			err = fmt.Errorf("%w: accepted is a percentage from 0%% to 99%%", driver.ErrUnsupported)
		}
	case "use_deferred_removal":
		s.deferRemove, err = parseBool(value)
	case "use_deferred_deletion":
		s.deferDelete, err = parseBool(value)
	case "xfs_nospace_max_retries":
		s.xfsRetries = value
		if n, e := strconv.Atoi(value); e != nil || n < -1 {
			err = fmt.Errorf("%w: accepted is a number, -1 for ever", driver.ErrUnsupported)
		}
	}
	return err
}

func parseBool(value string) (bool, error) {
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("%w: accepted are true and false", driver.ErrUnsupported)
	}
	return b, nil
}
