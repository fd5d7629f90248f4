package memlayer

import (
	"syscall"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

// source returns the file that src is, or the error of a pair that cannot
// share data (generic_file_rw_checks and what follows). The caller holds fs.mu.
func (f *file) source(src layer.File) (*file, error) {
	s, ok := src.(*file)
	switch {
	case !ok:
		return nil, syscall.EXDEV
	case s.fs != f.fs:
		return nil, syscall.EXDEV
	case s.closed, !s.readable(), !f.writable(), f.flags&unix.O_APPEND != 0:
		return nil, syscall.EBADF
	}
	return s, nil
}

func pathOf(x any) string {
	switch x := x.(type) {
	case *file:
		return x.path
	case *dir:
		return x.path
	case *object:
		return x.path
	}
	return "?"
}

// CopyRangeFrom copies by way of the page cache, as the kernel does between two
// files of ext4: holes of the source become zeros.
func (f *file) CopyRangeFrom(src layer.File, srcOff, dstOff int64, length int) (n int, err error) {
	c := Call{Op: "CopyRangeFrom", To: pathOf(src), Off: dstOff, Len: int64(length), Mutates: true}
	err = f.do(c, func(i *inode) error {
		s, err := f.source(src)
		if err != nil {
			return err
		}
		switch {
		case srcOff < 0 || dstOff < 0 || length < 0:
			return syscall.EINVAL
		case immutable(i):
			return syscall.EPERM
		}
		count := max(0, min(int64(length), s.i.data.size-srcOff))
		if s.i == i && srcOff < dstOff+count && dstOff < srcOff+count {
			return syscall.EINVAL
		}
		p := make([]byte, count)
		s.i.data.readAt(p, srcOff)
		n, err = f.fs.write(i, f.flags, p, dstOff)
		if n > 0 {
			return nil // short, as a single call is; the next one tells why
		}
		return err
	})
	return n, err
}

func (f *file) CloneFrom(src layer.File) error {
	return f.clone(Call{Op: "CloneFrom", To: pathOf(src), Mutates: true}, src, 0, 0, 0)
}

func (f *file) CloneRangeFrom(src layer.File, srcOff, length, dstOff int64) error {
	c := Call{Op: "CloneRangeFrom", To: pathOf(src), Off: dstOff, Len: length, Mutates: true}
	return f.clone(c, src, srcOff, length, dstOff)
}

// clone shares blocks, by the rules of generic_remap_file_range_prep: whole
// blocks, but for the last one of the source. Both files are written out
// before.
func (f *file) clone(c Call, src layer.File, srcOff, length, dstOff int64) error {
	return f.do(c, func(i *inode) error {
		s, err := f.source(src)
		switch {
		case err != nil:
			return err
		case !f.fs.opts.Reflink:
			return syscall.EOPNOTSUPP
		case immutable(i):
			return syscall.EPERM
		}
		size := s.i.data.size
		if length == 0 {
			length = size - srcOff
		}
		tail := srcOff+length == size && dstOff+length >= i.data.size
		switch {
		case srcOff < 0, dstOff < 0, length < 0, srcOff+length > size:
			return syscall.EINVAL
		case srcOff%blockSize != 0, dstOff%blockSize != 0, length%blockSize != 0 && !tail:
			return syscall.EINVAL
		case s.i == i && srcOff < dstOff+length && dstOff < srcOff+length:
			return syscall.EINVAL
		case length == 0:
			return nil
		case dstOff > maxSize-length:
			return syscall.EFBIG
		}
		blocks := make(map[int64]*block)
		first, count := srcOff/blockSize, (length+blockSize-1)/blockSize
		for n, b := range s.i.data.blocks {
			if n >= first && n < first+count && b != unwritten {
				blocks[n-first+dstOff/blockSize] = b
			}
		}
		from := s.i.ino
		f.fs.content(i, func(d *data) {
			d.settle()
			for n := dstOff / blockSize; n < dstOff/blockSize+count; n++ {
				d.place(n, blocks[n])
			}
			d.resize(max(d.size, dstOff+length))
		})
		f.fs.step(func(st *state) { st.inodes[from].data.settle() })
		return nil
	})
}
