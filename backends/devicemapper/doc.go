// Package devicemapper keeps each layer as a thin block device with a filesystem: a
// base device is made once, images are its snapshots, and containers are snapshots of
// images. What a layer changes it copies by block, whatever the depth below.
//
//	ROOT/lamina.json          what this directory is, and the base device
//	ROOT/lock                 flock: exclusive for each step that looks and then acts
//	ROOT/metadata/ID.json     the record of a layer: parents, number and size of its device
//	ROOT/devices/N            there while a device of that number may be: whose it is
//	ROOT/mounts/ID            where views of the layer were mounted
//	ROOT/mnt/ID/rootfs        where it is mounted unless another place is given
//	ROOT/tmp/                 mounts on the way to somewhere, under the lock only
//	ROOT/devicemapper/{data,metadata}   native: sparse files below the pool
//	ROOT/pool/                userspace: the pool of lamina's
//
// In a device's filesystem the layer is the directory rootfs, as in Docker's.
//
// # Engines
//
//	             layer         kernel            below
//	native       dm-thin ──── ext4, xfs          files or devices, or a pool of LVM's
//	loop         volume  ──── loop, ext4, xfs    a pool of lamina's, served by FUSE
//	dataset      dataset      none               a pool of lamina's
//	fuse2fs      volume  ──── file ── fuse2fs    a pool of lamina's, served by FUSE
//
// The native engine is for root where the kernel has dm-thin. The userspace engine is
// loop for root, else dataset, unless dm.backing says otherwise. A dataset has no
// filesystem within a fixed size: what a device of that size would hold is its hard
// limit, and all else is that of package datasets. What keeps a root's layers is decided
// when it is made.
//
// fuse2fs, on request (dm.backing=fuse2fs), gives ordinary users an ext4 of a fixed size.
// Its filesystem has no journal and is mended by e2fsck when its server was killed.
// Of fuse2fs 1.47.0 25 were killed while files were made, renamed and removed: e2fsck
// corrected counts, and all that had been synced was there. What it cannot do:
//
//   - Times are told in whole seconds (stat_inode). So archives have whole seconds, and
//     a directory in which something changes within the second in which it was last
//     changed is not listed as changed itself; what is in it is, since files of that
//     second are compared byte by byte.
//   - There is no filesystem that several mounts share: an active layer is seen in one
//     place at a time, and only there while it is mounted.
//   - A file that is removed while it is open has a name, .fuse_hidden…, until it is
//     closed (libfuse 2).
//   - RENAME_EXCHANGE, RENAME_NOREPLACE and O_TMPFILE are refused (libfuse 2).
//   - The view is its user's alone, and devices cannot be made by who is not root.
//
// # Who holds what
//
// A pool, a thin device and a loop device live for as long as somebody has them open,
// and the kernel takes them away after the last (DM_DEFERRED_REMOVE, LO_FLAGS_AUTOCLEAR):
// the driver holds the pool, mounts hold their devices, and devices hold the pool. So
// there is nothing to be deactivated after a process was killed, and no service that
// must run. A view is mounted in ROOT/tmp, what is wanted of it is taken, a bind mount
// or a descriptor, and the mount there is taken away at once.
//
// # Crashes
//
// A record appears and goes by one rename or unlink, and the number of a device is
// written down before there is a device:
//
//	Create   before the record: a number, perhaps with a device; swept
//	Apply    an active layer with a part of the archive, which its record says
//	Commit   the device is flushed before the record says committed
//	Remove   the record goes first: then a device that no record speaks of; swept
//
// # Out of space
//
// New layers are refused below dm.min_free_space, when writes still succeed. A pool of
// dm-thin that is full queues writes for 60 s (its parameter no_space_timeout) and then
// fails them: ext4 and xfs return EIO or ENOSPC to whom it may concern, what was not
// synced is lost, and ext4 may turn read-only; xfs tries metadata again, see
// dm.xfs_nospace_max_retries. A pool of lamina's does the same by its policy queue. What
// was committed before is not touched. More space (a larger dm.loopdatasize when the
// pool is started next, lvextend, lamina pool add) or removed layers end it. A dataset
// gives EDQUOT at its own limit. A layer's size is that of its device: it is never
// below that of its parent, since devices grow only.
package devicemapper
