// Package datasets keeps layers as datasets of a pool: what the userspace engines
// have in common of the drivers whose users know subvolumes (btrfs), datasets (zfs)
// or thin devices. Such a driver is a [Kind]: what its pool is made of, under which
// dataset its layers lie, what bounds them, and what its status says.
//
//	ROOT/lamina.json        what this directory is, see format
//	ROOT/lock               flock: exclusive for each step that looks and then acts
//	ROOT/pool/              the pool, unless the kind names another one
//	ROOT/mnt/ID             where a view is mounted unless another place is asked for
//
//	in the pool:  BELOW/lamina:empty@empty      a root directory and nothing else
//	              BELOW/ID                      a layer, a clone of its parent's snapshot
//	              BELOW/ID@committed            there once the layer is committed
//
// # Model
//
// The pool is owned by its server (package poolserver), which starts when it is needed
// and ends when nothing is mounted and nobody asks. A layer is a clone of what its
// parent was when it was committed, in one step and at the same cost whatever lies
// below: a stack of 500 is no slower than one of 1. Archives are applied, and layers
// compared, by the server, where no kernel is between: owners and devices are in the
// inodes whoever runs it.
//
// What is known of a layer are properties of its dataset, beginning with "lamina:",
// and the snapshot. There are no records beside the pool.
//
// # Crashes
//
// The step that makes an operation true is one transaction group of the pool, and
// there is no other step before it, so a crash leaves nothing to reconcile:
//
//	Create   the clone appears, with its properties and limits
//	Apply    the property filled is set first, so that a part of an archive is
//	         never written to or taken for a layer that was worked on
//	Commit   the snapshot appears; it holds all that was written before
//	Remove   dataset and snapshot go together; their space comes back later
//
// What a kill can leave beside that is an empty directory in mnt/, which opening
// sweeps, and mounts, which the next server of the pool makes again.
//
// # Limits
//
// The size is a property of the dataset (a kind says which): a limit of what the layer
// refers to, with what it has of its parents, or of what it has written itself. The
// limit of files counts those that the layer adds. What is over a limit fails with
// EDQUOT.
//
// # Locks
//
// The flock of ROOT/lock comes before everything in the pool's server. Connections
// are taken one for each request.
package datasets
