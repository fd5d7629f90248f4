package layer

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// hostDir is a directory opened with O_PATH. What needs more than that (its
// entries, an fsync) opens "." anew, which also keeps readers apart.
type hostDir struct{ hostObject }

var direntBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// linkByProc remembers that linkat(2) with AT_EMPTY_PATH is not for us: it
// takes CAP_DAC_READ_SEARCH, or Linux 6.10 and the credentials of the opener.
var linkByProc atomic.Bool

func (d *hostDir) StatAt(name string) (Stat, error) {
	if err := CheckName(name); err != nil {
		return Stat{}, err
	}
	return hostStat(d.fd, name, 0)
}

func (d *hostDir) GetxattrAt(name, attr string, dest []byte) (int, error) {
	if err := CheckName(name); err != nil {
		return 0, err
	}
	return retryInt(func() (int, error) {
		if xattrsAt() && attr != "" {
			return getxattrAt(d.fd, name, attr, dest)
		}
		return unix.Lgetxattr(procChild(d.fd, name), attr, dest)
	})
}

func (d *hostDir) ListxattrAt(name string, dest []byte) (int, error) {
	if err := CheckName(name); err != nil {
		return 0, err
	}
	return retryInt(func() (int, error) {
		if xattrsAt() {
			return listxattrAt(d.fd, name, dest)
		}
		return unix.Llistxattr(procChild(d.fd, name), dest)
	})
}

func (d *hostDir) ReadlinkAt(name string) (string, error) {
	if err := CheckName(name); err != nil {
		return "", err
	}
	return hostReadlink(d.fd, name)
}

func (d *hostDir) open(name string, flags int, mode uint32) (int, error) {
	if err := CheckName(name); err != nil {
		return -1, err
	}
	return retryInt(func() (int, error) {
		return unix.Openat(d.fd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	})
}

func (d *hostDir) Lookup(name string) (Object, error) {
	fd, err := d.open(name, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	return &hostObject{fd: fd, path: true}, nil
}

func (d *hostDir) OpenFile(name string, flags int, mode uint32) (File, error) {
	end := int64(0)
	if flags&(unix.O_CREAT|unix.O_EXCL) != unix.O_CREAT|unix.O_EXCL {
		// Opening a device runs its driver, so look before.
		st, err := d.StatAt(name)
		if err != nil {
			return nil, err
		}
		switch st.Type() {
		case unix.S_IFREG:
			end = st.Size
		case unix.S_IFDIR:
			return nil, unix.EISDIR
		case unix.S_IFLNK:
			return nil, unix.ELOOP
		default:
			return nil, unix.ENXIO
		}
	}
	fd, err := openQuietly(flags|unix.O_NONBLOCK|unix.O_NOCTTY, func(flags int) (int, error) {
		return d.open(name, flags, mode)
	})
	if err != nil {
		return nil, err
	}
	return &hostFile{hostObject{fd: fd}, end}, nil
}

func (d *hostDir) OpenDir(name string) (Dir, error) {
	fd, err := d.open(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return newHostDir(fd), nil
}

// reopen opens the directory itself, for what O_PATH does not allow.
func (d *hostDir) reopen() (int, error) {
	return openQuietly(unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, func(flags int) (int, error) {
		return unix.Openat(d.fd, ".", flags, 0)
	})
}

func (d *hostDir) ReadDir() ([]Dirent, error) {
	fd, err := d.reopen()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	bp := direntBuffers.Get().(*[]byte)
	defer direntBuffers.Put(bp)
	var out []Dirent
	for {
		n, err := retryInt(func() (int, error) { return unix.Getdents(fd, *bp) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return d.numbered(out), nil
		}
		out = parseDirents((*bp)[:n], out)
	}
}

// unknownIno is what libfuse lists for a file whose number its filesystem has not told
// (FUSE_UNKNOWN_INO); stat(2) may know better.
const unknownIno = 0xffffffff

// numbered asks for the numbers that the listing lacks. What is gone meanwhile keeps
// its entry.
func (d *hostDir) numbered(list []Dirent) []Dirent {
	for i := range list {
		e := &list[i]
		if e.Ino != unknownIno {
			continue
		}
		if st, err := d.StatAt(e.Name); err == nil {
			e.Ino, e.Type = st.Ino, st.Type()
		}
	}
	return list
}

func (d *hostDir) Mkdir(name string, mode uint32) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return retry(func() error { return unix.Mkdirat(d.fd, name, mode) })
}

func (d *hostDir) Mknod(name string, mode uint32, rdev uint64) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return retry(func() error { return unix.Mknodat(d.fd, name, mode, int(rdev)) })
}

func (d *hostDir) Symlink(target, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return retry(func() error { return unix.Symlinkat(target, d.fd, name) })
}

func (d *hostDir) Link(obj Object, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	h, ok := obj.(Descriptor)
	if !ok {
		return unix.EXDEV
	}
	return lendWrite(func() error { return d.link(h.Fd(), name) }, &d.hostObject)
}

func (d *hostDir) link(fd int, name string) error {
	if !linkByProc.Load() {
		err := retry(func() error { return unix.Linkat(fd, "", d.fd, name, unix.AT_EMPTY_PATH) })
		if err != unix.ENOENT {
			return err
		}
	}
	err := retry(func() error {
		return unix.Linkat(unix.AT_FDCWD, procPath(fd), d.fd, name, unix.AT_SYMLINK_FOLLOW)
	})
	if err == nil {
		linkByProc.Store(true)
	}
	return err
}

func (d *hostDir) Unlink(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return retry(func() error { return unix.Unlinkat(d.fd, name, 0) })
}

func (d *hostDir) Rmdir(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return retry(func() error { return unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR) })
}

func (d *hostDir) Rename(oldName string, to Dir, newName string, flags uint) error {
	if err := CheckName(oldName); err != nil {
		return err
	}
	if err := CheckName(newName); err != nil {
		return err
	}
	t, ok := to.(Descriptor)
	if !ok {
		return unix.EXDEV
	}
	return d.rename(oldName, newHostDir(t.Fd()), newName, flags)
}

func (d *hostDir) TmpFile(mode uint32) (File, error) {
	fd, err := retryInt(func() (int, error) {
		return unix.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, mode)
	})
	if err != nil {
		return nil, err
	}
	return &hostFile{hostObject: hostObject{fd: fd}}, nil
}

func (d *hostDir) Sync() error {
	fd, err := d.reopen()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return retry(func() error { return unix.Fsync(fd) })
}

func (d *hostDir) Statfs() (Statfs, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(d.fd, &st) }); err != nil {
		return Statfs{}, err
	}
	return Statfs{
		Type: st.Type, Bsize: uint32(st.Bsize), Frsize: uint32(st.Frsize), NameLen: uint32(st.Namelen),
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
	}, nil
}

// String names the directory for messages, as the kernel knows it now.
func (d *hostDir) String() string {
	if p, err := os.Readlink(procPath(d.fd)); err == nil {
		return p
	}
	return fmt.Sprintf("descriptor %d", d.fd)
}
