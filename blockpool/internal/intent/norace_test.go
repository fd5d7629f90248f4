//go:build !race

package intent

const slower = 1
