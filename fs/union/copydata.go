package union

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// copyBuffer is the unit of copying by hand, in bytes.
const copyBuffer = 256 << 10

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

// copyData makes dst hold the first size bytes of src, holes included: shared
// where the filesystem can, else copied by the kernel, else by hand. It returns
// the number of bytes that were moved.
func (fs *FS) copyData(dst, src layer.File, st *layer.Stat, size int64) (int64, error) {
	if size == 0 {
		return 0, nil
	}
	if size == st.Size && !fs.noClone.Load() {
		switch err := dst.CloneFrom(src); err {
		case nil:
			return 0, nil
		case unix.EOPNOTSUPP, unix.EXDEV, unix.EINVAL, unix.ENOTTY, unix.EPERM, unix.ETXTBSY, unix.ENOSYS:
			if err == unix.EOPNOTSUPP || err == unix.ENOTTY {
				fs.noClone.Store(true)
			}
		default:
			return 0, err
		}
	}
	c := copier{dst: dst, src: src, byHand: size <= copyBuffer}
	if st.Blocks*512 >= st.Size { // no holes
		err := c.copyRange(0, size)
		return c.moved, err
	}
	if err := c.sparse(size); err != nil {
		return c.moved, err
	}
	return c.moved, dst.Truncate(size)
}

type copier struct {
	dst, src layer.File
	byHand   bool
	moved    int64
}

// sparse copies what lies between holes.
func (c *copier) sparse(size int64) error {
	for off := int64(0); off < size; {
		data, err := c.src.Seek(off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil
		}
		if err != nil {
			return c.copyRange(off, size)
		}
		hole, err := c.src.Seek(data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := c.copyRange(min(data, size), min(hole, size)); err != nil {
			return err
		}
		off = hole
	}
	return nil
}

// copyRange copies one range.
func (c *copier) copyRange(from, to int64) error {
	for !c.byHand && from < to {
		n, err := c.dst.CopyRangeFrom(c.src, from, from, int(min(to-from, 1<<30)))
		switch {
		case err == unix.EXDEV, err == unix.EOPNOTSUPP, err == unix.EINVAL, err == unix.ENOSYS, err == unix.EPERM:
			c.byHand = true
		case err != nil:
			return err
		case n == 0: // some filesystems answer nothing instead of an error
			c.byHand = true
		default:
			from += int64(n)
			c.moved += int64(n)
		}
	}
	if from >= to {
		return nil
	}
	bp := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(bp)
	for from < to {
		buf := (*bp)[:min(int64(len(*bp)), to-from)]
		n, err := c.src.ReadAt(buf, from)
		if err != nil {
			return err
		}
		if n == 0 {
			return nil // shorter than its size said
		}
		if _, err := c.dst.WriteAt(buf[:n], from); err != nil {
			return err
		}
		from += int64(n)
		c.moved += int64(n)
	}
	return nil
}
