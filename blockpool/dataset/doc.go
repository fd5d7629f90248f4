// Package dataset is a POSIX filesystem in a tree of the block pool: files,
// directories, links and attributes that share everything with the snapshots and
// clones of the tree until they change. It knows neither FUSE nor paths, so the
// rules can be tested without mounting anything; its methods are those of package
// union, for the same server.
//
//	 Lookup  ReadDir   Write   Rename …            Diff
//	    │       │        │       │                   │
//	┌───▼───────▼────────▼───────▼───┐               │
//	│ Node: decoded inode, its lock  │               │
//	└───┬────────────────┬───────────┘               │
//	    │ reads          │ step: one batch           │
//	┌───▼────────────────▼───────────────────────────▼──┐
//	│ Tree: items in the order of keys, records by      │
//	│ object and number (blockpool)                     │
//	└───────────────────────────────────────────────────┘
//
// # Model
//
// Everything is an item or a record of one tree. An inode is an item, and so is
// each name in a directory, each extended attribute and each further name of a
// file; content is records under the number of the inode's object. FORMAT.md has
// the layout. The root directory is object 1.
//
// Names are found by a hash whose key is random for each dataset, so that nobody
// can prepare names that collide. The hash is also the position of the name in a
// listing: it stays what it is whatever else comes and goes.
//
// An inode tells one of its names: directory and position there. Further names of
// a file with several are items. So a path can be told for whatever has changed,
// which makes [Diff] as cheap as the change is small.
//
// A [Node] is an inode in use: it exists while somebody has a reference, once for
// each object, and holds the decoded item. Nothing is remembered of names.
//
// # Changes
//
// An operation locks the nodes that it changes, computes all items that will be
// others, and applies them as one batch (step.go); only then the nodes change. A
// batch that fails leaves everything as it was. After a crash the tree has some
// prefix of the batches, what was flushed included: each operation is there as a
// whole or not at all, and never one without those before it.
//
// What takes more than one batch says here what a crash leaves:
//
//	write, copy     of more than a megabyte: a part from the beginning on
//	truncate        of more than 8192 records: the file has its new size, and the
//	                records behind it go at the next mount
//	fallocate       that punches or zeroes more than 8192 records: a part of them
//	unlink          a file without a name, which the next mount removes; so does
//	                the last close of a file that was removed while open
//
// A file without a name has an orphan item, a file whose records are still to go
// another one: mounting looks at these and at nothing else.
//
// # Other trees
//
// Where [Options].Views is set, the root has a directory .lamina that no listing
// shows, with the snapshots of the dataset in .lamina/snapshot. An entry of a
// directory may name another tree, a nested subvolume, which a lookup enters in
// the same way; where the pool has no such tree, as for the parent's snapshot, the
// entry is an empty directory. Numbers of objects of other trees carry the
// number of the tree, see [Node.Ino].
//
// # Invariants
//
//   - Bytes behind the size of a file are zeros, or its inode says that records
//     are still to go.
//   - Each object has one node at most, and its inode is what the tree has.
//   - A directory has one name, and its inode tells which: what leads to it by
//     another is damage, so no walk from the root ever runs in circles.
//   - The link count of a directory is 2 and one for each directory in it, as
//     find(1) and old archivers expect; its size is the number of its entries.
//   - An object number is given out once only while a dataset is mounted.
//
// # Errors
//
// Errors are a unix.Errno, or wrap one together with the cause: EIO for items that
// make no sense, which is never a panic, and what the pool says of space, quotas
// and snapshots.
//
// # Locks
//
// In this order; a lock further down is never held while one further up is taken.
//
//	view.renames    a directory moves to another one; one at a time for a tree
//	Node.mu         inode of a node; several in the order of Node.ID, or by
//	                trying, which lets go of all where it fails (lock.go)
//	FS.viewMu       which trees are open
//	nodeShard.mu, view.allocMu, reclaimer.mu   leaves
package dataset
