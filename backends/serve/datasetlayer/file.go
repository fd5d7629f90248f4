package datasetlayer

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/fs/layer"
)

// A file is a regular file, always open for everything.
type file struct{ object }

var _ layer.File = (*file)(nil)

// begin does what opening does to a file.
func (f *file) begin(flags int) error {
	if flags&unix.O_TRUNC == 0 {
		return nil
	}
	err := f.Truncate(0)
	if err != nil {
		f.Close()
	}
	return err
}

func (f *file) ReadAt(p []byte, off int64) (int, error) { return f.fs.Read(f.n, p, off) }

func (f *file) WriteAt(p []byte, off int64) (done int, err error) {
	for done < len(p) {
		n, err := f.fs.Write(f.n, p[done:], off+int64(done), false)
		done += n
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, unix.EIO
		}
	}
	return done, nil
}

func (f *file) Truncate(size int64) error { return f.set(dataset.Change{Size: &size}) }

func (f *file) Allocate(mode uint32, off, length int64) error {
	return f.fs.Fallocate(f.n, mode, off, length, false)
}

func (f *file) Seek(off int64, whence int) (int64, error) { return f.fs.Seek(f.n, off, whence) }

func (f *file) Sync(dataOnly bool) error { return f.fs.Fsync(f.n, dataOnly) }

// WriteOut has nothing to do: what is written is the pool's at once.
func (f *file) WriteOut() error { return nil }

func (f *file) CopyRangeFrom(src layer.File, srcOff, dstOff int64, length int) (int, error) {
	from, ok := src.(*file)
	if !ok || from.fs != f.fs {
		return 0, unix.EXDEV
	}
	return f.fs.CopyRange(from.n, f.n, srcOff, dstOff, length, false)
}

func (f *file) CloneFrom(src layer.File) error {
	from, ok := src.(*file)
	if !ok {
		return unix.EXDEV
	}
	st, err := from.Stat()
	if err != nil {
		return err
	}
	return f.CloneRangeFrom(src, 0, st.Size, 0)
}

// CloneRangeFrom copies by sharing records, as copy_file_range does.
func (f *file) CloneRangeFrom(src layer.File, srcOff, length, dstOff int64) error {
	if _, ok := src.(*file); !ok {
		return unix.EXDEV
	}
	for length > 0 {
		n, err := f.CopyRangeFrom(src, srcOff, dstOff, int(min(length, 1<<30)))
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.EINVAL // the source ends before
		}
		srcOff, dstOff, length = srcOff+int64(n), dstOff+int64(n), length-int64(n)
	}
	return nil
}
