// Package tree looks at the trees that layers make: it tells how two differ,
// writes that as a layer archive, carries such an archive out, and copies trees.
//
//	layer directories ──> View ──> Node             what a stack shows, unmounted
//	                        │
//	         parent's View ─┴─> Compare ──> Change ──> Write ──> archive
//	archive ──> Apply ──> a layer's directory, deletions marked in its format
//
// A [View] goes through the rules of package union, so what a redirect, a
// metacopy file or a whiteout of any format means is said in one place, and a full tree
// is a stack of one.
//
// # Archives
//
// They are tars as OCI images have them (image-spec, layer.md): a deleted name is
// an empty file ".wh.NAME". What is written is in PAX format, sorted, with times in
// full and without names of owners, so that equal trees give equal bytes. What is
// read may come from anybody: [Apply] opens no path, only one name at a time below the
// layer's directory, follows no symbolic link, and refuses what would not be the tree
// that its author saw, with the name of the entry.
//
// # Invariants
//
//   - Nothing is read or written outside of the directories that were handed in.
//   - Apply writes to no file that it has not made: one that is shared with another
//     layer by a hard link keeps its content.
//   - Attributes that are marks of a union are never taken out of an archive as such:
//     they are stored escaped, and show under their own name again.
package tree
