// Package fusefs mounts unions: it serves them over FUSE, or has the kernel's
// overlayfs do it, and looks after what is mounted.
//
// # Serving
//
//	kernel ──/dev/fuse──> conn ──> crew ──> rawFS ──> vfs.Filesystem
//	          (device)    bytes    threads  words     meaning: union.FS ──> layers
//
// [Mount] opens the layers first and mounts then (device.go: the mount API,
// mount(2) or fusermount3, whichever this user may), so the server never goes
// through its own mount. conn reads requests and writes replies; crew decides
// on which thread; rawFS translates between the words of FUSE and of package
// vfs, and between the owners that are stored and shown (owners.go). It
// decides nothing else: what a request means is said in package union, or in
// whatever else is served ([MountFilesystem]).
//
// There are two profiles. In the zero-message one, the default, OPEN, OPENDIR,
// FLUSH and ACCESS are answered once with ENOSYS and everything else with
// timeouts beyond any uptime, so that the kernel answers from its caches: what
// was looked at once costs no message. Whatever the server itself changes behind
// the kernel's back, it tells it (conn.dropInode and others). With
// passthrough=on (rawopen.go) OPEN is answered, and the kernel reads and writes
// the files of the upper without the server; in a union without an upper, those of
// the lowers.
//
// # Looking after
//
//	lamina mount  ──> Background ──> the same program again, which mounts,
//	                                 reports back and serves (Serve)
//	lamina ps     ──> Live: the registry, a directory of sockets, one per mount
//	lamina stat   ──> Dial ──socket──> ControlServer ──> Server
//	lamina umount ──> Unmount: whatever it is, also without a server
//
// [Examine] (doctor.go) finds out what this machine and user can do, and
// [MountKernel] has the kernel's overlayfs mount the same options.
//
// # Others
//
// Of unions alone are passthrough, the layers and [Server]. [MountFilesystem] mounts
// and serves whatever answers the questions of package vfs, [MountRaw] any raw
// filesystem by the same devices, conn and crew, and whatever is a
// [Mounted] has itself served by [Serve] or, beside other work, looked after by
// [Attend]. The packages below know no FUSE at all: control has sockets between
// commands and servers, daemon the start of a server in the background.
package fusefs
