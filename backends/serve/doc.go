// Package serve is where the pool and FUSE meet: it shows the volumes of a pool
// as files in a mounted directory.
//
//	        losetup, qemu, fuse2fs, dd
//	                  │
//	TARGET/vol        │ 0600, as large as the volume
//	TARGET/vol@snap   │ 0400
//	TARGET/a/b        │ a directory for each "/" in a name
//	                  ▼
//	kernel ──/dev/fuse──> fusefs.RawMount ──> volumeFS ──> Volumes, Block
//
// [MountVolumes] does it; what it serves from is [Volumes], which a pool
// implements and servetest by sparse files. Mounting, threads, the control socket
// and the life in the background are those of package fusefs.
//
// # What a file promises
//
// A volume is like a disk whose name looks like a file's. Its size is fixed here,
// writes behind its end give ENOSPC, fsync(2) and fdatasync(2) are one
// [Block.Flush] each and close(2) is none. fallocate(2) with FALLOC_FL_PUNCH_HOLE
// is [Block.Discard], with FALLOC_FL_ZERO_RANGE [Block.Zero], and plain it only
// checks the range: space comes when data does. Mode, owner and size cannot be
// changed through the mount.
//
// # Why nothing is cached
//
// Files are opened with FOPEN_DIRECT_IO, so every read and write of any program
// is a request, and the page cache holds nothing. Below a loop device that is the
// point: ext4 above it has its own cache, a second copy would cost memory and
// could be written back only by the server, which may be waiting for that memory.
// Loop devices with --direct-io=on send several requests at a time
// (FUSE_ASYNC_DIO, FOPEN_PARALLEL_DIRECT_WRITES); without it they work too.
//
// # Invariants
//
//   - Names are asked for anew each time: what the pool creates, renames or
//     destroys shows at once.
//   - A node of the kernel is one volume, by [VolumeInfo.ID], whatever its name.
//     An ID that is gone gives ESTALE, never another volume.
//   - A volume is opened with its first descriptor and closed with the last one,
//     or when the mount is gone.
//
// Locks: node.mu and table.mu are never held together, and neither while a volume
// reads or writes. node.mu is held while its volume is opened or closed.
package serve
