// Package suites has lamina's storage drivers pass the suites by which other projects
// judge theirs. It is a module of its own, so that lamina does not depend on them.
//
//	podman's graphtest     moby's graphtest      containerd's testsuite
//	       │ podman/              │ moby/                │ containerd/
//	       └──────► graph/ ◄──────┘                      ▼
//	                  │                          backends/store
//	                  └──► backends/driver ◄─────────────┘
//
// The adapters say in one place each what the other side's model has that lamina's
// has not, and the other way round: graph drivers know no commit, snapshotters know
// views and hand out mounts for others to make. Each case that lamina does not pass on
// purpose stands in the table of a test, with the reason.
package suites
