// Package inspect looks inside of a stack of layers without mounting it: which
// layer shows a name, which ones have it too, and what keeps theirs from being
// seen.
//
// package union answers what users see and stops at the first layer that
// decides. Here the search goes on to the bottom, and everything that any layer
// has under a name is a [Sighting]:
//
//	            /etc            /etc/motd
//	layer 3  ── directory ───── whiteout      Deletes
//	layer 2  ── directory ───── file          Hidden by layer 3, a whiteout
//	layer 1  ── directory ───── file          Hidden by layer 3, a whiteout
//	               Dir            Entry
//
// # Model
//
// A [Stack] is its layers, the top first, each anything that can open a
// [layer.Dir]: a directory, a tar archive that was never unpacked, later a
// dataset. A [Dir] is one directory of the stack: the parts that the layers
// have of it, those that users see merged and those that are hidden. An
// [Entry] is one name in it, with what each part has there. [Stack.Walk] and
// [Stack.Lookup] lead to entries; all reports of this package are made of them:
//
//	which, log, blame    the sightings of one entry, or of a directory's
//	diff                 two walks side by side
//	waste, report        sums over one walk
//	check, convert       one layer, by the codecs of package whiteout
//
// # Invariants
//
//   - What is shown is what a union of the same layers shows: resolve.go has
//     the rules of fs/union's resolve.go with the hidden part added, and a test
//     compares the two on random stacks.
//   - Nothing is written to any layer, but by [Fix] and [Convert].
//   - Memory grows with the largest directory and the depth, not with the
//     number of files. What must remember more (hard links, candidates for
//     duplicates) says so.
//   - Names are bytes that strangers chose. Nothing here prints them; who does
//     takes package safename.
//   - What cannot be read (a directory without permission, a mark that makes no
//     sense) is an error of its entry, and the walk goes on.
//
// A Stack and what comes from it belong to one goroutine. [Stack.Walk] and [Diff]
// read ahead in others (reader), so layers are used by several at once; visits are
// made by the caller's alone, in their order. The one lock is that of a Stack's roots.
package inspect
