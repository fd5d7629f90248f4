// Package control is how commands talk to servers that run in the background:
// a Unix socket per server, in a directory where other commands of the same
// user find it.
//
//	command ── Client.Call ──> socket ──> Server ── Handler ──> what is served
//	        <── one JSON line ──────────────┘
//
// Each direction carries one JSON object per line; requests of one connection
// are answered in turn, connections side by side. Only the user who runs the
// server and root get an answer. What the requests mean is the business of the
// two ends.
//
// # Invariants
//
// A socket appears under its name only once it can be connected to, so one that
// refuses is a dead server's, and whoever comes across it removes it
// ([ErrDeadServer]). There is no list beside the sockets that could disagree
// with them.
package control
