//go:build race

package intent

// The race detector makes each state several times as slow.
const slower = 10
