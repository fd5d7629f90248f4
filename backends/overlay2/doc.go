// Package overlay2 keeps each layer as a directory of differences and shows a
// stack of any depth by one union: the kernel's overlayfs, or lamina's server.
//
//	ROOT/ID/diff      what the layer changes, deletions as overlay marks
//	ROOT/ID/link      the layer's short name
//	ROOT/ID/lower     the short paths of its parents, the nearest first: l/A:l/B
//	ROOT/ID/work      for the union, while the layer is active
//	ROOT/ID/merged    where the layer is mounted unless another place is given
//	ROOT/ID/committed there once the layer never changes
//	ROOT/ID/layer.json  the record
//	ROOT/l/NAME       a symbolic link to ../ID/diff
//
// The layout is that of Docker's driver of this name. The short names, made from
// the ids by hashing, keep the options of a mount with hundreds of layers short. In a
// user namespace marks are kept in user.overlay.* and the mount has userxattr.
package overlay2
