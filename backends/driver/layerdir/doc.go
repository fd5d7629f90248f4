// Package layerdir is what drivers share whose layers are directories: records,
// publishing, sweeping, mounting and reading them. Such a driver is a [Kind]: where
// the parts of a layer lie, how a new one is filled, and what a view merges.
//
//	ROOT/lamina.json      what this directory is, see format
//	ROOT/lock             flock: exclusive for each short step
//	ROOT/tmp/             parts that are being made, or taken away, each locked by
//	                      the process that is at it
//	ROOT/mounts/ID        where views of the layer were mounted
//	ROOT/.empty/          a directory without anything, which never changes
//	ROOT/…                the layers, as the kind lays them out
//
// # Invariants
//
//   - A layer exists when its record does. The record is the last part that is
//     published, and the first that is taken away.
//   - A record changes by rename only, so it is the old one or the new one.
//   - Nothing of a committed layer is written to.
//   - A note of a mount counts only while the kernel lists a mount there.
//
// What a crash leaves at each step is said in package driver.
package layerdir
