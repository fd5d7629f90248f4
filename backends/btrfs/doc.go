// Package btrfs keeps each layer as a subvolume, which begins as a snapshot of its
// parent's: one step, whatever the parent holds and however many lie below.
//
// The native engine is the kernel's btrfs, by ioctls:
//
//	ROOT/subvolumes/ID      the layer; read-only once it is committed
//	ROOT/mnt/ID             where it is bound when it may not be used in place
//	ROOT/layers/ID.json     the record, see package layerdir
//
// subvolumes/ID is where Docker's driver of this name has it. A layer is used in
// place, without any mount. It needs root: an ordinary user may make and delete
// subvolumes, but cannot have files of an image's owners in them.
//
// The userspace engine keeps subvolumes as datasets of a pool below ROOT, for every
// user on every filesystem, see package datasets. Devices can be added to that pool
// while it is in use, with raid1, raid5 or raid6 for its data and raid1 for its
// metadata.
//
// Which one keeps the layers is decided when ROOT is made.
//
// The size of a layer is a limit of what it refers to, its parents' share included, as
// qgroups and refquota count: a write beyond it fails with EDQUOT.
package btrfs
