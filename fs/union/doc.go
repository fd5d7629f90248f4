// Package union merges a stack of layers into one tree: N lower layers that
// are only read, and one upper that takes every change. The rules are those of
// kernel overlayfs (Documentation/filesystems/overlayfs.rst); where POSIX and
// overlayfs differ, POSIX wins if it can. The package knows neither FUSE nor
// paths, so the rules can be tested without mounting anything.
//
//	   Lookup  ReadDir  Write  Rename …
//	      │       │       │      │
//	  ┌───▼───────▼───────▼──────▼───┐
//	  │ Node ── directory table      │   what the union shows
//	  └───┬──────────────────────┬───┘
//	      │ resolve              │ copyUp
//	┌─────▼─────┐          ┌─────▼────────┐
//	│ lower 1…N │          │ upper + work │   layer.Dir
//	└───────────┘          └──────────────┘
//
// # Model
//
// A [Node] is one file of the union, whatever its names. It stands for an
// object in the upper, or for one in a lower layer; a directory may stand for
// an upper and any number of lower directories at once. The path of a node in
// the union is its path in the upper; in a lower layer it may have another one,
// left by a redirect.
//
// A directory's table maps names to nodes. Once the directory has been listed
// the table is complete: since nobody but this package changes the upper, and
// nobody changes a lower, it then answers for every name, absent ones too,
// without a system call. A directory that was made here is complete at birth.
//
// # Changes
//
// The first change of a lower object copies it up: it is staged in the work
// directory and published by one link or rename, so that a crash leaves the
// lower object visible or the finished copy, never a part. Removing a name that
// a lower layer has leaves a whiteout in the upper. Each multi-step change says
// in a comment what a crash leaves behind.
//
// # Locks
//
// In this order; a lock further down is never held while one further up is
// taken.
//
//	Node.cow     one copy-up of that node at a time
//	FS.rename    renames between directories, one at a time
//	dirNode.mu   the table of a directory and what its names stand for;
//	             parents before children, unrelated ones by Node.ID
//	Node.mu      place of a node and its handles; a leaf
//	FS.paths     names of upper directories, while one is opened anew; a leaf
//
// No lock is held while file data is copied except the node's own cow.
package union
