//go:build mutant

package mutant

import "os"

var broken = Rule(os.Getenv("LAMINA_MUTANT"))

// Breaks reports whether a rule is broken.
func Breaks(r Rule) bool { return r == broken }
