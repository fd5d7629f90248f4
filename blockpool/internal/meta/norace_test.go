//go:build !race

package meta

const slower = 1
