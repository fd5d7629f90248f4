// Package blockpool is a thin pool in userspace: volumes take space when they
// are written, and a snapshot costs one commit and shares everything. It needs
// neither root nor kernel modules. What it knows it knows under the names that
// dm-thin, btrfs and zfs gave it.
//
//	 ReadAt  WriteAt  Discard  Flush          Snapshot  Clone  Destroy …
//	    │       │        │       │                       │ tasks
//	┌───▼───────▼────────▼───┐ ┌─▼──────────┐            │
//	│ dirty records          │ │ intent log │            │
//	└───┬────────────┬───────┘ └────────────┘            │
//	    │            │ every few seconds: one transaction group
//	┌───▼────────────▼───────────────────────────────────▼──┐
//	│ trees: record → address, sum   space maps   catalogue │
//	└───┬──────────────────────────────────┬────────────────┘
//	    │ records                          │ nodes, maps, entries
//	┌───▼───────────────────────┐      ┌───▼──────────┐
//	│ chunks over devices (raid)│      │ bbolt × 1…3  │
//	└───────────────────────────┘      └──────────────┘
//
// # Model
//
// A [Volume] is a map from record numbers to records of 4 to 128 KiB; what is
// not in the map reads as zeros. The map is a B+tree whose nodes may be shared: a
// snapshot is one more reference to the root, and a node with more than one
// reference is copied before it changes (internal/btree). Records are counted in
// the same way, by address (internal/spacemap). So volumes and snapshots depend
// on nothing and can be destroyed in any order.
//
// A record is never written over: it goes to fresh sectors, and the sectors that
// it had are free again when nothing on disk names them. An address belongs to a
// chunk, and only the chunk knows devices (internal/raid), so devices come and go
// without a change to any tree.
//
// # Names
//
// Names are paths: a dataset has others and volumes below it, a volume has nothing.
// What lies below inherits properties (property.go), counts for quotas above it and may
// use what is reserved there (hierarchy.go), and moves along with a rename. Beyond
// that nothing depends on what lies above.
//
// # Transaction groups
//
// Changes enter the open transaction group (txg): in memory, and in the intent
// log, from which they come back after a crash. Every few seconds, or when a task
// or the amount asks for it, one goroutine closes the group and makes it durable
// (sync.go):
//
//  1. the next txg opens; changes go there;
//  2. dirty records are written to the addresses that they were given when they
//     were admitted, on every copy;
//  3. every device that was written to is flushed;
//  4. the changed nodes, maps and catalogue entries go to each metadata replica,
//     one bbolt transaction each, one after the other;
//  5. readers see the new state; what was freed may be used again; the log
//     segment of the txg is free.
//
// A crash before 4 leaves the txg before, whole; what was flushed since is in the
// log. Step 3 before step 4 is what makes a tree worth its word.
//
// # Promises
//
// After any crash the pool opens without repair. What [Volume.Flush] has
// acknowledged is there; what it has not is old or new per record, never mixed;
// what was written before the server was killed is there even without a flush.
// Snapshots are exact to the bit, nothing leaks, and wrong bytes are never
// returned: a record or node that does not fit its checksum is read from another
// copy and mended, or is an error.
//
// # What it costs
//
// A record has one checksum, so the first read of any part of it reads and verifies
// all of it: 64K for 4K where records have 64K. What was verified stays in memory
// (readcache.go), so only the first touch pays. Sums of parts would have to lie in the
// trees, or next to the data:
//
//	8 bytes per 4K     128 bytes for a record of 64K, whose mapping has about 20; the
//	                   aim is 64 for both, with the tree above them
//	4 bytes per 4K     64 bytes: beyond it too, and one wrong part in 2^32 passes
//	4 bytes per 16K    16 bytes: fits, still reads four times as much, and is as weak
//	a sector of sums   65 to 68K: 6% more space, records that are not aligned any more
//	beside the record  nor blocks of dm-thin's, and a second read for each first touch
//
// Who reads at random, and more than the cache holds, takes records of 4K to 16K, as
// with zfs. The default is 16K.
//
// A snapshot is one commit of bbolt, two fdatasyncs: pages, then the meta page. A
// change and a snapshot are one txg: one fdatasync of the data more, before those. In a
// sparse file that one is the dearest, since the host's filesystem commits its journal
// for blocks that are new. It cannot run beside the sync of bbolt's pages, though it
// need only come before the meta page, since bbolt writes both in one call.
//
// # Long work
//
// A scrub, a device that leaves, is replaced or returns, data that gets another
// profile: each visits all records in small steps (tour.go) beside everything else.
// Chunks move by way of shadows (move.go); what takes other sectors under another
// profile is copied, and the leaves that name it are changed where they are
// (relocate.go). What the end of the process interrupts goes on when the pool is
// opened.
//
// # Locks
//
// In this order; a lock further down is never held while one further up is
// taken.
//
//	Volume record locks   one change of a record at a time; held over device reads
//	Pool.gate             shared: a change enters the open txg; exclusive: it closes
//	Pool.view             shared: a reader takes dirty state, root and epoch together
//	volume.mu             dirty records of one volume
//	tour.mu, scrub.mu, tours.mu, jobs.mu, moves.mu   of long work
//	relocation.mu, conversion.mu
//	catalogue.mu                  before hierarchy.mu, which guards sums in memory
//	hierarchy.mu, space.mu, devices.mu, discards.mu, events.mu, readShard.mu   leaves
//
// Trees, space maps and the catalogue are changed by the sync goroutine alone.
package blockpool
