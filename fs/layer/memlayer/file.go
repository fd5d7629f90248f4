package memlayer

import (
	"bytes"
	"syscall"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

// file is an open regular file.
type file struct{ *handle }

// openFile opens i with the flags of open(2), by the rules of may_open. The
// caller holds fs.mu.
func (fs *FS) openFile(i *inode, path string, flags int, quiet bool) (layer.File, error) {
	want := uint32(mayRead)
	switch flags & unix.O_ACCMODE {
	case unix.O_WRONLY:
		want = mayWrite
	case unix.O_RDWR:
		want = mayRead | mayWrite
	}
	truncate := flags&unix.O_TRUNC != 0
	if truncate {
		want |= mayWrite
	}
	if err := fs.may(i, want); err != nil {
		return nil, err
	}
	if appendOnly(i) && (truncate || want&mayWrite != 0 && flags&unix.O_APPEND == 0) {
		return nil, syscall.EPERM
	}
	if truncate {
		fs.content(i, func(d *data) { d.truncate(0) })
	}
	return &file{fs.open(i, path, flags, quiet)}, nil
}

func (f *file) readable() bool { return f.flags&unix.O_ACCMODE != unix.O_WRONLY }
func (f *file) writable() bool { return f.flags&unix.O_ACCMODE != unix.O_RDONLY }

func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	if len(p) == 0 {
		return 0, nil // a loop of pread(2) that ends before it begins
	}
	err = f.do(Call{Op: "ReadAt", Off: off, Len: int64(len(p))}, func(i *inode) error {
		switch {
		case !f.readable():
			return syscall.EBADF
		case off < 0:
			return syscall.EINVAL
		}
		n = i.data.readAt(p, off)
		return nil
	})
	return n, err
}

// WriteAt writes as much as there is room for, as the loop of pwrite(2) does
// that ends with ENOSPC after a short write.
func (f *file) WriteAt(p []byte, off int64) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	err = f.do(Call{Op: "WriteAt", Off: off, Len: int64(len(p)), Mutates: true}, func(i *inode) error {
		switch {
		case !f.writable():
			return syscall.EBADF
		case off < 0:
			return syscall.EINVAL
		}
		n, err = f.fs.write(i, f.flags, bytes.Clone(p), off)
		return err
	})
	return n, err
}

// write owns p.
func (fs *FS) write(i *inode, flags int, p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if flags&unix.O_APPEND != 0 {
		off = i.data.size
	}
	switch {
	case immutable(i):
		return 0, syscall.EPERM
	case off >= maxSize:
		return 0, syscall.EFBIG
	}
	end, short := off+int64(len(p)), error(nil)
	if end > maxSize {
		end, short = maxSize, syscall.EFBIG
	}
	for short == nil || end > off {
		err := fs.room(i.data.newBlocks(off, end), 0)
		if err == nil {
			break
		}
		end, short = max(off, (end-1)/blockSize*blockSize), err
	}
	p = p[:end-off]
	if len(p) > 0 {
		fs.content(i, func(d *data) { d.writeAt(p, off) })
	}
	return len(p), short
}

func (f *file) Truncate(size int64) error {
	return f.do(Call{Op: "Truncate", Len: size, Mutates: true}, func(i *inode) error {
		switch {
		case size < 0, !f.writable():
			return syscall.EINVAL
		case immutable(i) || appendOnly(i):
			return syscall.EPERM
		case size > maxSize:
			return syscall.EFBIG
		}
		f.fs.content(i, func(d *data) { d.truncate(size) })
		return nil
	})
}

// Allocate has the modes of ext4: plain and KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE,
// COLLAPSE_RANGE and INSERT_RANGE. The checks come in the order of
// vfs_fallocate and ext4_fallocate.
func (f *file) Allocate(mode uint32, off, length int64) error {
	return f.do(Call{Op: "Allocate", Mode: mode, Off: off, Len: length, Mutates: true}, func(i *inode) error {
		const (
			keep     = unix.FALLOC_FL_KEEP_SIZE
			punch    = unix.FALLOC_FL_PUNCH_HOLE
			collapse = unix.FALLOC_FL_COLLAPSE_RANGE
			zero     = unix.FALLOC_FL_ZERO_RANGE
			insert   = unix.FALLOC_FL_INSERT_RANGE
			// Modes that the kernel knows and ext4 does not.
			unshare     = unix.FALLOC_FL_UNSHARE_RANGE
			writeZeroes = 0x80 // Linux 6.17
		)
		if off < 0 || length <= 0 {
			return syscall.EINVAL
		}
		switch mode {
		case 0, keep, punch | keep, collapse, zero, zero | keep, insert, unshare, unshare | keep, writeZeroes:
		default:
			return syscall.EOPNOTSUPP
		}
		switch {
		case !f.writable():
			return syscall.EBADF
		case mode&^keep != 0 && appendOnly(i), immutable(i):
			return syscall.EPERM
		case length > maxSize || off > maxSize-length:
			return syscall.EFBIG
		}
		end := off + length
		switch mode &^ keep {
		case unshare, writeZeroes:
			return syscall.EOPNOTSUPP
		case punch:
			f.fs.content(i, func(d *data) { d.punch(off, end) })
			return nil
		case collapse:
			return f.touched(i, f.collapse(i, off, end))
		case insert:
			return f.touched(i, f.insert(i, off, length))
		}
		if err := f.fs.room(i.data.newBlocks(off, end), 0); err != nil {
			return f.touched(i, err)
		}
		f.fs.content(i, func(d *data) {
			if mode&zero != 0 {
				d.zeroRange(off, end)
			} else {
				d.reserve(off, end)
			}
			if mode&keep == 0 && end > d.size {
				d.resize(end)
			}
		})
		return nil
	})
}

// touched does to a file what ext4 does to its attributes before it finds that
// a range cannot be allocated, collapsed or inserted.
func (f *file) touched(i *inode, err error) error {
	if err != nil {
		f.fs.content(i, func(*data) {})
	}
	return err
}

func (f *file) collapse(i *inode, off, end int64) error {
	if off%blockSize != 0 || end%blockSize != 0 || end >= i.data.size {
		return syscall.EINVAL
	}
	f.fs.content(i, func(d *data) {
		for n := off / blockSize; n < end/blockSize; n++ {
			d.place(n, nil)
		}
		d.shift(end/blockSize, (off-end)/blockSize)
		d.resize(d.size - (end - off))
	})
	return nil
}

func (f *file) insert(i *inode, off, length int64) error {
	switch {
	case off%blockSize != 0 || length%blockSize != 0:
		return syscall.EINVAL
	case length > maxSize-i.data.size:
		return syscall.EFBIG
	case off >= i.data.size:
		return syscall.EINVAL
	}
	f.fs.content(i, func(d *data) {
		d.shift(off/blockSize, length/blockSize)
		d.resize(d.size + length)
	})
	return nil
}

func (f *file) Seek(off int64, whence int) (pos int64, err error) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, syscall.EINVAL
	}
	err = f.do(Call{Op: "Seek", Off: off, Flag: whence}, func(i *inode) error {
		if pos = i.data.seek(off, whence); pos < 0 {
			pos = 0
			return syscall.ENXIO
		}
		return nil
	})
	return pos, err
}

func (f *file) Sync(dataOnly bool) error {
	return f.writeOut(Call{Op: "Sync", Flag: b2i(dataOnly), Mutates: true})
}

func (f *file) WriteOut() error { return f.writeOut(Call{Op: "WriteOut", Mutates: true}) }

func (f *file) writeOut(c Call) error {
	return f.do(c, func(i *inode) error {
		ino := i.ino
		f.fs.step(func(s *state) { s.inodes[ino].data.settle() })
		return nil
	})
}

func (f *file) Flags() (uint32, error)      { return f.getFlags() }
func (f *file) SetFlags(flags uint32) error { return f.setFlags(flags) }
