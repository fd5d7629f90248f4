//go:build !mutant

package mutant

// Breaks reports whether a rule is broken: never.
func Breaks(Rule) bool { return false }
