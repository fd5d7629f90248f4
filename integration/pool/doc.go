// Package pool tests pools as people use them: the program lamina in processes of
// its own, real files, and what lies above an exported volume.
//
//	mkfs, mount, e2fsck, xfs_repair      qemu-img, qemu-io, nbdinfo
//	          │ loop device                      │ socket
//	          └── volume export --loop ──┬── volume export --nbd
//	                                lamina pool serve
//
// The server is killed while the kernel's ext4 and xfs are at work on a volume, and
// what the next one exports must be clean after the kernel has replayed its journal.
//
// It runs under the build tag integration. Loop devices need root; exports over FUSE
// and NBD are tried as an ordinary user too. LAMINA_CRASHES says how often a
// filesystem loses its server.
package pool
