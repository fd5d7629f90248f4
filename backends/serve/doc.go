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
// # What is cached
//
// The kernel's page cache may hold what was read and written, as long as the volume
// tells what others change of it ([WatchedBlock]): another mount, an NBD client, a
// command. Whoever changes something is told so only when the kernel has dropped
// what it held of that. What has changed while nobody had the file open is dropped
// when it is opened. Volumes that cannot tell are opened with FOPEN_DIRECT_IO.
//
// Writes go through: write(2) returns when the server has the data, and a page is
// dirty only where a program has written to a shared mapping. So fsync(2) costs what
// it did, a server that is killed takes nothing with it, and the kernel, which may be
// waiting for memory, never waits for this server to get rid of a page.
//
// Programs that ask for O_DIRECT get FOPEN_DIRECT_IO, and each read and write of
// theirs is a request. So it is below a loop device with --direct-io=on, where ext4
// has a cache of its own and a second copy would cost memory; several requests are
// on their way at a time (FUSE_ASYNC_DIO, FOPEN_PARALLEL_DIRECT_WRITES).
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
