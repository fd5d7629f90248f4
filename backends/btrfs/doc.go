// Package btrfs keeps each layer as a subvolume, which begins as a snapshot of its
// parent's.
//
// The userspace engine keeps them as datasets of a pool below the driver's directory,
// see package datasets.
package btrfs
