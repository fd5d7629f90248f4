// Package arrows holds the check that packages import only what the design
// allows.
//
//	cmd → backends → fs/fusefs → fs/union → fs/vfs → fs/layer → whiteout
//	               → blockpool/dataset → blockpool → blockpool/vdev
//
// fs and blockpool never import each other, the union core knows no FUSE, and
// whiteout imports nothing of ours.
package arrows
