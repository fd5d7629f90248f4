package override

import "github.com/laminafs/lamina/fs/layer"

// file is an open file of the layer below.
type file struct {
	object
	data
}

var _ layer.File = (*file)(nil)

// data is what the attribute has nothing to do with.
type data interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Allocate(mode uint32, off, length int64) error
	Seek(off int64, whence int) (int64, error)
	Sync(dataOnly bool) error
	WriteOut() error
	layer.Flagged
}

// below returns the file that a wrapper wraps: calls of the layer below on two
// files take both from there.
func (f *file) below() layer.File { return f.object.Object.(layer.File) }

func belowFile(f layer.File) layer.File {
	if w, ok := f.(*file); ok {
		return w.below()
	}
	return f
}

func (f *file) CopyRangeFrom(src layer.File, srcOff, dstOff int64, length int) (int, error) {
	return f.below().CopyRangeFrom(belowFile(src), srcOff, dstOff, length)
}

func (f *file) CloneFrom(src layer.File) error { return f.below().CloneFrom(belowFile(src)) }

func (f *file) CloneRangeFrom(src layer.File, srcOff, length, dstOff int64) error {
	return f.below().CloneRangeFrom(belowFile(src), srcOff, length, dstOff)
}
