// Package daemon turns a command into a server in the background, and brings
// the errors of its start back to whoever waits for it.
//
//	command                     server
//	Start ──── same program ──> TakeParent
//	    │                         Prepare, then whatever makes it usable
//	    │                         Detach: let go of stdin, stdout, stderr
//	    <──── Ready or Fail ──────┘
//	goes on                       serves
//
// A fork would carry over one thread of a Go program only, so the program is
// started again. What the server serves is no business of this package.
package daemon
