// Package thinxml reads and writes the XML of thin_dump and thin_restore: what
// a pool of the kernel's thin-provisioning target maps, as text. A pool of
// lamina goes to dm-thin and back through it.
//
//	superblock ── uuid, time, transaction, block size, number of data blocks
//	 ├─ def ──── mappings under a name, for devices that share them
//	 └─ device ─ id, mapped blocks, transaction, times
//	     ├─ single_mapping   origin block → data block
//	     ├─ range_mapping    the same for a run of blocks
//	     └─ ref ── what the def of that name holds
//
// # Model
//
// Both directions are streams: a [Writer] is given one mapping after the other,
// a [Reader] hands them out. Blocks are counted in units of the superblock's
// DataBlockSize. Two devices share a block when both map it.
//
// The form that is written is what thin_dump 0.9 prints, byte for byte. That
// version of thin_restore knows neither def nor ref ("unknown tag type"), so
// the writer never uses them; the reader resolves them, since thin_dump 1.0 and
// later may print them.
//
// # Invariants
//
// They hold for all that a Writer lets out and all that a Reader lets in:
//
//   - devices ascend by id, mappings of a device by origin, without overlap;
//   - every data block is below NrDataBlocks, no sum overflows, and every
//     position fits an int64 when it is counted in bytes;
//   - a device maps as many blocks as its mapped_blocks says.
//
// thin_restore 0.9 checks little of this: a time beyond 24 bits ends up in the
// number of the data block, of two mappings of one block the later wins, and
// mapped_blocks is counted anew. It drops the uuid as well.
//
// Memory is constant, except that the reader keeps the definitions, packed, up
// to a limit. Entities other than XML's own five cannot be declared; elements
// and attributes that are not in the picture are refused by name. A Reader or
// Writer is for one goroutine.
package thinxml
