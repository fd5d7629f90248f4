// Package stream is the container that volumes travel in between pools: what
// send writes and receive reads. It knows frames, digests and order; which
// records are sent, and what becomes of them, is the pool's business.
//
//	header │ Property… │ Write Hole Write … Checkpoint … │ End
//	  │                                          │           │
//	  │ a check after each, over all bytes so far: a chain ──┘
//	  └ who is sent, since which snapshot, from which record on
//
// # Format, version 1
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
//	End      6: varints: writes, bytes, records in holes, properties, frames
//	Item     7: 1 or, where there is none any more, 0 (u8), length of key u8, key, value
//
// A check is the xxhash64 (seed 0) of all bytes of the stream before it, other
// checks included. So it covers the frame, its place, and the stream that it is
// in: a frame that was changed, lost, doubled, moved or taken from another
// stream does not match, and nothing of it is handed out. It finds accidents,
// not forgery; who needs that sends through ssh or the like.
//
// # Compatibility
//
// The header names the features without which the stream cannot be understood;
// a reader refuses those that it does not know, by name. Frames of unknown kind
// are skipped when bit 0 of their flags says so, and refused otherwise. A
// version is raised only when a header can no longer be read.
//
// # Invariants
//
// They hold for all that a Writer lets out and all that a Reader lets in:
//
//   - Writes and Holes ascend by record, without overlap, from Header.Resume on;
//   - Items are in streams with [FeatureDataset], behind all records, and ascend by key;
//   - a cursor is behind all records before it in the stream, and not behind
//     any that follow: a receiver that has applied everything up to a
//     Checkpoint can continue there, with a stream whose Resume is the cursor;
//   - a Reader never reads beyond End, so that a connection can be used further;
//   - memory is bounded by [MaxPayload] and [MaxPack], whatever lengths say.
//
// A Reader or Writer is for one goroutine.
package stream
