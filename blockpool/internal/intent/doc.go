// Package intent is the log of a pool: what writers were promised before their
// transaction group is committed. A record is appended without waiting for the
// disk, so a killed process loses nothing; a flush makes everything appended
// before it durable, with one sync for all who wait.
//
//	      txg 7 (committed)   txg 8 (syncing)     txg 9 (open)
//	     ┌───────────────────┬───────────────────┬───────────────────┐
//	area │ segment 1 (free)  │ 0 1 2 ░ 3 4 5 End │ 0 1 ░ 2 ▏         │
//	     └───────────────────┴───────────────────┴───────────────────┘
//	                               ░ a flush: the next record
//	                                 begins a new block
//
// # Model
//
// An [Area] is cut into three equal segments. Transaction group txg has segment
// txg modulo 3, so a segment is used again when its last user is two groups
// back, and a pool never has more than two uncommitted: one that is synced and
// one that is open. [Log.Append] refuses to overwrite one that is not committed.
//
// A record has the pool, its txg, its number within the txg, and checksums of
// header and payload. The log knows nothing of payloads but their kind; the
// kinds that a block pool itself needs are in kinds.go.
//
// When the first record of a later group is appended, the earlier one gets an
// End record. [Replay] goes on from a group to the next only over an End, since
// without it nobody knows whether records are missing there.
//
// # What a crash leaves
//
// Of unsynced writes any part may be on disk, in any order. Records are numbered
// without gaps, so replay takes the longest run of whole ones; those that were
// flushed are part of it.
//
// A disk that loses power while it writes a block may lose all of the block,
// also the bytes that were there before and stay the same. So a block that has
// been flushed is never written again: the first append after a flush begins
// the next block of 4096 bytes. That costs room in the log but no I/O: a page
// cache writes whole pages anyway, and 4096 bytes of data with their header
// touch two of them wherever they begin (a flush of 4K took no longer than with
// records packed, in each of four pairs of runs). Records between two flushes
// lie packed.
//
// A number is never used by two different groups, or records of a lost one
// could be taken for those of the other. Replay returns the highest number that
// any header in the area has; the pool goes on above it.
//
// # Locks
//
// Log.mu only. It is held while a record is written, so that the order in the
// log is the order of appends, and never while the area is synced.
package intent
