// Package memlayer is a layer in memory: the filesystem below a union, made so
// that a test can see, fail and cut off every single step.
//
//	fs := memlayer.New(memlayer.Options{})
//	fs.MustBuild(`
//		etc/passwd  f 0644 "root:x:0:0"
//		bin/sh      l "dash"
//		gone        c 0 0:0
//	`)
//	fs.OnCall(memlayer.FailNth(7, syscall.EIO)) // the seventh call fails
//	fs.Record()                                 // from here on, for Crash
//	…
//	after := fs.Crash(n, memlayer.Lost)         // the disk after a power cut
//
// # Whom it imitates
//
// ext4 on a current Linux kernel, mounted noatime, called with an empty umask:
// errno for errno, times, link counts, default ACLs, setgid directories, the
// stripping of set-user-ID bits and capabilities, immutable and append-only
// files. The suite of package layertest runs against this package, ext4 and
// tmpfs alike and is what keeps the imitation honest. Knowingly simpler than
// the original: a directory occupies one block however many entries it has,
// link counts of directories do not stop at 65,000, and a write never extends
// past what the caller asked for.
//
// Time is a counter. Each change advances it by a millisecond, so two runs of
// the same calls give the same bytes, and two changes never share a time.
// Inode numbers count up and are never given out twice.
//
// # Calls and faults
//
// Each call of a method of the layer interfaces, apart from Close, is one [Call]
// that the function given to [FS.OnCall] sees before anything happens; an error
// from it is the result of the call. What the interface refuses without asking
// the filesystem (a name such as "..") is no call, as it is no system call of
// the host.
//
// # Crashes
//
// After [FS.Record], every change and every sync is a numbered step.
// [FS.Crash] gives the filesystem that the next mount finds when power fails
// right after a step: no handle is left, and neither are files without a name.
// Its model is what ext4 promises with data=ordered:
//
//   - Changes of metadata (names, links, owners, modes, xattrs, times, sizes
//     set by truncate or fallocate, extents) enter the journal in the order of
//     the calls, each call whole: one rename is never half done. What is found
//     after a crash is therefore the metadata after some prefix of the steps.
//     fsync(2) commits the journal up to then; without it the prefix may lag
//     behind by seconds. A test that looks at the crash after every step sees
//     all of those prefixes, so a lag needs no modelling of its own.
//   - Data is not in the journal, and it is allocated late. Until it has been
//     written back, a file that was created and written is found empty, or cut
//     short; a block that was written over may hold the old bytes or the new,
//     each for itself. Where the size was set by truncate or fallocate, or
//     where write-back was under way when power failed (extents are unwritten
//     until the data is there, the mount option dioread_nolock), the missing
//     blocks read as zeros. Bytes of other files are never found.
//   - Once WriteOut or Sync returned, the data that was written before is part
//     of all later states. For WriteOut that holds because allocation and size
//     went into a transaction that is no later than those of the calls that
//     follow, and the commit of that one flushes the disk's cache. A name given
//     to the file after WriteOut thus never leads to missing data; the name
//     itself may still be missing.
//   - ext4 writes data back early where a file is replaced by rename or after
//     it was truncated to nothing (auto_da_alloc). That is a courtesy, not
//     given by other filesystems, and not modelled.
//
// xfs and btrfs keep the same promises but for one: fsync of a file makes that
// file durable there, not all that happened before. Which prefix a test relies
// on after a sync of something else is for the test to say.
//
// The kill -9 of a server loses nothing that its system calls did: see [Kill].
//
// # Locks
//
// One mutex guards a filesystem. The function given to OnCall runs without it.
package memlayer
