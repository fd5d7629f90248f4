package layer

import (
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// clearUmask makes the modes that the host calls pass to the kernel the ones
// that files get. The umask belongs to the whole process, so it is cleared
// once and stays cleared: who serves a union applies the umask of the caller.
var clearUmask sync.Once

// OpenHost opens the directory at path as the root of a layer that is only
// read.
//
// Where the caller may, the root is a private clone of the mount without the
// mounts below it (open_tree(2)), as kernel overlayfs does it: what is mounted
// inside of a layer, the union's own mount included, is then not part of the
// layer. Elsewhere such mounts are seen. Reading through the clone leaves all
// access times alone, those of symbolic links too.
func OpenHost(path string) (Dir, error) {
	clearUmask.Do(func() { unix.Umask(0) })
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err == nil {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return nil, &os.PathError{Op: "stat", Path: path, Err: err}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			unix.Close(fd)
			return nil, &os.PathError{Op: "open", Path: path, Err: unix.ENOTDIR}
		}
		// EPERM where the clone's flags are locked (mount_namespaces(7)): what
		// can be opened with O_NOATIME keeps its access time all the same.
		_ = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH,
			&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOATIME, Attr_clr: unix.MOUNT_ATTR__ATIME})
		return newHostDir(fd), nil
	}
	return OpenHostShared(path)
}

// OpenHostShared opens the directory at path as the root of a layer through
// the mount that it lies on. An upper and its work directory need that: between
// two clones of a mount neither rename(2) nor link(2) works.
func OpenHostShared(path string) (Dir, error) {
	clearUmask.Do(func() { unix.Umask(0) })
	fd, err := retryInt(func() (int, error) {
		return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return newHostDir(fd), nil
}

func newHostDir(fd int) *hostDir { return &hostDir{hostObject{fd: fd, path: true}} }

// retryInt calls f until it is not interrupted: the runtime's own preemption
// signals can interrupt calls on network and FUSE filesystems.
func retryInt(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// openQuietly opens for reading or writing without that any access time will
// change, where the caller may ask for it: as the owner or with CAP_FOWNER. What
// a server reads to show, to list or to copy a file is no access by a user, and
// a layer that is only read stays as it is.
func openQuietly(flags int, open func(flags int) (int, error)) (int, error) {
	fd, err := retryInt(func() (int, error) { return open(flags | unix.O_NOATIME) })
	if err == unix.EPERM {
		fd, err = retryInt(func() (int, error) { return open(flags) })
	}
	return fd, err
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// procPath names the file behind a descriptor. Following that link leads to
// the very inode, also of a symbolic link, and never through a directory of
// the layer.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// procChild names a child of the directory behind a descriptor; with a call
// that does not follow the last component it stays inside of the directory.
func procChild(fd int, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(fd) + "/" + name
}

// hostObject is a descriptor of any type of file; path tells that it was
// opened with O_PATH.
type hostObject struct {
	fd   int
	path bool
}

var (
	_ Object = (*hostObject)(nil)
	_ File   = (*hostFile)(nil)
	_ Dir    = (*hostDir)(nil)
)

// Descriptor is what host objects can do beyond Object: tell the number of
// their descriptor, for what only the kernel can do with it (passthrough,
// splice).
type Descriptor interface{ Fd() int }

// Fd returns the descriptor, which stays the object's.
func (o *hostObject) Fd() int { return o.fd }

func (o *hostObject) Close() error { return unix.Close(o.fd) }

const statxMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

func (o *hostObject) Stat() (Stat, error) { return hostStat(o.fd, "", unix.AT_EMPTY_PATH) }

func hostStat(fd int, name string, flags int) (Stat, error) {
	var sx unix.Statx_t
	flags |= unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	for {
		err := statxAt(fd, name, flags, &sx)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Stat{}, err
		}
		break
	}
	return Stat{
		Dev:       unix.Mkdev(sx.Dev_major, sx.Dev_minor),
		Ino:       sx.Ino,
		Mode:      uint32(sx.Mode),
		Nlink:     sx.Nlink,
		UID:       sx.Uid,
		GID:       sx.Gid,
		Rdev:      unix.Mkdev(sx.Rdev_major, sx.Rdev_minor),
		Size:      int64(sx.Size),
		Blocks:    int64(sx.Blocks),
		Blksize:   sx.Blksize,
		Atime:     Time{sx.Atime.Sec, sx.Atime.Nsec},
		Mtime:     Time{sx.Mtime.Sec, sx.Mtime.Nsec},
		Ctime:     Time{sx.Ctime.Sec, sx.Ctime.Nsec},
		Btime:     Time{sx.Btime.Sec, sx.Btime.Nsec},
		MountRoot: sx.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0,
	}, nil
}

func (o *hostObject) Chmod(mode uint32) error {
	if !o.path {
		return retry(func() error { return unix.Fchmod(o.fd, mode) })
	}
	return retry(func() error { return unix.Chmod(procPath(o.fd), mode) })
}

func (o *hostObject) Chown(uid, gid int) error {
	return retry(func() error { return unix.Fchownat(o.fd, "", uid, gid, unix.AT_EMPTY_PATH) })
}

func (o *hostObject) SetTimes(atime, mtime Time) error {
	ts := []unix.Timespec{
		{Sec: atime.Sec, Nsec: int64(atime.Nsec)},
		{Sec: mtime.Sec, Nsec: int64(mtime.Nsec)},
	}
	err := retry(func() error { return unix.UtimesNanoAt(o.fd, "", ts, unix.AT_EMPTY_PATH) })
	if err == unix.EINVAL { // before Linux 5.8 the flag was unknown here
		return retry(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(o.fd), ts, 0) })
	}
	return err
}

func (o *hostObject) Getxattr(attr string, dest []byte) (int, error) {
	if o.path {
		return retryInt(func() (int, error) { return unix.Getxattr(procPath(o.fd), attr, dest) })
	}
	return retryInt(func() (int, error) { return unix.Fgetxattr(o.fd, attr, dest) })
}

func (o *hostObject) Listxattr(dest []byte) (int, error) {
	if o.path {
		return retryInt(func() (int, error) { return unix.Listxattr(procPath(o.fd), dest) })
	}
	return retryInt(func() (int, error) { return unix.Flistxattr(o.fd, dest) })
}

func (o *hostObject) Setxattr(attr string, value []byte, flags int) error {
	return lendWrite(func() error {
		if o.path {
			return retry(func() error { return unix.Setxattr(procPath(o.fd), attr, value, flags) })
		}
		return retry(func() error { return unix.Fsetxattr(o.fd, attr, value, flags) })
	}, o)
}

func (o *hostObject) Removexattr(attr string) error {
	if o.path {
		return retry(func() error { return unix.Removexattr(procPath(o.fd), attr) })
	}
	return retry(func() error { return unix.Fremovexattr(o.fd, attr) })
}

func (o *hostObject) Readlink() (string, error) {
	target, err := hostReadlink(o.fd, "")
	if err == unix.ENOENT { // readlinkat(2): the answer for what is no link
		err = unix.EINVAL
	}
	return target, err
}

func hostReadlink(fd int, name string) (string, error) {
	var buf [unix.PathMax]byte
	n, err := retryInt(func() (int, error) { return unix.Readlinkat(fd, name, buf[:]) })
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func (o *hostObject) Reopen(flags int) (File, error) {
	st, err := o.Stat()
	if err != nil {
		return nil, err
	}
	if !st.IsRegular() {
		return nil, unix.EINVAL
	}
	fd, err := openQuietly(flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, func(flags int) (int, error) {
		return unix.Open(procPath(o.fd), flags, 0)
	})
	if err != nil {
		return nil, err
	}
	return &hostFile{hostObject: hostObject{fd: fd}}, nil
}

func (o *hostObject) Handle() (FileHandle, error) {
	h, _, err := unix.NameToHandleAt(o.fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return FileHandle{}, err
	}
	if h.Type() == fileIDInode64 {
		if err := o.refuseFUSE(); err != nil {
			return FileHandle{}, err
		}
	}
	return FileHandle{Type: h.Type(), Bytes: h.Bytes()}, nil
}

// fileIDInode64 is the type of handles of FUSE (FILEID_INO64_GEN), and of XFS.
const fileIDInode64 = 0x81

// refuseFUSE gives EOPNOTSUPP for a file on FUSE: its handle holds the server's
// number of a node, which is that of another file in the server's next run.
func (o *hostObject) refuseFUSE() error {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(o.fd, &st) }); err != nil {
		return err
	}
	if st.Type == unix.FUSE_SUPER_MAGIC {
		return unix.EOPNOTSUPP
	}
	return nil
}
