// Package volumes holds the tests of volumes as files in a FUSE mount: with loop
// devices and kernel filesystems above them, as root, and with the tools of
// ordinary users. They run under the build tag integration.
//
// The volumes are sparse files (package servetest), served by another process, so
// that it can be killed and a test that waits for it does not hold it up.
package volumes
