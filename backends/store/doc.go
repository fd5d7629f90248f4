// Package store keeps the names of layers and images, and what belongs to them,
// over one storage driver.
//
//	ROOT/store.db     one bbolt file, opened for each transaction
//	ROOT/DRIVER/      the driver's directory
//	ROOT/blobs/ID.*   what was kept of the archive that a layer came from
//	ROOT/run/*.lock   one for each process that has the store open
//
// In the file each driver has a bucket of its own, with these:
//
//	bucket layers     name → Layer
//	bucket ids        id → name
//	bucket children   parent's id, child's id → nothing
//	bucket images     id → Image
//	bucket refs       name of an image → id
//	bucket leases     id → Lease
//	bucket intents    layer id → intent
//
// # Model
//
// A layer has a name, which people and programs choose, and an id, which the driver
// knows it by. Layers of images are named by what they hold (their chain id,
// image-spec config.md), so the same layer of two images is there once; they go
// when nothing needs them. All others stay until they are removed.
//
// # Crashes
//
// What is to be done to the driver is written down first, with who does it, and
// crossed out in the transaction that records the result:
//
//	Create  intent │ driver.Create │ record    killed between: the layer is removed again
//	Commit  intent │ driver.Commit │ record    the record is brought up to date
//	Remove  record becomes intent │ driver.Remove │ done    it is removed at last
//
// Who opens the store does what is left over of those whose lock is free, and removes
// what they were filling under a lease of theirs. A power cut
// can take layers that were not committed; check tells which, and repairs.
//
// # Locks
//
// A transaction is a lock of the whole file, between processes too. The driver is
// called outside of transactions, but for questions.
package store
