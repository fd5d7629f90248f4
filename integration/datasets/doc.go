// Package datasets holds the tests of datasets that are mounted: what programs do to
// a filesystem, as root and as an ordinary user, and what commands do to it
// meanwhile. They run under the build tag integration.
//
// The pool is files in a temporary directory. Another process owns and serves it, so
// that it can be killed, and a test that waits for it does not hold it up.
package datasets
