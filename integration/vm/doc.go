// Command vm runs tests in a Debian kernel of its own, under qemu's software
// emulation, for what the kernel of a build machine does not have: device-mapper,
// zfs, network block devices.
//
//	Debian packages ──> cache/guest   a root filesystem, and a kernel with modules
//	                └─> cache/tools   qemu; a compiler and headers, for zfs
//	go test -c ───────> initramfs = guest + guest/main.go as /init + test binaries
//	qemu ─ console ──> console.log      ─ second port ──> results ──> what passed
//
// # Model
//
// Packages come by apt with a state of its own in the cache, so neither the
// machine's packages nor its sources change, and are unpacked, not installed: no
// script of theirs runs. That needs no root, but a user namespace for those who
// are not root, and apt and dpkg-deb of the machine. A suite (suites.go) is what is
// asked for by name: which packages of this module are compiled, which modules the
// kernel loads, which tests have to pass there. Further suites cost nothing until
// they are asked for: zfs is compiled for the kernel when its suite is run first,
// which takes a quarter of an hour, and kept.
//
// The whole root filesystem is an initramfs, so that the machine needs no driver to
// begin with; what tests write goes to a sparse disk that is made anew for each
// run.
//
// # Invariants
//
//   - What is in the cache under its final name is whole: it is made beside it and
//     renamed.
//   - A run ends: qemu is killed when the time is over, and every test binary in the
//     machine has a time of its own.
//   - A test that a suite is there for and that was skipped is a failure.
package main
