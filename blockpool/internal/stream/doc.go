// Package stream is the container that volumes and datasets travel in between pools: what
// send writes and receive reads. It knows frames, digests and order; which
// records are sent, and what becomes of them, is the pool's business.
//
//	header │ Property… │ Write Hole Write … Checkpoint … │ End
//	  │                                          │           │
//	  │ a check after each, over all bytes so far: a chain ──┘
//	  └ who is sent, since which snapshot, from which record on
//
// # Format, versions 1 and 2
//
// Numbers are little-endian, or unsigned varints (LEB128) where it says so.
//
//	header   magic 8, version u16, length u16, zero u32, fields, check u64
//	fields   ids of pool, volume, from, to (16 each), size u64, resume u64,
//	         record size u32, name, name of from (length u16, bytes of each),
//	         features (count u8, then length u8, bytes of each)
//	frame    length of payload u32, kind u8, flags u8, zero u16, payload, check u64
//	Write    1: codec u8, record varint, bytes as stored
//	Hole     2: first record varint, count varint
//	Checkpoint 3: cursor varint
//	Property 4: length of key u8, key, value
//	Pack     5: one or more frames without checks, compressed with zstd
//	End      6: varints: writes, bytes, records in holes, properties, frames, and
//	            items if there are any
//	Items    7: items, each: 0 deleted or 1 u8, length of key u8, key, and
//	            unless deleted length of value varint, value
//
// A check is the xxhash64 (seed 0) of all bytes of the stream before it, other
// checks included. So it covers the frame, its place, and the stream that it is
// in: a frame that was changed, lost, doubled, moved or taken from another
// stream does not match, and nothing of it is handed out. It finds accidents,
// not forgery; who needs that sends through ssh or the like.
//
// Version 1 is of a volume, version 2 of a dataset. There size is 0, and what
// records, holes and items are told apart by is their position: the number of a
// record, which is below 2^63, or the first eight bytes of an item's key, big-endian
// and with zeros behind a shorter key, which are above. Cursors and resume are
// positions. Data of a record may be short whatever its codec. Items come behind
// all records, in the order of their keys.
//
// # Compatibility
//
// The header names the features without which the stream cannot be understood;
// a reader refuses those that it does not know, by name. Frames of unknown kind
// are skipped when bit 0 of their flags says so, and refused otherwise. A
// version is raised only when a header can no longer be understood, as that of a
// dataset by who knows volumes alone: version 1 is what volumes are sent in.
//
// # Invariants
//
// They hold for all that a Writer lets out and all that a Reader lets in:
//
//   - Writes, Holes and items ascend, without overlap, from Header.Resume on;
//   - a cursor is behind all records before it in the stream, and not behind
//     any that follow: a receiver that has applied everything up to a
//     Checkpoint can continue there, with a stream whose Resume is the cursor;
//   - a Reader never reads beyond End, so that a connection can be used further;
//   - memory is bounded by [MaxPayload] and [MaxPack], whatever lengths say.
//
// A Reader or Writer is for one goroutine.
package stream
