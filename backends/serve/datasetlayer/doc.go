// Package datasetlayer is a dataset as a layer: the rules of package dataset in
// the words of package layer, so that what is written for directories (applying an
// archive, comparing trees, a union) works on a dataset that nobody has mounted.
//
//	tree.Apply  tree.Write ──> layer.Dir ──> dataset.FS ──> blockpool.Tree
//
// There is no kernel between, and so nobody who checks permissions, drops what a
// user may not set or refuses devices: whoever may open the pool may make a file of
// any owner in it. That is what an image needs that an ordinary user unpacks.
//
// What the kernel does before it asks a filesystem is not done either: a file is open
// for reading and writing whatever was asked for, chown(2) leaves what it clears to
// the rules of the dataset, and a change that changes nothing is one.
//
// Invariant: a handle has one reference to its node, which Close gives back. All
// handles must be closed before the [dataset.FS] is.
package datasetlayer
