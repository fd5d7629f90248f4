package serve

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// volumeFS answers the kernel's requests from [Volumes]. This file has names and
// attributes, data.go what is done to open files.
type volumeFS struct {
	fuse.RawFileSystem
	volumes  Volumes
	nodes    *table
	uid, gid uint32
	started  time.Time
	log      *log.Logger
	count    counters
	direct   bool // nothing is cached
	// drop makes the kernel forget n bytes from off of what it holds of a node.
	drop func(id uint64, off, n int64)

	dirsMu sync.Mutex
	dirs   map[uint64][]child // listings that are being read, by handle
	lastFh uint64
}

func newVolumeFS(v Volumes, logger *log.Logger) *volumeFS {
	return &volumeFS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		volumes:       v,
		nodes:         newTable(),
		uid:           uint32(unix.Geteuid()), gid: uint32(unix.Getegid()),
		started: time.Now(),
		log:     logger,
		dirs:    map[uint64][]child{},
		drop:    func(uint64, int64, int64) {},
	}
}

func (v *volumeFS) String() string { return "lamina volumes" }

// status turns an error into a reply.
func (v *volumeFS) status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	errno := syscall.Errno(unix.EIO)
	if errors.Is(err, context.Canceled) {
		errno = unix.EINTR
	} else {
		errors.As(err, &errno)
	}
	if errno != unix.ENOENT {
		v.count.errors.Add(1)
	}
	if errno == unix.EIO {
		v.log.Printf("I/O error: %v", err)
	}
	return fuse.Status(errno)
}

const stale = fuse.Status(unix.ESTALE)

// dirTimeout is how long the kernel may believe the attributes of a directory,
// which never change. Names and volumes it asks for each time.
const dirTimeout = time.Hour

func (v *volumeFS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	v.count.add(opLookup)
	dir := v.nodes.get(h.NodeId)
	if dir == nil {
		return stale
	}
	full := join(dir.key.dir, name)
	if !validName(full) {
		return fuse.ENOENT
	}
	info, err := v.volumes.Stat(full)
	switch {
	case err == nil:
		n := v.nodes.lookup(nodeKey{volume: info.ID}, full)
		out.NodeId = n.id
		v.volumeAttr(&out.Attr, n, info)
		return fuse.OK
	case !errors.Is(err, unix.ENOENT):
		return v.status(fmt.Errorf("look up volume %s: %w", full, err))
	}
	all, err := v.volumes.List()
	if err != nil {
		return v.status(fmt.Errorf("list volumes: %w", err))
	}
	if !isDir(all, full) {
		return fuse.ENOENT
	}
	n := v.nodes.lookup(nodeKey{dir: full, isDir: true}, full)
	out.NodeId = n.id
	out.SetAttrTimeout(dirTimeout)
	v.dirAttr(&out.Attr, full)
	return fuse.OK
}

func (v *volumeFS) Forget(id, count uint64) {
	v.count.add(opForget)
	v.nodes.forget(id, count)
}

func (v *volumeFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	v.count.add(opGetAttr)
	n := v.nodes.get(in.NodeId)
	if n == nil {
		return stale
	}
	return v.getAttr(n, out)
}

func (v *volumeFS) getAttr(n *node, out *fuse.AttrOut) fuse.Status {
	if n.isDir() {
		out.SetTimeout(dirTimeout)
		v.dirAttr(&out.Attr, n.key.dir)
		return fuse.OK
	}
	info, err := v.stat(n)
	if err != nil {
		return v.status(err)
	}
	v.volumeAttr(&out.Attr, n, info)
	return fuse.OK
}

// stat looks at the volume of a node. One that is gone, or has another name now,
// is known by what is open of it, else it is ESTALE.
func (v *volumeFS) stat(n *node) (VolumeInfo, error) {
	name := n.currentName()
	info, err := v.volumes.Stat(name)
	if err == nil && info.ID == n.key.volume {
		return info, nil
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return info, fmt.Errorf("look at volume %s: %w", name, err)
	}
	if b := n.block.Load(); b != nil {
		return VolumeInfo{ID: n.key.volume, Name: name, Size: b.Size(), ReadOnly: b.readOnly}, nil
	}
	return info, fmt.Errorf("volume %s is gone: %w", name, unix.ESTALE)
}

// SetAttr refuses all that is not so already: what a volume is, the pool says.
func (v *volumeFS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	v.count.add(opSetAttr)
	n := v.nodes.get(in.NodeId)
	if n == nil {
		return stale
	}
	if st := v.getAttr(n, out); st != fuse.OK {
		return st
	}
	is := &out.Attr
	changes := in.Valid&fuse.FATTR_MODE != 0 && in.Mode&0o7777 != is.Mode&0o7777 ||
		in.Valid&fuse.FATTR_UID != 0 && in.Uid != is.Uid ||
		in.Valid&fuse.FATTR_GID != 0 && in.Gid != is.Gid ||
		in.Valid&fuse.FATTR_SIZE != 0 && in.Size != is.Size ||
		in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) != 0
	if changes {
		return fuse.EPERM
	}
	return fuse.OK
}

func (v *volumeFS) dirAttr(out *fuse.Attr, dir string) {
	out.Ino = dirIno(dir)
	out.Mode = unix.S_IFDIR | 0o700
	out.Nlink = 2
	out.Uid, out.Gid = v.uid, v.gid
	out.SetTimes(&v.started, &v.started, &v.started)
}

func (v *volumeFS) volumeAttr(out *fuse.Attr, n *node, info VolumeInfo) {
	out.Ino = volumeIno(info.ID)
	out.Size = uint64(info.Size)
	out.Blocks = uint64(info.Used+511) / 512
	out.Blksize = defaultBlockSize
	out.Mode = unix.S_IFREG | 0o600
	if info.ReadOnly {
		out.Mode = unix.S_IFREG | 0o400
	}
	out.Nlink = 1
	out.Uid, out.Gid = v.uid, v.gid
	modified := v.started // where nobody knows
	for _, t := range []time.Time{info.Modified, info.Created} {
		if !t.IsZero() {
			modified = t
			break
		}
	}
	if t := n.written.Load(); t != 0 && time.Unix(0, t).After(modified) {
		modified = time.Unix(0, t)
	}
	out.SetTimes(&modified, &modified, &modified)
}

func (v *volumeFS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	v.count.add(opOpenDir)
	n := v.nodes.get(in.NodeId)
	if n == nil {
		return stale
	}
	all, err := v.volumes.List()
	if err != nil {
		return v.status(fmt.Errorf("list volumes: %w", err))
	}
	list := childrenOf(all, n.key.dir)
	v.dirsMu.Lock()
	defer v.dirsMu.Unlock()
	v.lastFh++
	v.dirs[v.lastFh] = list
	out.Fh = v.lastFh
	return fuse.OK
}

// ReadDir goes on at the offset, which is the number of names before it.
func (v *volumeFS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	v.count.add(opReadDir)
	v.dirsMu.Lock()
	list := v.dirs[in.Fh]
	v.dirsMu.Unlock()
	dir := v.nodes.get(in.NodeId)
	if dir == nil {
		return stale
	}
	for i := in.Offset; i < uint64(len(list)); i++ {
		c := list[i]
		e := fuse.DirEntry{Name: c.name, Mode: unix.S_IFREG, Ino: volumeIno(c.volume.ID), Off: i + 1}
		if c.isDir {
			e.Mode, e.Ino = unix.S_IFDIR, dirIno(join(dir.key.dir, c.name))
		}
		if !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

func (v *volumeFS) ReleaseDir(in *fuse.ReleaseIn) {
	v.dirsMu.Lock()
	defer v.dirsMu.Unlock()
	delete(v.dirs, in.Fh)
}

func (v *volumeFS) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

func (v *volumeFS) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// defaultBlockSize is the unit of volumes that tell none, in bytes.
const defaultBlockSize = 4096

// StatFs tells of a volume its own unit: loop devices make it the unit of
// discarding (drivers/block/loop.c, loop_config_discard).
func (v *volumeFS) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	v.count.add(opStatfs)
	n := v.nodes.get(h.NodeId)
	if n == nil {
		return stale
	}
	unit := int64(defaultBlockSize)
	if !n.isDir() {
		if info, err := v.stat(n); err == nil && info.BlockSize > 0 {
			unit = info.BlockSize
		}
	}
	out.Bsize, out.Frsize = uint32(unit), uint32(unit)
	out.NameLen = unix.NAME_MAX
	c, ok := v.volumes.(Capacity)
	if !ok {
		return fuse.OK
	}
	total, free, err := c.Capacity()
	if err != nil {
		return v.status(fmt.Errorf("look at the pool's space: %w", err))
	}
	out.Blocks, out.Bfree, out.Bavail = uint64(total/unit), uint64(free/unit), uint64(free/unit)
	return fuse.OK
}
