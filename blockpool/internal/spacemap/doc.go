// Package spacemap counts the references to units of a pool: sectors of its
// raw address space, or ids of tree nodes. Most units are free or have one
// reference, so a segment of 1024 units is a bitmap, and a list of the few
// units that are shared:
//
//	unit      0 1 2 3 4 5 6 7 …
//	bitmap    1 1 1 0 1 1 0 0 …
//	counts    {4: 3}
//	          └─┬─┘   └┬┘
//	            │      extent [4,6) with three references
//	            extent [0,3) with one, or three of one unit: the map
//	            does not know, whoever refers to them does
//
// # Model
//
// A [Map] holds the counts as the open transaction group will leave them. It
// loads segments when they are first asked for, and hands the changed ones over
// encoded ([Map.TakeDirty]), to be stored in one atomic batch with everything
// else that the transaction group changes.
//
// An [Allocator] is what space is given out from. It is no part of what is
// stored: its bitmap begins as the map's, and holds moreover what was given out
// and is not counted yet, and what is counted no more but must not be written
// before the transaction group is durable.
//
// # Invariants
//
//   - A segment exists for every range that may be in use. One that is missing
//     is damage and never means "free" or "one reference".
//   - The count of an extent is kept at its first unit; the others have their
//     bit and no count.
//   - The list of a segment has no unit whose bit is clear and no count below 2.
//
// A Map belongs to one goroutine. An Allocator is safe for concurrent use; its
// mutex is a leaf.
package spacemap
