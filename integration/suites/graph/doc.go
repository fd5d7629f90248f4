// Package graph gives a storage driver the shape of a graph driver, as Docker's daemon
// and podman know it, in lamina's words. Packages podman and moby translate the types.
//
// # Model
//
// Graph drivers make no difference between layers that are written to and layers that
// are built on. Here a layer is committed when the first other is built on it; a view of
// it that somebody uses is made anew, read-only.
//
// A view is counted: Get mounts a layer for the first of its users, Put takes it away
// with the last.
//
// What differs is told by paths with a leading slash, and with each directory that leads
// to a change as changed itself, for that is what Docker shows; lamina lists a directory
// when something about it is not as it was.
package graph
