// Package clients tests lamina through the programs that people run it with:
// podman and buildah with lamina as their mount_program, and the command lines
// that containers/storage and the containerd snapshotter give to fuse-overlayfs.
//
// # What is compared
//
// A flow is the life of an image, from the import of a root filesystem to
// prune. It runs four times: as root and as an ordinary user with subordinate
// ids, each once on kernel overlayfs (the client's own mounts) and once through
// lamina. After each step a flow records what a user could see: the entries of
// layers and exported trees with type, mode, owner, size, hash, times, extended
// attributes and hard-link groups, what podman diff prints, what a container sees of
// itself. The records of both flows must be the same.
//
//	          base.tar, Containerfile, packages (made here)
//	               |                       |
//	podman on kernel overlayfs     podman with mount_program
//	               |                       |
//	            records  <- equal? ->   records
//
// # Where it runs
//
// The tests need root, and start again in a mount namespace of their own with a
// private /run and /dev/shm. Whatever a failed test leaves mounted dies with the
// namespace, the podman of the machine shares no lock, no database and no
// runtime directory with the tests, and the namespace has one cgroup2 hierarchy
// where the machine mixes versions, which crun refuses. No registry and no
// network is asked for anything: the root filesystem holds a static busybox and,
// where the machine has them, its dpkg and setfattr with their libraries.
//
// A missing program or a kernel without a feature is a skip with the reason.
//
// # Run it
//
//	go test -tags integration ./integration/clients
//
// LAMINA_BINARY names a lamina to test instead of building one. LAMINA_PEER
// names a fuse-overlayfs whose times are printed beside the others'.
// LAMINA_DEBIAN_MIRROR (a URL or file: path for debootstrap) adds a flow over a
// Debian tree.
package clients
