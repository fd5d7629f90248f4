package dataset

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// CopyRange is copy_file_range(2) between two files, also of different trees of the
// mount. Whole records that lie in the same way in both are shared where that pays
// ([Options].ShareFrom), the rest is copied, holes stay holes. It returns how many bytes that were, less than asked for
// at the end of the source.
//
// Crash in between: the part from the beginning on is there.
func (fs *FS) CopyRange(src, dst *Node, srcOff, dstOff int64, length int, kill bool) (done int, err error) {
	if dst.view == nil || dst.view.readOnly.Load() {
		return 0, unix.EROFS
	}
	unlock, err := lockAll(src, dst)
	if err != nil {
		return 0, err
	}
	defer unlock()
	for _, n := range []*Node{src, dst} {
		if err := n.fileLocked(); err != nil {
			return 0, err
		}
	}
	if srcOff < 0 || dstOff < 0 || length < 0 {
		return 0, unix.EINVAL
	}
	left := min(int64(length), max(0, src.in.size-srcOff))
	switch {
	case src == dst && srcOff < dstOff+left && dstOff < srcOff+left:
		return 0, unix.EINVAL
	case left > dst.view.maxSize()-dstOff:
		return 0, unix.EFBIG
	case dst.in.flags&(flagImmutable|flagAppend) != 0:
		return 0, unix.EPERM
	}
	for left > 0 {
		c := copying{src: src, dst: dst, from: srcOff + int64(done), to: dstOff + int64(done), left: left}
		k, err := c.step(kill)
		if err != nil {
			if done > 0 {
				err = nil
			}
			return done, err
		}
		done += int(k)
		left -= k
	}
	return done, nil
}

// A copying is what is left of a copy.
type copying struct {
	src, dst       *Node
	from, to, left int64
}

// step copies or shares what one batch can, and returns how many bytes that were.
func (c *copying) step(kill bool) (k int64, err error) {
	v := c.dst.view
	s := v.step()
	if err := s.written(c.dst, kill); err != nil {
		return 0, err
	}
	records, head := c.shareable()
	if len(s.Zeros) > 0 { // a batch that shares has items only
		records, head = 0, c.left
	}
	if records > 0 {
		k, err = c.share(s, records)
	} else {
		k, err = c.copy(s, head)
	}
	if err != nil {
		return 0, err
	}
	if err := s.commit("copy", c.dst.object); err != nil {
		return 0, err
	}
	counter := &v.fs.stats.Copied
	if s.from != nil {
		counter = &v.fs.stats.Shared
	}
	counter.Add(uint64(k))
	return k, nil
}

// shareable returns how many records can be shared from here on. Where it is 0, what
// comes before those that can be is copied, up to head bytes of it.
func (c *copying) shareable() (records uint64, head int64) {
	size, shareFrom := c.dst.view.size, c.dst.view.fs.opt.Load().ShareFrom
	if c.src.view.size != size || c.from%size != c.to%size {
		return 0, c.left
	}
	if part := c.from % size; part > 0 {
		if c.left-(size-part) >= shareFrom {
			return 0, size - part
		}
		return 0, c.left
	}
	whole := c.left / size * size
	if c.from+c.left == c.src.in.size && c.to+c.left >= c.dst.in.size {
		whole = c.left // the last record too: what it has behind the end is zeros
	}
	if whole < shareFrom {
		return 0, c.left
	}
	return min(c.dst.view.records(whole), maxDrop), 0
}

func (c *copying) share(s *step, records uint64) (int64, error) {
	v := s.v
	k := min(int64(records)*v.size, c.left)
	if err := s.prepareGrow(c.dst, c.to+k); err != nil {
		return 0, err
	}
	s.from = c.src.view.tree
	s.share = blockpool.Share{
		SrcObject: c.src.object, Src: uint64(c.from / v.size),
		DstObject: c.dst.object, Dst: uint64(c.to / v.size), N: records,
	}
	gained, err := c.src.view.countRecords(c.src.object, s.share.Src, s.share.Src+records)
	if err != nil {
		return 0, err
	}
	fresh, err := c.dst.unmapped(c.to, c.to+int64(records)*v.size)
	if err != nil {
		return 0, err
	}
	in := s.edit(c.dst)
	in.mapped += gained
	in.mapped -= min(records-fresh, in.mapped)
	in.size = max(in.size, c.to+k)
	c.dst.known = 0
	return k, nil
}

// copy copies up to k bytes, or leaves a hole.
func (c *copying) copy(s *step, k int64) (int64, error) {
	from := c.src.view
	a, b, err := from.tree.NextRecords(c.src.object, uint64(c.from/from.size))
	if err != nil {
		return 0, failed("copy", c.src.object, err)
	}
	if data := int64(a) * from.size; b <= a || data > c.from {
		if b > a {
			k = min(k, data-c.from)
		}
		return min(k, maxDrop*s.v.size), c.hole(s, min(k, maxDrop*s.v.size))
	}
	k = min(k, maxStep, int64(b)*from.size-c.from)
	p := make([]byte, k)
	if _, err := c.src.readLocked(p, c.from); err != nil {
		return 0, err
	}
	return k, s.write(c.dst, p, c.to)
}

// hole makes k bytes of the destination zeros.
func (c *copying) hole(s *step, k int64) error {
	if err := s.prepareGrow(c.dst, c.to+k); err != nil {
		return err
	}
	if err := s.zero(c.dst, c.to, min(c.to+k, c.dst.in.size)); err != nil {
		return err
	}
	in := s.edit(c.dst)
	in.size = max(in.size, c.to+k)
	return nil
}
