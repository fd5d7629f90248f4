// Package driver says what a storage driver is: it keeps layers by id, shows
// them as trees, tells what changed in them, and takes them away again. Names,
// labels and reference counts are the store's; a driver knows ids and parents.
//
//	store (names, kinds, labels)                oci (archives)
//	   │ Create Commit Remove                      │ Apply Diff
//	┌──▼───────────────────────────────────────────▼──┐
//	│ Driver                                          │
//	│   layers    what is on disk, by id              │
//	│   engine    native: the kernel mounts a view    │
//	│             userspace: lamina's server does     │
//	└──────────────────────────────────────────────────┘
//
// # Model
//
// A layer begins as a writable child of one parent, or of none, and is one of
//
//	active      may be mounted for writing, or filled by Apply; has no children
//	committed   never changes again; may be a parent, and is mounted read-only
//
// The cut lies between those of its relatives. Docker's graphdriver makes no
// difference between the two states and leaves tars to a wrapper; a snapshotter
// of containerd returns mounts for others to do, and knows no tars. Here a driver
// mounts (a userspace engine has to) and says what a layer changes (only it knows
// its marks), so that either interface is a thin adapter: Prepare is Create, Commit is
// Commit, View is a layer that is mounted read-only, ApplyDiff is Apply.
//
// # Crashes
//
// Each operation has one step that makes it true: a rename(2) of the layer's
// record. Before it the layer is as it was, behind it as it was asked for, and
// what lies about is swept by Cleanup, which opening a driver runs. Killing the
// process at any line, or cutting the power after a Commit has returned, leaves:
//
//	Create   before the record: parts in tmp/ or without a record; swept
//	         after: an active layer, empty. The store, which wrote down its
//	         intent first, takes it away again when it does not know it
//	Apply    an active layer with a part of the archive. It has no child and no
//	         name; who applied removes it
//	Commit   before the record: the active layer, with all that was written
//	         after: the committed one, its data written out before the record
//	Remove   before the record is gone: the layer as it was
//	         after: parts without a record; swept
//	Mount    a mount, or none, and a note where to look, which counts only if
//	         the kernel lists a mount there
//
// Parts that another process is at work on are locked (flock(2)) for as long as it
// lives, so that sweeping cannot take them away.
//
// # Locks
//
// A driver may be opened by several processes at once. The lock file of its
// directory is held for the short steps: publishing, committing, taking a record
// away, mounting. Long work (copying a tree, unpacking, deleting) is done outside
// of it, in a directory of its own. The store's lock comes before the driver's.
package driver
