//go:build race

package meta

// The race detector makes each state several times as slow.
const slower = 10
