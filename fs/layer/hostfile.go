package layer

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hostFile is a regular file opened for reading, writing or both.
type hostFile struct {
	hostObject
	// end is where the file ended when it was opened, 0 where nobody looked. A
	// read that stops short right there has met the end, and needs no second
	// one to tell that it was not merely interrupted.
	end int64
}

func (f *hostFile) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := retryInt(func() (int, error) { return unix.Pread(f.fd, p[done:], off+int64(done)) })
		if err != nil {
			return done, err
		}
		done += n
		if n == 0 || off+int64(done) == f.end {
			break
		}
	}
	return done, nil
}

func (f *hostFile) WriteAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := retryInt(func() (int, error) { return unix.Pwrite(f.fd, p[done:], off+int64(done)) })
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, unix.EIO
		}
		done += n
	}
	return done, nil
}

func (f *hostFile) Truncate(size int64) error {
	return retry(func() error { return unix.Ftruncate(f.fd, size) })
}

func (f *hostFile) Allocate(mode uint32, off, length int64) error {
	return retry(func() error { return unix.Fallocate(f.fd, mode, off, length) })
}

func (f *hostFile) Seek(off int64, whence int) (int64, error) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, unix.EINVAL
	}
	return unix.Seek(f.fd, off, whence)
}

func (f *hostFile) Sync(dataOnly bool) error {
	if dataOnly {
		return retry(func() error { return unix.Fdatasync(f.fd) })
	}
	return retry(func() error { return unix.Fsync(f.fd) })
}

func (f *hostFile) WriteOut() error {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	return retry(func() error { return unix.SyncFileRange(f.fd, 0, 0, all) })
}

func (f *hostFile) CopyRangeFrom(src File, srcOff, dstOff int64, length int) (int, error) {
	s, ok := src.(Descriptor)
	if !ok {
		return 0, unix.EXDEV
	}
	return retryInt(func() (int, error) {
		return unix.CopyFileRange(s.Fd(), &srcOff, f.fd, &dstOff, length, 0)
	})
}

func (f *hostFile) CloneFrom(src File) error {
	s, ok := src.(Descriptor)
	if !ok {
		return unix.EXDEV
	}
	return retry(func() error { return unix.IoctlFileClone(f.fd, s.Fd()) })
}

func (f *hostFile) CloneRangeFrom(src File, srcOff, length, dstOff int64) error {
	s, ok := src.(Descriptor)
	if !ok {
		return unix.EXDEV
	}
	r := unix.FileCloneRange{
		Src_fd: int64(s.Fd()), Src_offset: uint64(srcOff), Src_length: uint64(length), Dest_offset: uint64(dstOff),
	}
	return retry(func() error { return unix.IoctlFileCloneRange(f.fd, &r) })
}

func (f *hostFile) Flags() (uint32, error) { return hostFlags(f.fd) }

func (f *hostFile) SetFlags(flags uint32) error { return hostSetFlags(f.fd, flags) }

func (d *hostDir) Flags() (uint32, error) {
	fd, err := d.reopen()
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return hostFlags(fd)
}

func (d *hostDir) SetFlags(flags uint32) error {
	fd, err := d.reopen()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return hostSetFlags(fd, flags)
}

// The two ioctls are declared with long, and every filesystem reads and writes
// an int (Documentation/filesystems/vfs.rst keeps silent; include/uapi/linux/fs.h).
func hostFlags(fd int) (uint32, error) {
	v, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	return v, err
}

func hostSetFlags(fd int, flags uint32) error {
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags))
}

// fsIOCGetFSUUID is FS_IOC_GETFSUUID of linux/fs.h (Linux 6.9):
// _IOR(0x15, 0, struct fsuuid2).
const fsIOCGetFSUUID = 0x80111500

type fsuuid2 struct {
	length uint8
	uuid   [16]byte
}

// btrfsIOCFSInfo is BTRFS_IOC_FS_INFO: _IOR(0x94, 31, struct btrfs_ioctl_fs_info_args),
// a structure of 1,024 bytes with the UUID at offset 16.
const btrfsIOCFSInfo = 0x8400941f

// ext4IOCGetFSUUID is EXT4_IOC_GETFSUUID (Linux 6.0): _IOR('f', 44, struct fsuuid).
const ext4IOCGetFSUUID = 0x8008662c

func (d *hostDir) UUID() [16]byte {
	fd, err := d.reopen()
	if err != nil {
		return [16]byte{}
	}
	defer unix.Close(fd)
	var u fsuuid2
	if ioctl(fd, fsIOCGetFSUUID, unsafe.Pointer(&u)) == nil && u.length == 16 {
		return u.uuid
	}
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return [16]byte{}
	}
	switch st.Type {
	case unix.BTRFS_SUPER_MAGIC:
		var info [1024]byte
		if ioctl(fd, btrfsIOCFSInfo, unsafe.Pointer(&info)) == nil {
			return [16]byte(info[16:32])
		}
	case unix.EXT4_SUPER_MAGIC:
		e := struct {
			length, flags uint32
			uuid          [16]byte
		}{length: 16}
		if ioctl(fd, ext4IOCGetFSUUID, unsafe.Pointer(&e)) == nil {
			return e.uuid
		}
	}
	return [16]byte{}
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
	runtime.KeepAlive(arg)
	if e != 0 {
		return e
	}
	return nil
}

// Layout of struct linux_dirent64 (getdents64(2)): inode number, offset, length
// of the record, type, name up to a NUL.
const (
	direntReclen = 16
	direntType   = 18
	direntName   = 19
)

// parseDirents appends the entries of a getdents64(2) buffer to out, without
// "." and "..". Their names are parts of one string.
func parseDirents(buf []byte, out []Dirent) []Dirent {
	size, count := 0, 0
	for name, rest := nextDirent(buf); rest != nil; name, rest = nextDirent(rest) {
		size += len(name)
		count++
	}
	var names strings.Builder
	names.Grow(size)
	out = slices.Grow(out, count)
	for name, rest := nextDirent(buf); rest != nil; name, rest = nextDirent(rest) {
		if string(name) != "." && string(name) != ".." {
			at := names.Len()
			names.Write(name)
			out = append(out, Dirent{
				Name: names.String()[at:], Ino: binary.NativeEndian.Uint64(buf), Type: uint32(buf[direntType]) << 12,
			})
		}
		buf = rest
	}
	return out
}

// nextDirent returns the name of the first entry of a buffer and what comes behind
// it; nil at the end, or where no entry can be.
func nextDirent(buf []byte) (name, rest []byte) {
	if len(buf) < direntName {
		return nil, nil
	}
	reclen := int(binary.NativeEndian.Uint16(buf[direntReclen:]))
	if reclen < direntName || reclen > len(buf) {
		return nil, nil
	}
	name = buf[direntName:reclen]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return name, buf[reclen:]
}
