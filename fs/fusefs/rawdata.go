package fusefs

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/vfs"
)

// Open is asked once and never again: files need no handles here.
func (r *rawFS[N]) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	r.begin(opOpen)
	return fuse.ENOSYS
}

func (r *rawFS[N]) Release(<-chan struct{}, *fuse.ReleaseIn) {}

func (r *rawFS[N]) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

func (r *rawFS[N]) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	r.begin(opRead)
	n, ok := r.node(in.NodeId)
	if !ok {
		return nil, stale
	}
	read := r.fs.Read
	if in.Flags&unix.O_NOATIME != 0 && r.discreet != nil {
		read = r.discreet.ReadQuietly
	}
	k, err := read(n, buf[:min(len(buf), int(in.Size))], int64(in.Offset))
	if err != nil {
		return nil, r.status(err)
	}
	r.count.read.Add(uint64(k))
	return fuse.ReadResultData(buf[:k]), fuse.OK
}

func (r *rawFS[N]) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	r.begin(opWrite)
	defer r.count.writesDone.Add(1)
	n, ok := r.node(in.NodeId)
	if !ok {
		return 0, stale
	}
	write := r.fs.Write
	if in.WriteFlags&fuse.WRITE_CACHE != 0 && r.writeOut != nil {
		write = r.fs.WriteBack
	}
	k, err := write(n, data, int64(in.Offset), in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0)
	r.count.written.Add(uint64(k))
	return uint32(k), r.status(err)
}

func (r *rawFS[N]) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status { return r.fsync(in) }

// fsyncDataOnly is FUSE_FSYNC_FDATASYNC of linux/fuse.h.
const fsyncDataOnly = 1

func (r *rawFS[N]) fsync(in *fuse.FsyncIn) fuse.Status {
	r.begin(opFsync)
	n, ok := r.node(in.NodeId)
	if !ok {
		return stale
	}
	return r.status(r.fs.Fsync(n, in.FsyncFlags&fsyncDataOnly != 0))
}

func (r *rawFS[N]) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	r.begin(opFallocate)
	n, ok := r.node(in.NodeId)
	if !ok {
		return stale
	}
	if in.Offset > maxOffset || in.Length > maxOffset-in.Offset {
		return fuse.Status(unix.EFBIG)
	}
	kill := unprivileged(&in.Caller)
	if kill {
		if err := r.dropForeignSgid(n, &in.Caller); err != nil {
			return r.status(err)
		}
	}
	err := r.fs.Fallocate(n, in.Mode, int64(in.Offset), int64(in.Length), kill)
	return r.status(err)
}

// unknownID is who calls, in all requests that make nothing, once the server has
// said that its mount may be idmapped (FUSE_INVALID_UIDGID).
const unknownID = 1<<32 - 1

// unprivileged tells whether a request is known to be of someone whose writes
// take suid and sgid away. When the kernel hides who calls, it has asked for that
// before, by a request to set nothing (file_modified).
func unprivileged(who *fuse.Caller) bool { return who.Uid != 0 && who.Uid != unknownID }

// dropForeignSgid clears the sgid bit that has no group execution beside it when
// someone outside of the group writes (setattr_should_drop_sgid); FUSE leaves
// that to the server. Who is in the group by a supplementary one only counts as
// outside.
func (r *rawFS[N]) dropForeignSgid(n N, who *fuse.Caller) error {
	a, err := r.fs.GetAttr(n)
	if err != nil || a.Mode&(unix.S_ISGID|unix.S_IXGRP) != unix.S_ISGID {
		return err
	}
	if c, ok := callerOf(who); ok && (c.uid == 0 || c.gid == r.owners.group.shown(a.GID)) {
		return nil
	}
	mode := a.Mode & 0o7777 &^ (unix.S_ISGID | unix.S_ISUID)
	_, err = r.fs.SetAttr(n, vfs.Change{Mode: &mode})
	return err
}

func (r *rawFS[N]) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	r.begin(opLseek)
	n, ok := r.node(in.NodeId)
	if !ok {
		return stale
	}
	if r.writeOut != nil {
		// What the kernel still holds back would show as a hole.
		r.writeOut(in.NodeId)
	}
	off, err := r.fs.Seek(n, int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return r.status(err)
}

func (r *rawFS[N]) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	r.begin(opCopyFileRange)
	src, dst, ok := r.nodes(in.NodeId, in.NodeIdOut)
	if !ok {
		return 0, stale
	}
	kill := unprivileged(&in.Caller)
	if kill {
		if err := r.dropForeignSgid(dst, &in.Caller); err != nil {
			return 0, r.status(err)
		}
	}
	k, err := r.fs.CopyRange(src, dst, int64(in.OffIn), int64(in.OffOut), int(min(in.Len, 1<<30)), kill)
	r.count.written.Add(uint64(k))
	return uint32(k), r.status(err)
}

func (r *rawFS[N]) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	r.begin(opGetxattr)
	n, ok := r.node(h.NodeId)
	if !ok {
		return 0, stale
	}
	k, err := r.fs.Getxattr(n, attr, dest)
	if err == nil && isACL(attr) && r.owners.mapped() && len(dest) > 0 {
		r.owners.showACL(dest[:k])
	}
	if errors.Is(err, unix.ENODATA) && attr == "security.selinux" && !labelled() {
		// ls asks for the label of each file, until it hears that a filesystem
		// has none.
		err = unix.EOPNOTSUPP
	}
	return uint32(k), r.status(err)
}

// labelled tells whether files may have SELinux labels: nothing sets them where
// the kernel does not know them.
var labelled = sync.OnceValue(selinuxEnabled)

func (r *rawFS[N]) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	r.begin(opListxattr)
	n, ok := r.node(h.NodeId)
	if !ok {
		return 0, stale
	}
	k, err := r.fs.Listxattr(n, dest)
	return uint32(k), r.status(err)
}

// setxattrKillSgid is FUSE_SETXATTR_ACL_KILL_SGID of linux/fuse.h.
const setxattrKillSgid = 1

func (r *rawFS[N]) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	r.begin(opSetxattr)
	n, ok := r.node(in.NodeId)
	if !ok {
		return stale
	}
	if isACL(attr) && r.owners.mapped() {
		var err error
		if data, err = r.owners.storeACL(data); err != nil {
			return r.status(err)
		}
	}
	err := r.fs.Setxattr(n, attr, data, int(in.Flags), in.SetXAttrFlags&setxattrKillSgid != 0)
	return r.status(err)
}

func (r *rawFS[N]) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	r.begin(opRemovexattr)
	n, ok := r.node(h.NodeId)
	if !ok {
		return stale
	}
	return r.status(r.fs.Removexattr(n, attr))
}

// The ioctls that the kernel passes on for chattr(1), lsattr(1) and the like
// (include/uapi/linux/fs.h).
const (
	fsIOCGetFlags  = 0x80086601
	fsIOCSetFlags  = 0x40086602
	fsIOCGetXAttr  = 0x801c581f
	fsIOCSetXAttr  = 0x401c5820
	fsxattrSize    = 28
	fsXFlagHasAttr = 0x80000000 // read-only: there are xattrs
)

// xflagBits pairs flags of chattr(1) with those of struct fsxattr.
var xflagBits = []struct{ flag, xflag uint32 }{
	{unix.STATX_ATTR_IMMUTABLE, 0x08}, // FS_IMMUTABLE_FL, FS_XFLAG_IMMUTABLE
	{unix.STATX_ATTR_APPEND, 0x10},    // FS_APPEND_FL
	{0x08, 0x20},                      // FS_SYNC_FL
	{0x80, 0x40},                      // FS_NOATIME_FL
	{unix.STATX_ATTR_NODUMP, 0x80},    // FS_NODUMP_FL
}

func (r *rawFS[N]) Ioctl(_ <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	r.begin(opIoctl)
	n, ok := r.node(in.NodeId)
	if !ok {
		return stale
	}
	switch in.Cmd {
	case fsIOCGetFlags:
		flags, err := r.fs.Flags(n)
		if err == nil && len(outbuf) >= 4 {
			binary.LittleEndian.PutUint32(outbuf, flags)
		}
		return r.status(err)
	case fsIOCSetFlags:
		if len(inbuf) < 4 {
			return fuse.EINVAL
		}
		return r.setFlags(n, in.NodeId, binary.LittleEndian.Uint32(inbuf))
	case fsIOCGetXAttr:
		flags, err := r.fs.Flags(n)
		if err == nil && len(outbuf) >= fsxattrSize {
			var x uint32
			for _, b := range xflagBits {
				if flags&b.flag != 0 {
					x |= b.xflag
				}
			}
			clear(outbuf)
			binary.LittleEndian.PutUint32(outbuf, x)
		}
		return r.status(err)
	case fsIOCSetXAttr:
		flags, err := r.fs.Flags(n)
		if err == nil {
			flags, err = setXFlags(flags, inbuf)
		}
		if err != nil {
			return r.status(err)
		}
		return r.setFlags(n, in.NodeId, flags)
	}
	return fuse.Status(unix.ENOTTY)
}

// setFlags sets the flags of chattr(1). The kernel does not know that an ioctl
// moves the time of the last change.
func (r *rawFS[N]) setFlags(n N, id uint64, flags uint32) fuse.Status {
	err := r.fs.SetFlags(n, flags)
	if err == nil {
		r.dropAttrs(id)
	}
	return r.status(err)
}

// setXFlags returns the flags of a file after a struct fsxattr was set on it.
// Project ids, extent sizes and flags that are not kept give EOPNOTSUPP, as
// from a filesystem without them: a quota that seems set would hold nobody.
func setXFlags(flags uint32, fsx []byte) (uint32, error) {
	if len(fsx) < fsxattrSize {
		return 0, unix.EINVAL
	}
	field := func(i int) uint32 { return binary.LittleEndian.Uint32(fsx[4*i:]) }
	x, extSize, projid, cowExtSize := field(0), field(1), field(3), field(4)
	known := uint32(fsXFlagHasAttr)
	for _, b := range xflagBits {
		known |= b.xflag
		flags &^= b.flag
		if x&b.xflag != 0 {
			flags |= b.flag
		}
	}
	if x&^known != 0 || extSize != 0 || projid != 0 || cowExtSize != 0 {
		return 0, unix.EOPNOTSUPP
	}
	return flags, nil
}
