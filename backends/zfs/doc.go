// Package zfs keeps each layer as a dataset: filesystem, snapshot, clone.
//
//	FSNAME/base              a layer
//	   @committed            what it was when it was committed
//	      └── FSNAME/child   a clone of that
//
// The native engine runs zfs(8), for root, below the dataset of the option fsname or
// that of the driver's directory:
//
//	ROOT/graph/ID           where the layer's dataset (mountpoint=legacy) is mounted
//	                        from when it is first needed until the layer is removed
//	ROOT/mnt/ID             where it is bound when it may not be used in place
//	ROOT/layers/ID.json     the record, see package layerdir
//
// The userspace engine keeps the same datasets in one of lamina's own pools, for every
// user: below ROOT, or the pool of fsname; see package datasets. Its vdevs are single,
// mirror, raidz1 or raidz2, every record has a checksum, and what is wrong in one copy
// is mended from another.
//
// Which one keeps the layers is decided when ROOT is made.
//
// The size of a layer is its quota: what it has of its parents does not count. A write
// beyond it fails with EDQUOT.
package zfs
