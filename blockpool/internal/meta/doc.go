// Package meta keeps a pool's metadata: buckets of keys and values, changed one
// transaction group at a time, in one to three equal bbolt files (replicas).
//
//	Commit(txg, batch)                     View ── Get, Scan
//	     │ seal values, digest               │
//	     ▼                                   ▼
//	┌─────────┐ then ┌─────────┐      ┌─────────────┐  each replica pinned
//	│ bbolt 1 │ ───► │ bbolt 2 │      │ pin: txg N  │  at the same commit
//	└─────────┘      └─────────┘      └──┬───────┬──┘
//	     pages, fdatasync, meta page,    │       │ where 1 is damaged
//	     fdatasync; each in turn         ▼       ▼
//	                                  file 1   file 2, read by page.go
//
// # Model
//
// bbolt makes a commit atomic in one file but protects nothing else: only its
// two meta pages have checksums, and it trusts all others. So
//
//   - every value is sealed with a checksum over pool, bucket, key, txg and
//     bytes (seal.go);
//   - a digest over all entries is committed with them, which proves when a
//     file is opened that no entry is missing or stale;
//   - files are read by code of this package, which believes nothing of a page
//     (page.go, tree.go); bbolt is only let write, and only along paths that
//     were walked just before (replica.go);
//   - a file is checked in full before bbolt opens it (check.go).
//
// What one replica has wrong comes from another. Absence counts as much as a
// value: a key that one replica lacks and another has is damage of the first.
//
// # Invariants
//
//   - Of all replicas at most one is half written at any time.
//   - A replica whose commit failed is never written again. It is replaced as a
//     file, by a rename.
//   - A view shows one commit, the same in all replicas, and never waits for a
//     commit or a copy.
//   - A value is returned only if the bytes returned have the right seal.
//
// A page that was never written, so that an older state of it is still there,
// is found when the file is opened (digest) and not while it is in use; as long
// as it is in use the kernel has what was written.
//
// # How bbolt is used
//
// The free list is stored with each commit (NoFreelistSync is not set). Without
// a stored list, bbolt walks the whole file after a failed commit, in a
// goroutine of its own, where a page that cannot be read ends the process: just
// then, when a device has failed. What that list costs is some pages in each
// commit; what could be wrong in it is found by the check, which wants it to be
// the exact rest of the pages in use.
//
// Files are mapped at their greatest size (Options.MaxSize) from the start. A
// remapping would wait for the pin that there always is.
//
// # Locks
//
// Store.commit, then Store.mu. Neither is held while the event hook runs,
// except that a hook called from within Commit runs below Store.commit. Readers
// take mu only to open and close a view.
package meta
