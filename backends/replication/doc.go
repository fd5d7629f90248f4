// Package replication puts many streams of a pool into one: a dataset, what lies below
// it, its snapshots, and the properties that somebody has set on them. zfs-send(8)
// calls that a replication stream.
//
//	magic ┬ header ┬ entry ─ chunk ─ chunk ─ … ─ chunk of 0 bytes ┬ entry ─ … ┬ end
//	      │        └ what stream comes: blockpool.Send's, in chunks
//	      └ name of the topmost dataset where it comes from
//
// [NewPlan] says which streams make up a tree of datasets and in which order: what is
// above comes first, and a clone after what it is a clone of. [Writer] and [Reader]
// are for the bytes.
//
// # Format
//
// The magic is 16 bytes. Header, entries and end are JSON objects, each behind its
// length and CRC-32C, chunks are bytes behind their length; lengths and checksums are 32
// bits, little endian. The streams have checksums of their own. Nothing is longer than
// [MaxPart]. The end tells how many streams there were, so that a cut between two of
// them is found.
//
// What comes is not trusted: names are checked by who receives, as all names are.
package replication
