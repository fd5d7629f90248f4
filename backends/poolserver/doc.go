// Package poolserver is the process that owns a pool, and the way in which
// commands talk to it.
//
//	lamina volume create …       lamina pool serve DIR
//	  Place.Connect ── starts ──────> Serve
//	  Op.Call ── request, files ────> the same Op ──> blockpool.Pool
//	          <── progress … ───────┐     │
//	          <── result or error ──┘     ├──> exports: FUSE mounts, NBD sockets
//	                                      └──> hook: a program for each event
//
// # Model
//
// bbolt's lock is exclusive, so one process has a pool, and everybody else asks
// it. [Place.Connect] finds it by the socket in the pool's directory and starts it
// when nobody answers there; it ends by itself when nothing was asked of it for a
// while and nothing is exported. Who starts one while another is about to loses
// the pool's lock and becomes a client of that one. A server that was killed leaves
// its socket behind; the next start recovers the pool and replaces it, and makes the
// exports again that there were (remember.go).
//
// What can be asked for is one table (ops.go) of [Op] values. Each is a name, the
// types of its arguments and its result, and the function that does it: commands
// call it by [Op.Call], the server runs it, and nothing else has to be written for
// a new one.
//
// # Protocol
//
// One JSON object a line, each way, on a Unix socket of mode 0600 whose peer must
// be the user who runs the server, or root. The server begins with a [Greeting]; a
// connection that ends without one has asked for nothing. Then, one after the
// other:
//
//	> {"op":"volume.read","args":{…}}       files by SCM_RIGHTS along with it
//	< {"progress":{"done":1048576,…}}       any number, for what takes long
//	< {"result":{…}}  or  {"error":{"message":…,"errno":…}}
//
// Streams do not pass through the client: it hands over its own stdin or stdout.
//
// # Invariants
//
//   - A server runs as the user whose the metadata is, also when root starts it.
//   - Only who holds the pool's lock has the socket, except for one that was left
//     behind. It is removed before the lock is given back, so a server never
//     removes the socket of the next one.
//   - A client that was greeted is served: the server ends by itself only when
//     there is none.
//   - A client that goes away ends its waiting and its streams. What the pool does
//     as one step is done or not, and long work of the pool's own (jobs.go) goes on.
//   - Requests end before the pool is closed; jobs are interrupted by that, and go on
//     when it is opened again.
//
// Locks: exports.making and exports.saving before exports.mu, and Server.mu before activity.mu and job.mu;
// hook.mu is a leaf.
package poolserver
