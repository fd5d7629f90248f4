package meta

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// bbolt trusts its pages: a flipped bit may send it out of its mapping, into
// endless recursion, or past a key that is there. So lamina reads the pages
// itself and lets bbolt write. The layout is that of bbolt's file version 2
// (internal/common/page.go and meta.go there), in the byte order of the host.

const (
	pageSize   = 4096 // of every file here, whatever the host's pages are
	headerSize = 16
	elemSize   = 16

	branchFlag   = 0x01
	leafFlag     = 0x02
	metaFlag     = 0x04
	freelistFlag = 0x10
	bucketFlag   = 0x01 // of a leaf element: the value is a bucket

	boltMagic   = 0xED0CDAED
	boltVersion = 2
	metaSize    = 64
	noFreelist  = ^uint64(0)

	// maxDepth is deeper than any tree that fits into a file.
	maxDepth = 32
)

var native = binary.NativeEndian

func damaged(f string, args ...any) error {
	return fmt.Errorf(f+": %w", append(args, format.ErrDamaged)...)
}

// A metaPage is one of the two roots of a file.
type metaPage struct {
	root     uint64
	freelist uint64 // noFreelist when it is not stored
	limit    uint64 // number of the first page never used
	txid     uint64
}

// parseMeta reads meta page i of a file.
func parseMeta(file []byte, i int) (metaPage, error) {
	off := i*pageSize + headerSize
	if len(file) < off+metaSize {
		return metaPage{}, damaged("the file ends before meta page %d", i)
	}
	b := file[off : off+metaSize]
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	switch {
	case native.Uint32(b) != boltMagic:
		return metaPage{}, damaged("meta page %d is none", i)
	case native.Uint32(b[4:]) != boltVersion:
		return metaPage{}, damaged("meta page %d is of bbolt version %d", i, native.Uint32(b[4:]))
	case native.Uint64(b[metaSize-8:]) != sum.Sum64():
		return metaPage{}, damaged("meta page %d does not match its checksum", i)
	case native.Uint32(b[8:]) != pageSize:
		return metaPage{}, damaged("pages of %d bytes", native.Uint32(b[8:]))
	}
	m := metaPage{root: native.Uint64(b[16:]), freelist: native.Uint64(b[32:]), limit: native.Uint64(b[40:]), txid: native.Uint64(b[48:])}
	if m.limit > uint64(len(file)/pageSize) {
		return metaPage{}, damaged("meta page %d counts %d pages, the file has %d", i, m.limit, len(file)/pageSize)
	}
	return m, nil
}

// newestMeta returns the meta page that bbolt takes, and what is wrong with the
// other one.
func newestMeta(file []byte) (m metaPage, lost, err error) {
	m0, err0 := parseMeta(file, 0)
	m1, err1 := parseMeta(file, 1)
	switch {
	case err0 != nil && err1 != nil:
		return metaPage{}, nil, err0
	case err1 != nil:
		return m0, err1, nil
	case err0 != nil:
		return m1, err0, nil
	case m0.txid > m1.txid:
		return m0, nil, nil
	}
	return m1, nil, nil
}

// A page is a branch or leaf whose layout has been checked: every accessor
// stays within b.
type page struct {
	b    []byte
	leaf bool
	n    int
	next uint64 // number of the page behind it
}

// readPage returns tree page id of a file of which limit pages are in use.
func readPage(file []byte, id, limit uint64) (page, error) {
	if id < 2 || id >= limit {
		return page{}, damaged("page %d of %d does not exist", id, limit)
	}
	b := file[id*pageSize : limit*pageSize]
	overflow := uint64(native.Uint32(b[12:]))
	if native.Uint64(b) != id || overflow >= limit-id {
		return page{}, damaged("page %d says that it is %d with %d more", id, native.Uint64(b), overflow)
	}
	p, end, err := parsePage(b[:(overflow+1)*pageSize])
	if err != nil {
		return page{}, fmt.Errorf("page %d: %w", id, err)
	}
	if pages := (end + pageSize - 1) / pageSize; uint64(pages) != overflow+1 {
		return page{}, damaged("page %d has %d bytes in %d pages", id, end, overflow+1)
	}
	p.next = id + overflow + 1
	return p, nil
}

// parsePage checks the layout that bbolt gives to every page: elements, then
// keys and values behind each other without gaps, keys ascending. It returns
// where the last one ends.
func parsePage(b []byte) (p page, end int, err error) {
	if len(b) < headerSize {
		return page{}, 0, damaged("%d bytes are no page", len(b))
	}
	flags, n := native.Uint16(b[8:]), int(native.Uint16(b[10:]))
	if flags != leafFlag && (flags != branchFlag || n == 0) {
		return page{}, 0, damaged("flags %#x with %d elements", flags, n)
	}
	p = page{b: b, leaf: flags == leafFlag, n: n}
	end = headerSize + n*elemSize
	var last []byte
	for i := range n {
		elem := headerSize + i*elemSize
		if elem+elemSize > len(b) {
			return page{}, 0, damaged("%d elements in %d bytes", n, len(b))
		}
		pos, key, size := native.Uint32(b[elem:]), native.Uint32(b[elem+4:]), uint64(native.Uint32(b[elem+4:]))
		if p.leaf {
			pos, key = native.Uint32(b[elem+4:]), native.Uint32(b[elem+8:])
			size = uint64(key) + uint64(native.Uint32(b[elem+12:]))
		}
		if elem+int(pos) != end || key == 0 || size > uint64(len(b)-end) {
			return page{}, 0, damaged("element %d of %d is out of place", i, n)
		}
		k := b[end : end+int(key)]
		if i > 0 && bytes.Compare(last, k) >= 0 {
			return page{}, 0, damaged("key %d of %d is out of order", i, n)
		}
		last, end = k, end+int(size)
	}
	if end > len(b) {
		return page{}, 0, damaged("%d elements in %d bytes", n, len(b))
	}
	return p, end, nil
}

func (p page) elem(i int) []byte { return p.b[headerSize+i*elemSize:] }

func (p page) key(i int) []byte {
	e := p.elem(i)
	if p.leaf {
		return e[native.Uint32(e[4:]):][:native.Uint32(e[8:])]
	}
	return e[native.Uint32(e):][:native.Uint32(e[4:])]
}

// value returns the value of an element of a leaf.
func (p page) value(i int) []byte {
	e := p.elem(i)
	return e[native.Uint32(e[4:])+native.Uint32(e[8:]):][:native.Uint32(e[12:])]
}

// isBucket reports whether the value of a leaf's element is a bucket.
func (p page) isBucket(i int) bool { return native.Uint32(p.elem(i))&bucketFlag != 0 }

// child returns the page that an element of a branch points to.
func (p page) child(i int) uint64 { return native.Uint64(p.elem(i)[8:]) }

// search returns the first element whose key is not below key, and whether it
// is key.
func (p page) search(key []byte) (i int, found bool) {
	lo, hi := 0, p.n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := bytes.Compare(p.key(mid), key); {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}
