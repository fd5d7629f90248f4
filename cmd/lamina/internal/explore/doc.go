// Package explore is the terminal browser of lamina explore: the layers of a
// stack on the left, on the right the tree as it was once the chosen layer had
// been laid on, with what that layer did to it.
//
//	keys ──> Model ──> Draw(screen)        a Model knows no terminal, but for
//	           │                           the number of its lines
//	           └── load: one walk of package inspect per layer that is looked at
//
// What a layer did is told by a letter (A added, M changed, D removed), by a
// colour where there are colours, and by nothing else, so that it can be read on
// any terminal of 80 by 24. Names are shown by package safename: a file's name
// never reaches the terminal as it is.
//
// The tree of a layer is kept in memory while it is shown, some 150 bytes for
// each file. All of it runs in one goroutine.
package explore
