// Package raid lays the chunks of a pool on its devices, and gets records back
// from what is left of them. It knows devices, chunks and addresses; what a
// record means, and whether its bytes are the right ones, the caller says by a
// verify function.
//
//	  Write  Read  Scrub  Rebuild  Copy  Sync
//	    │      │      │       │      │     │
//	┌───▼──────▼──────▼───────▼──────▼─────▼──┐
//	│ Array: members, what is not synced yet  │
//	└───┬─────────────────────────────────────┘
//	    │ Chunk.stripe: which bytes on which column, purely
//	┌───▼────┐ ┌────────┐ ┌────────┐
//	│ column │ │ column │ │ column │   vdev.Device
//	└────────┘ └────────┘ └────────┘
//
// # Layout
//
// A [Chunk] is a range of the pool's raw sectors over one or more columns, each
// a range of bytes on a device of its own. On single and mirror chunks raw
// sector i is sector i of every column. On raidz chunks it is sector i/width of
// column i%width, and a record is its own stripe, as in OpenZFS
// (vdev_raidz_map_alloc in module/zfs/vdev_raidz.c): its raw sectors are dealt
// over the columns beginning where the record begins, every column takes a run
// of its sectors that is contiguous on the device, the first columns hold
// parity, and the rest the data one run after the other. With data sectors d00
// to d04 on four columns and one parity:
//
//	column   1    2    3    0        the record begins at raw sector 1
//	row 0    p0   d00  d02           column 0 comes last, a row further down
//	row 1    p1   d01  d03  d04
//
// (d04 is in row 1 of column 0, whose row 0 is raw sector 0 and another
// record's.) A record takes a multiple of parity+1 raw sectors, so that no free
// range is too small for any record.
//
// Parity is computed by github.com/klauspost/reedsolomon over the data columns
// of the record, shorter columns continued by zeros: the exclusive or for one
// parity, its default Vandermonde matrix for two. What a record does not fill of
// its last sector is written as zeros, and taken for zeros when it is read.
//
// # Invariants
//
//   - No two columns of a chunk lie on the same device.
//   - A Write that returned nil is readable from devices that are online, and
//     after a SyncTouched that returned nil it still is, and durable.
//   - Bytes for which verify was not true are never returned; without success a
//     buffer is cleared.
//   - A device that missed a write which others took is faulted: nothing is
//     written there until it is added again. Its old content is the last resort
//     of reads, which verify makes safe.
//   - A device is not faulted for failing a write that failed as a whole, so
//     that a full filesystem under a pool costs no redundancy.
//   - Bad columns are rewritten where they are, when the right bytes are known.
//
// The caller gives no record's sectors to another while it is being read,
// scrubbed or rebuilt: mending would overwrite the new one.
//
// # Locks
//
// In this order; no lock but the first two is held during I/O.
//
//	Array.syncing   one sync at a time
//	Array.copying   Copy moves a piece, or writes to chunks with shadows run
//	Array.mu        the set of devices and their states
//	dirty.mu        what was written since the last sync; a leaf
//
// Hooks are called without locks, from the goroutine that met the fault.
package raid
