package dataset

import (
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// NameMax is the longest name of a directory entry in bytes (limits.h).
const NameMax = 255

// pathMax is the most bytes that the target of a symbolic link has, its end
// included (limits.h).
const pathMax = 4096

// A Time is a point in time as statx(2) gives it: seconds and nanoseconds since
// the epoch. Nsec may also be unix.UTIME_NOW or unix.UTIME_OMIT where a time is
// set.
type Time struct {
	Sec  int64
	Nsec uint32
}

func timeOf(t time.Time) Time { return Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())} }

func (t Time) before(u Time) bool { return t.Sec < u.Sec || t.Sec == u.Sec && t.Nsec < u.Nsec }

// Attr holds the attributes of a node, as statx(2) does.
type Attr struct {
	Ino     uint64
	Mode    uint32 // file type and permission bits
	Nlink   uint32
	UID     uint32
	GID     uint32
	Rdev    uint64 // device number of a device special file, as unix.Mkdev makes it
	Size    int64  // bytes
	Blocks  int64  // allocated, in units of 512 bytes
	Blksize uint32
	Atime   Time
	Mtime   Time
	Ctime   Time
	Btime   Time
}

// A Caller is on whose behalf something is made.
type Caller struct {
	UID, GID uint32
	Umask    uint32
}

// A Change says which attributes of a node to set; nil leaves one as it is.
type Change struct {
	Mode         *uint32
	UID, GID     *uint32
	Size         *int64
	Atime, Mtime *Time
	// KillPriv clears the suid bit, and the sgid bit where it means
	// execution, because the caller may not keep them (FUSE_HANDLE_KILLPRIV_V2).
	KillPriv bool
}

// A Listed entry is one name of a directory listing.
type Listed struct {
	Name string
	Ino  uint64
	Type uint32 // S_IFMT bits
	// Pos is the position behind the entry: a listing that goes on from
	// there begins with the next one.
	Pos uint64
}

// Statfs holds what statfs(2) tells of a dataset: its own limits where it has
// some.
type Statfs struct {
	Bsize   uint32
	Frsize  uint32
	NameLen uint32
	Blocks  uint64
	Bfree   uint64
	Bavail  uint64
	Files   uint64
	Ffree   uint64
}

// Stats counts what a filesystem has done. All fields only grow.
type Stats struct {
	Lookups, Batches, Shared, Copied, Reclaimed, ReclaimErrors atomic.Uint64
}

// checkName returns EINVAL for what cannot be a directory entry and ENAMETOOLONG
// for what is longer than [NameMax].
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return unix.EINVAL
	case len(name) > NameMax:
		return unix.ENAMETOOLONG
	case strings.ContainsRune(name, '/') || strings.IndexByte(name, 0) >= 0:
		return unix.EINVAL
	}
	return nil
}
