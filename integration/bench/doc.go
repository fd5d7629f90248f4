// Command bench compares union filesystems on one machine in one run.
//
// Every subject (kernel overlayfs, each fuse-overlayfs found, unionfs-fuse, and
// both profiles of lamina) is mounted over the same eight generated layers, with
// an upper and a work directory of its own on the same filesystem, and does the
// same work. Kernel overlayfs is the reference: its time is 1.
//
// # Method
//
// A machine drifts: its disk, its other tenants and its clock are not the same
// from minute to minute. Times taken in two runs therefore say little about two
// filesystems. So the subjects take turns, A B C, B C A, C A B, one turn per
// round, and what is compared are times of the same round:
//
//	for each workload
//	    for each round, subjects in rotated order
//	        fresh upper and work directory, mount, prepare   (not timed)
//	        the work                                         (timed)
//	        unmount, wait for the server to end              (not timed)
//
// Nothing outlives a repetition, so no workload profits from what another one
// left in an upper directory or in the caches of a server. The lower layers are
// never changed; whether they are in the page cache is part of each workload and
// arranged before the clock starts.
//
// For each pair of subject and reference the report has the ratio of medians and
// the per-round ratios with their minimum, median and maximum: if those two
// medians disagree, the machine drifted and the run should be longer.
//
// # Processes
//
//	launcher ── scratch directory, builds lamina, drops caches, writes reports
//	   └─ worker ── own mount namespace (and user namespace with --rootless)
//	         └─ servers and commands of one repetition
//
// The launcher keeps the privileges with which it was started; that is why a
// rootless worker can have cold caches when the launcher is root. Both are child
// subreapers, so a server that went to the background is still found by its
// parent and ended by its process id, and nothing stays mounted or running when
// a run is interrupted or the worker dies.
package main
