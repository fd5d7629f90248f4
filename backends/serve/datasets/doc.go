// Package datasets mounts datasets of a pool: it serves what package
// blockpool/dataset knows by what package fs/fusefs can.
//
//	kernel ──/dev/fuse──> fusefs ──> filesystem ──> dataset.FS ──> blockpool.Tree
//	                                 (words)        (rules)        (items, records)
//
//	Mounts: all datasets of one pool that this process has mounted
//
// A dataset is a filesystem of its own, mounted by [Mounts.Mount] wherever its user
// wants, with snapshots below .lamina/snapshot and nested subvolumes where they have
// their names. What is mounted is in use: the pool refuses to destroy it or to roll
// it back until [Mount.Unmount].
//
// # What the kernel caches
//
// Everything, for good: only this process changes a dataset while it is mounted, and
// it is told what else happens. Names of snapshots are looked up each time, for they
// are made by commands; [Mount.SnapshotsChanged] has their listing read anew, and
// [Mount.AddSubvolume] and [Mount.RemoveSubvolume] change what the mount shows
// together with what the kernel knows. A rollback changes everything, also size and
// inodes of open files: it is done between two mounts ([Mounts.Offline]).
//
// Data is written through at once, unless writeback=1: then the order in which
// changes reach the dataset is not that of the programs any more, what was not synced
// is lost with this process, and a full quota shows at close(2) or fsync(2). See
// [Mounts.Flush] for what a snapshot needs then.
//
// # Invariants
//
//   - A tree that can change belongs to one mount at a time, be it mounted itself or
//     entered as a nested subvolume: two would not see each other's changes.
//   - A nested subvolume has a name below that of the dataset that it is nested in, in
//     the pool; what is called otherwise is not entered, and shows an empty directory.
//
// Locks: Mount.reconfiguring is held while the kernel and the dataset are told of
// changes. Mounts.mu is a leaf, and is not held while anything is opened or mounted.
package datasets
