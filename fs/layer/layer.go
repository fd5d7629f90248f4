// Package layer says what a layer of a union is: a directory tree that is
// only ever entered from its root, one name at a time.
//
// The union rules (package union) never see a path. They hold directories
// and objects of a layer and name their children:
//
//	Dir ── OpenDir("usr") ──> Dir ── StatAt("passwd") ──> Stat
//	                           └──── OpenFile("passwd") ──> File
//
// Each method is one system call of the backing filesystem, or a fixed small
// number of them, and reports the errno of that call. That makes the boundary
// the place where tests count calls, let each of them fail in turn, and cut
// the power between any two of them (package memlayer).
//
// # Invariants
//
//   - A name is a single component: not empty, no slash, no NUL, not "." and
//     not "..". Every at-method answers EINVAL to anything else, so that what a
//     hostile layer contains can never lead outside of it.
//   - No method follows a symbolic link.
//   - Errors are, or wrap, a syscall.Errno. Absence (ENOENT, ENODATA) is told
//     apart from failure (EIO and all others): who cannot tell must not guess.
//   - A handle stays usable when the file it stands for is renamed or unlinked.
//
// [Host] serves directories of the running system through file descriptors.
package layer

import (
	"io"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// NameMax is the longest name of a directory entry in bytes (limits.h).
const NameMax = 255

// A Time is a point in time as statx(2) gives it: seconds and nanoseconds
// since the epoch. Nsec may also be unix.UTIME_NOW or unix.UTIME_OMIT where a
// time is set.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Stat holds the attributes of an object, as statx(2) does.
type Stat struct {
	Dev     uint64 // device that holds the object, as unix.Mkdev makes it
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
	Btime   Time // zero where the filesystem has none

	// MountRoot tells that another filesystem is mounted on the object
	// (STATX_ATTR_MOUNT_ROOT).
	MountRoot bool
}

// Type returns the S_IFMT bits of the mode.
func (s *Stat) Type() uint32 { return s.Mode & unix.S_IFMT }

// IsDir reports whether the object is a directory.
func (s *Stat) IsDir() bool { return s.Type() == unix.S_IFDIR }

// IsRegular reports whether the object is a regular file.
func (s *Stat) IsRegular() bool { return s.Type() == unix.S_IFREG }

// IsWhiteoutDevice reports whether the object is a character device 0:0, the
// kernel's mark for a deleted name (Documentation/filesystems/overlayfs.rst,
// "whiteouts and opaque directories").
func (s *Stat) IsWhiteoutDevice() bool { return s.Type() == unix.S_IFCHR && s.Rdev == 0 }

// A Dirent is one entry of a directory as getdents64(2) gives it.
type Dirent struct {
	Name string
	Ino  uint64
	Type uint32 // S_IFMT bits, 0 where the filesystem does not say (DT_UNKNOWN)
}

// A FileHandle is what name_to_handle_at(2) gives: an identity of an inode
// that survives renames and remounts.
type FileHandle struct {
	Type  int32
	Bytes []byte
}

// Statfs holds what statfs(2) tells of the filesystem below a directory.
type Statfs struct {
	Type    int64 // f_type, one of the *_MAGIC numbers of linux/magic.h
	Bsize   uint32
	Frsize  uint32
	NameLen uint32
	Blocks  uint64
	Bfree   uint64
	Bavail  uint64
	Files   uint64
	Ffree   uint64
}

// An Object is a handle to one file of a layer, whatever its type.
//
// Xattr names are full ("user.a", "trusted.overlay.opaque"). Getxattr and
// Listxattr return the number of bytes put into dest; with an empty dest they
// return the size needed; ERANGE tells that dest is too small. ENODATA is the
// absence of the attribute, EOPNOTSUPP of the whole namespace.
type Object interface {
	io.Closer
	Stat() (Stat, error)
	// Chmod sets the permission bits, suid, sgid and sticky included.
	Chmod(mode uint32) error
	// Chown sets owner and group; -1 leaves one as it is. Like chown(2) it
	// may clear the suid and sgid bits.
	Chown(uid, gid int) error
	// SetTimes sets both times; UTIME_OMIT and UTIME_NOW in Nsec work.
	SetTimes(atime, mtime Time) error
	Getxattr(attr string, dest []byte) (int, error)
	Listxattr(dest []byte) (int, error)
	// Setxattr takes XATTR_CREATE and XATTR_REPLACE in flags.
	Setxattr(attr string, value []byte, flags int) error
	Removexattr(attr string) error
	// Readlink returns the target of a symbolic link, EINVAL for all else.
	Readlink() (string, error)
	// Reopen opens the data of a regular file anew, through the handle and not
	// by any name. Flags are those of open(2).
	Reopen(flags int) (File, error)
	// Handle returns the identity of the inode, EOPNOTSUPP where the
	// filesystem has no file handles.
	Handle() (FileHandle, error)
}

// A File is an open regular file.
type File interface {
	Object
	// ReadAt reads like pread(2): fewer bytes than asked for means the end
	// of the file, and no error.
	ReadAt(p []byte, off int64) (int, error)
	// WriteAt writes all of p like a loop of pwrite(2).
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	// Allocate is fallocate(2) with its modes.
	Allocate(mode uint32, off, length int64) error
	// Seek answers SEEK_DATA and SEEK_HOLE without moving anything; ENXIO
	// past the last data.
	Seek(off int64, whence int) (int64, error)
	// Sync makes the data durable, and the attributes too unless dataOnly.
	Sync(dataOnly bool) error
	// WriteOut starts and awaits the write-out of dirty pages without
	// forcing a commit of the filesystem's journal (sync_file_range(2)).
	WriteOut() error
	// CopyRangeFrom is copy_file_range(2) out of src. EXDEV, EOPNOTSUPP and
	// EINVAL tell that the pair of files cannot do it.
	CopyRangeFrom(src File, srcOff, dstOff int64, length int) (int, error)
	// CloneFrom makes this file share all data of src (FICLONE).
	CloneFrom(src File) error
	// CloneRangeFrom shares a range of src (FICLONERANGE).
	CloneRangeFrom(src File, srcOff, length, dstOff int64) error
	Flagged
}

// Flagged is what files and directories have and other objects have not: the
// inode flags of chattr(1).
type Flagged interface {
	// Flags returns them (FS_IOC_GETFLAGS).
	Flags() (uint32, error)
	// SetFlags sets them (FS_IOC_SETFLAGS).
	SetFlags(flags uint32) error
}

// A Dir is an open directory of a layer.
type Dir interface {
	Object
	Flagged
	// StatAt returns the attributes of a child.
	StatAt(name string) (Stat, error)
	// GetxattrAt is Getxattr of a child, without opening it first.
	GetxattrAt(name, attr string, dest []byte) (int, error)
	// ListxattrAt is Listxattr of a child.
	ListxattrAt(name string, dest []byte) (int, error)
	// ReadlinkAt returns the target of a symbolic link.
	ReadlinkAt(name string) (string, error)
	// Lookup returns a handle to a child of any type. It opens nothing that
	// has a driver behind it (O_PATH).
	Lookup(name string) (Object, error)
	// OpenFile opens a regular file; with O_CREAT|O_EXCL it makes one. Flags
	// are those of open(2); a child of another type gives ENXIO, ELOOP or
	// EISDIR and is never opened as a device or FIFO.
	OpenFile(name string, flags int, mode uint32) (File, error)
	// OpenDir opens a child directory, ENOTDIR for all else.
	OpenDir(name string) (Dir, error)
	// ReadDir returns all entries but "." and "..", in the order that the
	// filesystem gives.
	ReadDir() ([]Dirent, error)

	// Mkdir, Mknod and Symlink make a child. The umask of the process is
	// never applied; a default ACL of the directory is.
	Mkdir(name string, mode uint32) error
	Mknod(name string, mode uint32, rdev uint64) error
	Symlink(target, name string) error
	// Link gives obj, which must be of the same filesystem, another name.
	// A file from TmpFile gets its first name that way.
	Link(obj Object, name string) error
	Unlink(name string) error
	Rmdir(name string) error
	// Rename moves a child to newName in to, with the flags of renameat2(2).
	Rename(oldName string, to Dir, newName string, flags uint) error
	// TmpFile makes a regular file without a name (O_TMPFILE), open for
	// reading and writing.
	TmpFile(mode uint32) (File, error)
	// Sync makes the directory's entries durable.
	Sync() error
	Statfs() (Statfs, error)
	// UUID returns the identity of the filesystem (FS_IOC_GETFSUUID), zero
	// where it has none or does not tell.
	UUID() [16]byte
}

// CheckName returns EINVAL for what cannot be a directory entry and
// ENAMETOOLONG for what is longer than NameMax.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return syscall.EINVAL
	case len(name) > NameMax:
		return syscall.ENAMETOOLONG
	case strings.ContainsRune(name, '/') || strings.IndexByte(name, 0) >= 0:
		return syscall.EINVAL
	}
	return nil
}
