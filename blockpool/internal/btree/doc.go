// Package btree is the persistent B+tree of the pool: trees share nodes, nodes are
// counted, and a snapshot is one more reference to a root.
//
//	 volume    snapshot            a number is how many refer to a node
//	   │           │
//	 ┌─▼─┐       ┌─▼─┐
//	 │ 1 │       │ 1 │   copied when the volume was written to;
//	 └┬─┬┘       └┬─┬┘   each of its children gained a reference
//	  │ └───┬─────┼─┘
//	┌─▼─┐ ┌─▼─┐ ┌─▼─┐
//	│ 1 │ │ 2 │ │ 1 │    copied as well, and its items gained one each:
//	└───┘ └───┘ └───┘    Items.Retain
//
// # Model
//
// A tree is the [NodeID] of its root; 0 is the empty tree. Keys are bytes, in
// their order, and so are values. What the trees stand on is a [Loader] for those
// who read and a [Store] for the one who writes, both the caller's.
//
// Readers need no lock: a [Node] that was loaded never changes, so a root and a
// Loader that shows one commit are a snapshot. [Get], [Scan], [Cursor] and [Diff]
// work on these.
//
// The writer changes trees through a [Tree]. A node that only one parent refers to,
// on a path on which that is so from the root down, is the tree's own, and changed
// in place: Store.Edit makes it private until the commit. Any other is copied first,
// whatever it refers to gains a reference, and it loses one.
//
// Deleting a tree is [Drop], a bounded piece at a time.
//
// # Invariants
//
//   - The count of a node is the number of places that refer to it: children in
//     nodes, each node counting once however many trees it is in, and roots that
//     somebody keeps. [Checker] counts them anew.
//   - Each item of each leaf is one reference to what its value names, see [Items].
//   - The level falls by one with each step down, all leaves have level 0.
//   - No node in a tree is empty, and the root of a tree of one leaf is that leaf.
//   - An encoded node has at most [MaxNodeSize] bytes, but for leaves that
//     [Node.SetValue] has changed.
//
// Nodes have no checksum: what stores them seals them. [Parse] still takes hostile
// bytes, since a seal only says that the bytes are those that were written.
//
// There are no locks. A Store, its Trees and [Drop] belong to one goroutine.
package btree
