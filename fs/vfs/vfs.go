// Package vfs has the words in which a mounted filesystem is asked: those that
// package fusefs, which serves one, and whatever is served have in common.
//
//	kernel ──> fusefs ──> vfs.Filesystem ── union.FS
//	                                     └─ a dataset of a pool, adapted
//
// A [Filesystem] is asked what a program has asked of the kernel, after the
// kernel has checked the permissions: it applies the rules that are left, such as
// those about suid bits, and checks no access. It knows neither paths nor open
// files, only nodes.
//
// # Nodes
//
// A node is one file, whatever its names. The kernel is told its id, and each
// answer that names one is one more reference to it, which the kernel gives back
// in time. Until then the node means the same file, also when its last name is
// gone; so an unlinked file that is still open somewhere is known by its node
// alone, and what it takes is freed when the node is forgotten.
//
// # Errors
//
// They carry an errno, found by errors.As; what has none is EIO. ENOENT and
// ENODATA are answers rather than failures.
package vfs

import "github.com/laminafs/lamina/fs/layer"

// Attr are the attributes of a file as the mount shows them.
type Attr = layer.Stat

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
	Atime, Mtime *layer.Time
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

// A Node is a file as a [Filesystem] hands it out, usually a pointer; the zero
// value is no node.
type Node interface {
	comparable
	ID() uint64   // unique among the nodes that are referred to; the root's is 1
	Ino() uint64  // the inode number that is shown
	Type() uint32 // S_IFMT bits
}

// A Filesystem is what can be mounted and served. Its methods are called side by
// side. Names are what a directory entry may be called, except where a method has
// to expect others: "", ".", ".." and names with a slash give EINVAL, too long
// ones ENAMETOOLONG.
type Filesystem[N Node] interface {
	// Node returns the node of an id that the kernel was told, or none.
	Node(id uint64) N
	// Nodes returns how many nodes are referred to.
	Nodes() int
	// LookupID looks up a name and adds a reference to what it leads to.
	LookupID(p N, name string) (id uint64, a Attr, err error)
	// Forget takes back count references; it reports whether no one is left.
	Forget(n N, count uint64) bool
	// ForgetID is Forget by id. It returns the node if no reference is left.
	ForgetID(id, count uint64) N

	GetAttr(n N) (Attr, error)
	SetAttr(n N, c Change) (Attr, error)
	Readlink(n N) (string, error)
	Statfs() (layer.Statfs, error)

	// What is made has one reference, and Link adds one.
	Create(p N, name string, mode uint32, c Caller) (N, Attr, error)
	Mknod(p N, name string, mode uint32, rdev uint64, c Caller) (N, Attr, error)
	Mkdir(p N, name string, mode uint32, c Caller) (N, Attr, error)
	Symlink(p N, name, target string, c Caller) (N, Attr, error)
	Tmpfile(p N, mode uint32, c Caller) (N, Attr, error) // without a name, for Link
	Link(n, p N, name string) (Attr, error)
	Unlink(p N, name string) error
	Rmdir(p N, name string) error
	Rename(op N, oname string, np N, nname string, flags uint) error // flags of renameat2(2)

	// ReadDir lists p from a position on, 0 being the start, until emit returns
	// false. "." and ".." are not listed. Positions stay valid while the directory
	// changes: a name that is there all the time is listed exactly once.
	ReadDir(p N, pos uint64, emit func(Listed) bool) error
	ParentIno(p N) uint64 // of the directory that holds p

	// Read and Write are pread(2) and pwrite(2); Read is short at the end only.
	// kill takes away suid and sgid as in [Change].
	Read(n N, p []byte, off int64) (int, error)
	Write(n N, p []byte, off int64, kill bool) (int, error)
	// WriteBack is Write for what the kernel has held back. It leaves the time of
	// the last change alone, which the kernel sets by itself.
	WriteBack(n N, p []byte, off int64, kill bool) (int, error)
	Fsync(n N, dataOnly bool) error
	Fallocate(n N, mode uint32, off, length int64, kill bool) error
	Seek(n N, off int64, whence int) (int64, error) // SEEK_DATA and SEEK_HOLE
	// CopyRange is copy_file_range(2); EOPNOTSUPP makes the kernel copy.
	CopyRange(src, dst N, srcOff, dstOff int64, length int, kill bool) (int, error)

	// Without dest, Getxattr and Listxattr return the size only.
	Getxattr(n N, attr string, dest []byte) (int, error)
	Listxattr(n N, dest []byte) (int, error)
	// Setxattr has the flags of setxattr(2). killSgid clears the sgid bit, as
	// setting an ACL by someone outside of the group does.
	Setxattr(n N, attr string, value []byte, flags int, killSgid bool) error
	Removexattr(n N, attr string) error

	Flags(n N) (uint32, error) // of chattr(1)
	SetFlags(n N, flags uint32) error
}

// A Discreet filesystem keeps access times, and can read without moving them.
type Discreet[N Node] interface {
	// ReadQuietly is Read for a file that was opened with O_NOATIME.
	ReadQuietly(n N, p []byte, off int64) (int, error)
}

// A Restless filesystem has directories whose names come and go without the
// kernel having asked for it, and without it being told.
type Restless[N Node] interface {
	// Restless reports whether p is such a directory.
	Restless(p N) bool
}
