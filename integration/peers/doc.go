// Package peers has a test for each bug of other union filesystems that lamina
// must not have. Each was seen in one of them: lost data, damaged files, hangs,
// wrong answers. They are told apart by the numbers of the list that they come
// from.
//
// A case is a shell script that acts in a directory of its own, on layers that
// it makes, and prints what it finds. It runs as root and, where it can, as an
// ordinary user who is root of a user namespace. What a shell cannot do, the
// test binary does under other names (tools_test.go).
//
//	go test -tags integration ./integration/peers
package peers
