// Package kernel compares lamina with kernel overlayfs, the oracle for what a
// union shows.
//
// # Two comparisons
//
// Lock-step: random layers are mounted by both, each with an upper of its own,
// and every operation runs on both. Results and errnos are compared after each
// one, whole trees every few operations, after remounts, after the server was
// killed, and after layers came or went.
//
//	                 ┌─> lamina   ─> result, tree ─┐
//	random operation ┤                             ├─ equal, or a row of kept
//	                 └─> overlayfs ─> result, tree ┘
//
// Interchange: one upper is mounted by lamina and kernel overlayfs in turns, with
// operations between. What one showed when it was unmounted the other must
// show, to the nanosecond of each mtime. Now and then the upper becomes a lower
// and an empty one takes its place.
//
// Both read the layers as the disk has them: as root with trusted.overlay.*,
// and, in a second process started by [TestRootless], in a user namespace of an
// ordinary user with user.overlay.*.
//
// # Seeds
//
// A seed decides on layers, options and operations. A failure prints the seed
// and a list of operations, one JSON object a line, that was made as short as
// possible.
//
//	go test -tags integration ./integration/kernel        # a minute, as root
//	LAMINA_SEEDS=1000 go test -tags integration -timeout 3h ./integration/kernel
//	LAMINA_SEED=42 go test -tags integration -run 'TestLockStep$' ./integration/kernel
//	LAMINA_SEED=42 LAMINA_OPS=file …                      # these operations, not the seed's
//
// LAMINA_BINARY names a lamina to test instead of building one.
package kernel
