package memlayer

import (
	"slices"

	"golang.org/x/sys/unix"
)

// blockSize is the unit of allocation, as on ext4 with pages of 4 KiB.
const blockSize = 4096

// maxSize is the largest file of ext4 with blocks of 4 KiB (ext4_max_size).
const maxSize = (1<<32 - 1) * blockSize

// A block is never changed once it is part of a file, so that files, clones
// and snapshots of the whole filesystem share blocks freely.
type block [blockSize]byte

// unwritten stands for a block that fallocate(2) reserved: it takes space,
// reads as zeros and is a hole to SEEK_DATA.
var unwritten = new(block)

// data is the content of a regular file and of what a power cut makes of it.
type data struct {
	size   int64
	blocks map[int64]*block // by number; a hole has none

	// clean holds, for each block that changed since the last write-out,
	// what the disk has in its place (nil: a hole), and diskSize the size that
	// the disk has.
	clean    map[int64]*block
	diskSize int64
}

func (d *data) clone() data {
	c := *d
	c.blocks, c.clean = make(map[int64]*block, len(d.blocks)), make(map[int64]*block, len(d.clean))
	for n, b := range d.blocks {
		c.blocks[n] = b
	}
	for n, b := range d.clean {
		c.clean[n] = b
	}
	return c
}

// put makes b the n-th block until write-out only in memory.
func (d *data) put(n int64, b *block) {
	if _, dirty := d.clean[n]; !dirty {
		d.clean[n] = d.blocks[n]
	}
	d.blocks[n] = b
}

// place makes b the n-th block (nil: a hole) in memory and on disk: a change
// of extents, which the journal holds.
func (d *data) place(n int64, b *block) {
	delete(d.clean, n)
	if b == nil {
		delete(d.blocks, n)
	} else {
		d.blocks[n] = b
	}
}

// settle is write-out: the disk has what memory has.
func (d *data) settle() {
	clear(d.clean)
	d.diskSize = d.size
}

// resize sets the size in memory and on disk.
func (d *data) resize(size int64) {
	d.size, d.diskSize = size, size
}

func (d *data) readAt(p []byte, off int64) int {
	if off >= d.size {
		return 0
	}
	p = p[:min(int64(len(p)), d.size-off)]
	for done := 0; done < len(p); {
		n, in := (off+int64(done))/blockSize, (off+int64(done))%blockSize
		part := p[done:min(len(p), done+int(blockSize-in))]
		if b := d.blocks[n]; b != nil {
			copy(part, b[in:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	return len(p)
}

func (d *data) writeAt(p []byte, off int64) {
	for done := 0; done < len(p); {
		n, in := (off+int64(done))/blockSize, (off+int64(done))%blockSize
		fresh := new(block)
		if old := d.blocks[n]; old != nil {
			*fresh = *old
		}
		done += copy(fresh[in:], p[done:])
		d.put(n, fresh)
	}
	d.size = max(d.size, off+int64(len(p)))
}

// truncate sets the size; what lies past it is gone for good.
func (d *data) truncate(size int64) {
	if size < d.size {
		d.dropFrom((size + blockSize - 1) / blockSize)
		d.zero(size, (size/blockSize+1)*blockSize)
	}
	d.resize(size)
}

// dropFrom removes all blocks from the n-th on.
func (d *data) dropFrom(n int64) {
	for _, m := range d.numbers() {
		if m >= n {
			d.place(m, nil)
		}
	}
	for m := range d.clean {
		if m >= n {
			delete(d.clean, m)
		}
	}
}

// zero overwrites the bytes in [from, to), which lie in one block, also in
// the version of the disk: what is cut off never comes back.
func (d *data) zero(from, to int64) {
	n, lo := from/blockSize, from%blockSize
	hi := lo + to - from
	blank := func(b *block) *block {
		if b == nil || b == unwritten {
			return b
		}
		fresh := *b
		clear(fresh[lo:hi])
		return &fresh
	}
	if b := d.blocks[n]; b != nil {
		d.blocks[n] = blank(b)
	}
	if b, dirty := d.clean[n]; dirty {
		d.clean[n] = blank(b)
	}
}

// eachBlock calls whole for the blocks that lie in [off, end) and part for the
// ranges at its edges that cover only a part of a block.
func eachBlock(off, end int64, whole func(n int64), part func(from, to int64)) {
	for off < end {
		next := min(end, (off/blockSize+1)*blockSize)
		if next-off == blockSize {
			whole(off / blockSize)
		} else {
			part(off, next)
		}
		off = next
	}
}

// reserve allocates the holes of a range without writing to them.
func (d *data) reserve(off, end int64) {
	for n := off / blockSize; n*blockSize < end; n++ {
		if d.blocks[n] == nil {
			d.place(n, unwritten)
		}
	}
}

// punch makes a hole, as far as the file goes; in its last block that is the
// whole block (ext4_punch_hole). What is reserved past the end stays.
func (d *data) punch(off, end int64) {
	if off >= d.size {
		return
	}
	if end > d.size {
		end = (d.size + blockSize - 1) / blockSize * blockSize
	}
	eachBlock(off, end, func(n int64) { d.place(n, nil) }, d.zero)
}

func (d *data) zeroRange(off, end int64) {
	d.reserve(off, end)
	eachBlock(off, end, func(n int64) { d.place(n, unwritten) }, d.zero)
}

// shift moves all blocks from the n-th on by delta and settles them: ext4
// writes out what follows before it moves extents (ext4_collapse_range).
func (d *data) shift(n, delta int64) {
	d.settle()
	moved := make(map[int64]*block, len(d.blocks))
	for m, b := range d.blocks {
		if m >= n {
			m += delta
		}
		moved[m] = b
	}
	d.blocks = moved
}

// seek answers SEEK_DATA and SEEK_HOLE, -1 for ENXIO.
func (d *data) seek(off int64, whence int) int64 {
	if off < 0 || off >= d.size {
		return -1
	}
	isData := func(n int64) bool { b := d.blocks[n]; return b != nil && b != unwritten }
	if whence == unix.SEEK_HOLE {
		n := off / blockSize
		for isData(n) {
			n++
		}
		return min(max(off, n*blockSize), d.size)
	}
	for _, n := range d.numbers() {
		if at := max(off, n*blockSize); isData(n) && (n+1)*blockSize > off {
			if at >= d.size {
				break
			}
			return at
		}
	}
	return -1
}

// newBlocks counts the blocks of [off, end) that a write has to allocate.
func (d *data) newBlocks(off, end int64) (count int64) {
	for n := off / blockSize; n*blockSize < end; n++ {
		if d.blocks[n] == nil {
			count++
		}
	}
	return count
}

// numbers returns the allocated blocks in order.
func (d *data) numbers() []int64 {
	out := make([]int64, 0, len(d.blocks))
	for n := range d.blocks {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}
