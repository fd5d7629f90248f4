// Package nbd serves block devices over the NBD protocol, to qemu, libnbd,
// nbd-client and the kernel driver behind it. What it serves is anything with
// the methods of [Block]: a volume of the pool, a file, memory.
//
// The protocol is the one of doc/proto.md in
// https://github.com/NetworkBlockDevice/nbd, and the words here are its words,
// so that the two can be read side by side. TLS and the experimental extensions
// are left out: the server is meant for a Unix socket, whose permissions say who
// may use it.
//
//	client                                    server
//	  │  ◄── NBDMAGIC IHAVEOPT flags ───────────  │
//	  │  ─── flags ────────────────────────────►  │   negotiation: one thing
//	  │  ─── option: LIST, INFO, … ────────────►  │   at a time, one time limit
//	  │  ◄── replies, the last is ACK or ERR ───  │   for all of it
//	  │  ─── option GO "volume" ───────────────►  │
//	  │  ◄── size, flags, block sizes, ACK ─────  │
//	  ├───────────────────────────────────────────┤
//	  │  ─── request 1, request 2, request 3 ──►  │   transmission: many at
//	  │  ◄── reply 2, reply 1 ──────────────────  │   once, replies in any order
//	  │  ─── DISC ─────────────────────────────►  │
//
// # Model
//
// A connection is one goroutine that reads requests, and one for each request
// that is being handled. The reader takes a place and the memory for a request
// from budgets before it reads the data that belongs to it, and both are given
// back when the reply is written; when there is none, it stops reading and the
// socket makes the client wait. Replies are written by whichever handler
// finds nobody writing, which also writes those that come in the meantime.
//
//	           ┌─► handler ─► Block ─┐
//	reader ────┼─► handler ─► Block ─┼─► replies ─► socket
//	 ▲         └─► handler ─► Block ─┘      │
//	 └──────── places, bytes ◄──────────────┘
//
// # Invariants
//
//   - A handler starts when its request is read, so a FLUSH covers every write
//     that was answered before the FLUSH arrived, over any connection.
//   - A reply to a command with FUA is written after Block.Flush has returned.
//   - Nothing a client sends makes the server hold more than Server.MaxMemory
//     bytes of data, or wait for the client longer than Server.Timeout, except
//     between two requests, where a client may be idle for as long as it likes.
//   - A reply is whole or the connection ends: no client takes stale bytes for
//     data.
//
// # Locks
//
// replies.mu and budget.mu are leaves; neither is held while a Block or the
// socket is waited for. Budgets are taken in the order places of the connection,
// memory of the connection, memory of the server.
package nbd
