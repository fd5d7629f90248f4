package fusefs

import (
	"errors"
	"log"
	"math"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/vfs"
)

// rawFS answers the kernel's requests from a filesystem. It translates and decides
// nothing: what a request means is said by the filesystem.
//
// In the zero-message profile OPEN, OPENDIR, FLUSH and ACCESS are answered with
// ENOSYS once, which makes the kernel never ask again and keep its caches from
// open to open. There are then no file handles: all requests name a node.
type rawFS[N vfs.Node] struct {
	fuse.RawFileSystem
	fs       vfs.Filesystem[N]
	restless vfs.Restless[N] // nil: nothing comes and goes by itself
	discreet vfs.Discreet[N] // nil: reading moves no access times
	count    counters
	// timeout is how long the kernel may believe what it was told.
	timeout time.Duration
	// writeOut makes the kernel hand over what it holds back of a file and drop
	// it from its cache; nil without write-back.
	writeOut func(node uint64)
	// dropAttrs makes the kernel forget the attributes of a node.
	dropAttrs func(node uint64)
	owners    owners
	// initialRoot tells that the server is root outside of all user namespaces.
	initialRoot bool
	log         *log.Logger
}

func newRawFS[N vfs.Node](cfg *FilesystemConfig[N]) *rawFS[N] {
	if cfg.Log == nil {
		cfg.Log = log.Default()
	}
	r := &rawFS[N]{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		fs:            cfg.FS,
		timeout:       forever,
		owners:        newOwners(cfg.Owners),
		initialRoot:   initialRoot(),
		log:           cfg.Log,
	}
	r.restless, _ = cfg.FS.(vfs.Restless[N])
	r.discreet, _ = cfg.FS.(vfs.Discreet[N])
	if cfg.Timeout != nil {
		r.timeout = min(*cfg.Timeout, forever)
	}
	return r
}

// forever is as good as never for a cache, and is not an overflow to anyone.
const forever = 10 * 365 * 24 * time.Hour

// counters counts the requests by operation.
type counters struct {
	ops           [opCount]atomic.Uint64
	errors        atomic.Uint64
	read, written atomic.Uint64
	writesDone    atomic.Uint64
}

type op int

const (
	opLookup op = iota
	opForget
	opGetattr
	opSetattr
	opReadlink
	opSymlink
	opMknod
	opMkdir
	opUnlink
	opRmdir
	opRename
	opLink
	opOpen
	opRead
	opWrite
	opStatfs
	opFsync
	opSetxattr
	opGetxattr
	opListxattr
	opRemovexattr
	opReaddir
	opReaddirplus
	opCreate
	opTmpfile
	opIoctl
	opFallocate
	opLseek
	opCopyFileRange
	opStatx
	opCount
)

var opNames = [opCount]string{
	"LOOKUP", "FORGET", "GETATTR", "SETATTR", "READLINK", "SYMLINK", "MKNOD", "MKDIR", "UNLINK", "RMDIR",
	"RENAME", "LINK", "OPEN", "READ", "WRITE", "STATFS", "FSYNC", "SETXATTR", "GETXATTR", "LISTXATTR",
	"REMOVEXATTR", "READDIR", "READDIRPLUS", "CREATE", "TMPFILE", "IOCTL", "FALLOCATE", "LSEEK",
	"COPY_FILE_RANGE", "STATX",
}

func (r *rawFS[N]) String() string { return "lamina" }

// begin counts a request.
func (r *rawFS[N]) begin(o op) { r.count.ops[o].Add(1) }

// status turns an error into a reply.
func (r *rawFS[N]) status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var e syscall.Errno
	if !errors.As(err, &e) {
		e = unix.EIO
	}
	if e == unix.EIO && err != error(e) { // there is more to know than the number
		r.log.Printf("I/O error: %v", err)
	}
	if e != unix.ENOENT && e != unix.ENODATA {
		r.count.errors.Add(1)
	}
	return fuse.Status(e)
}

// node finds the node of a request. The kernel only names what it was given, so
// a missing one is a damaged request.
func (r *rawFS[N]) node(id uint64) (n N, ok bool) {
	var none N
	n = r.fs.Node(id)
	return n, n != none
}

// nodes finds the two nodes of a request.
func (r *rawFS[N]) nodes(a, b uint64) (n, m N, ok bool) {
	n, okN := r.node(a)
	m, okM := r.node(b)
	return n, m, okN && okM
}

const stale = fuse.Status(unix.ESTALE)

func (r *rawFS[N]) fillAttr(out *fuse.Attr, a *vfs.Attr) {
	out.Ino = a.Ino
	out.Size = uint64(a.Size)
	out.Blocks = uint64(a.Blocks)
	out.Atime, out.Atimensec = uint64(a.Atime.Sec), a.Atime.Nsec
	out.Mtime, out.Mtimensec = uint64(a.Mtime.Sec), a.Mtime.Nsec
	out.Ctime, out.Ctimensec = uint64(a.Ctime.Sec), a.Ctime.Nsec
	out.Mode = a.Mode
	out.Nlink = a.Nlink
	out.Uid, out.Gid = r.owners.user.shown(a.UID), r.owners.group.shown(a.GID)
	out.Rdev = uint32(a.Rdev)
	out.Blksize = a.Blksize
}

// nameTimeout is how long the kernel may believe that a directory has a name, or
// that it has not.
func (r *rawFS[N]) nameTimeout(p N) time.Duration {
	if r.restless != nil && r.restless.Restless(p) {
		return 0
	}
	return r.timeout
}

func (r *rawFS[N]) entry(out *fuse.EntryOut, p N, id uint64, a *vfs.Attr) {
	out.NodeId = id
	out.SetEntryTimeout(r.nameTimeout(p))
	out.SetAttrTimeout(r.timeout)
	r.fillAttr(&out.Attr, a)
}

func (r *rawFS[N]) attr(out *fuse.AttrOut, a *vfs.Attr) {
	out.SetTimeout(r.timeout)
	r.fillAttr(&out.Attr, a)
}

func (r *rawFS[N]) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	r.begin(opLookup)
	p, ok := r.node(h.NodeId)
	if !ok {
		return stale
	}
	id, a, err := r.fs.LookupID(p, name)
	if errors.Is(err, unix.ENOENT) {
		// An entry without a node is remembered as absent.
		out.SetEntryTimeout(r.nameTimeout(p))
		return fuse.OK
	}
	if err != nil {
		return r.status(err)
	}
	r.entry(out, p, id, &a)
	return fuse.OK
}

func (r *rawFS[N]) Forget(id, count uint64) {
	r.begin(opForget)
	r.fs.ForgetID(id, count)
}

func (r *rawFS[N]) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	r.begin(opGetattr)
	n, ok := r.node(in.NodeId)
	if !ok {
		return stale
	}
	a, err := r.fs.GetAttr(n)
	if err != nil {
		return r.status(err)
	}
	r.attr(out, &a)
	return fuse.OK
}

// Bits of SetAttrIn.Valid that go-fuse has no names for (linux/fuse.h).
const (
	fattrCtime       = 1 << 10
	fattrKillSuidgid = 1 << 11

	// fattrHints are no changes.
	fattrHints = fuse.FATTR_FH | fuse.FATTR_LOCKOWNER
)

func (r *rawFS[N]) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	r.begin(opSetattr)
	n, ok := r.node(in.NodeId)
	if !ok {
		return stale
	}
	c := vfs.Change{KillPriv: in.Valid&fattrKillSuidgid != 0}
	if in.Valid&fuse.FATTR_MODE != 0 {
		c.Mode = &in.Mode
	}
	var err error
	if in.Valid&^fattrCtime == 0 {
		if c.KillPriv, err = r.checkEmptyChown(n, in); err != nil {
			return r.status(err)
		}
	}
	if c.KillPriv {
		if err = r.dropForeignSgid(n, &in.Caller); err != nil {
			return r.status(err)
		}
	}
	if in.Valid&fuse.FATTR_UID != 0 {
		if c.UID, err = r.owners.user.change(in.Owner.Uid); err != nil {
			return r.status(err)
		}
	}
	if in.Valid&fuse.FATTR_GID != 0 {
		if c.GID, err = r.owners.group.change(in.Owner.Gid); err != nil {
			return r.status(err)
		}
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		size := int64(in.Size)
		c.Size = &size
	}
	if in.Valid&fuse.FATTR_ATIME != 0 {
		c.Atime = timeOf(in.Atime, in.Atimensec, in.Valid&fuse.FATTR_ATIME_NOW != 0)
	}
	if in.Valid&fuse.FATTR_MTIME != 0 {
		c.Mtime = timeOf(in.Mtime, in.Mtimensec, in.Valid&fuse.FATTR_MTIME_NOW != 0)
	}
	// With write-back the kernel tells the times of a file that it has just
	// renamed, linked or unlinked (fuse_flush_times). A new time of the last
	// change alone is no reason to copy a file up.
	if in.Valid&^fattrHints == fuse.FATTR_MTIME|fattrCtime {
		a, err := r.fs.GetAttr(n)
		if err == nil && a.Mtime == *c.Mtime {
			r.attr(out, &a)
			return fuse.OK
		}
	}
	a, err := r.fs.SetAttr(n, c)
	if errors.Is(err, unix.EPERM) && in.Valid&touched == fattrTouch {
		c.Mtime = c.Atime
		a, err = r.fs.SetAttr(n, c)
	}
	if err != nil {
		return r.status(err)
	}
	r.attr(out, &a)
	return fuse.OK
}

// fattrTouch is how a kernel with write-back asks to set both times to now: as
// that knows its own time of the last write, it sends that one in full. Any
// writer may set the time to now, also of an append-only file, but no other.
const (
	fattrTouch = fuse.FATTR_ATIME | fuse.FATTR_ATIME_NOW | fuse.FATTR_MTIME | fattrCtime
	touched    = fattrTouch | fuse.FATTR_MTIME_NOW
)

func timeOf(sec uint64, nsec uint32, now bool) *layer.Time {
	if now {
		return &layer.Time{Nsec: unix.UTIME_NOW}
	}
	return &layer.Time{Sec: int64(sec), Nsec: nsec}
}

func (r *rawFS[N]) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	r.begin(opReadlink)
	n, ok := r.node(h.NodeId)
	if !ok {
		return nil, stale
	}
	target, err := r.fs.Readlink(n)
	return []byte(target), r.status(err)
}

func (r *rawFS[N]) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

func (r *rawFS[N]) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	r.begin(opStatfs)
	st, err := r.fs.Statfs()
	if err != nil {
		return r.status(err)
	}
	out.Blocks, out.Bfree, out.Bavail = st.Blocks, st.Bfree, st.Bavail
	out.Files, out.Ffree = st.Files, st.Ffree
	out.Bsize, out.Frsize = st.Bsize, st.Frsize
	out.NameLen = layer.NameMax
	return fuse.OK
}

// Statx tells the birth time; the kernel asks only when a program wants it.
func (r *rawFS[N]) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	r.begin(opStatx)
	n, ok := r.node(in.NodeId)
	if !ok {
		return stale
	}
	a, err := r.fs.GetAttr(n)
	if err != nil {
		return r.status(err)
	}
	out.SetTimeout(r.timeout)
	out.Mask = unix.STATX_BASIC_STATS
	if a.Btime != (layer.Time{}) {
		out.Mask |= unix.STATX_BTIME
	}
	out.Blksize, out.Nlink = a.Blksize, a.Nlink
	out.Uid, out.Gid = r.owners.user.shown(a.UID), r.owners.group.shown(a.GID)
	out.Mode, out.Ino, out.Size, out.Blocks = uint16(a.Mode), a.Ino, uint64(a.Size), uint64(a.Blocks)
	out.Atime, out.Btime, out.Ctime, out.Mtime = sxTime(a.Atime), sxTime(a.Btime), sxTime(a.Ctime), sxTime(a.Mtime)
	out.RdevMajor, out.RdevMinor = unix.Major(a.Rdev), unix.Minor(a.Rdev)
	return fuse.OK
}

func sxTime(t layer.Time) fuse.SxTime { return fuse.SxTime{Sec: uint64(t.Sec), Nsec: t.Nsec} }

const maxOffset = math.MaxInt64
