package memdev

import "slices"

const (
	pageSize  = 4096
	leafPages = 256
	leafSize  = leafPages * pageSize
)

type page = [pageSize]byte

// An image is the content of a device. Images share leaves and pages; an image
// changes in place only what it has made itself since its last fork. A nil page
// or leaf reads as zeros.
type image struct {
	size   int64
	owner  *owner // nil while even the slice of leaves is shared
	leaves []*leaf
}

// An owner is compared by address and has a size so that no two are the same.
type owner struct{ _ byte }

type leaf struct {
	owner *owner
	pages [leafPages]*page
	owned [leafPages / 64]uint64 // pages that the owner may change in place
}

// fork returns a copy that changes independently of m.
func (m *image) fork() *image {
	if m.owner != nil { // a frozen image is forked by several goroutines
		m.owner = nil
	}
	return &image{size: m.size, leaves: m.leaves}
}

// writable returns leaf i, such that it may be changed.
func (m *image) writable(i int) *leaf {
	if m.owner == nil {
		m.owner = new(owner)
		m.leaves = slices.Clone(m.leaves)
	}
	if i >= len(m.leaves) {
		m.leaves = append(m.leaves, make([]*leaf, i+1-len(m.leaves))...)
	}
	l := m.leaves[i]
	switch {
	case l == nil:
		l = &leaf{owner: m.owner}
	case l.owner != m.owner:
		l = &leaf{owner: m.owner, pages: l.pages}
	default:
		return l
	}
	m.leaves[i] = l
	return l
}

func (m *image) page(n int64) *page {
	i := int(n / leafPages)
	if i >= len(m.leaves) || m.leaves[i] == nil {
		return nil
	}
	return m.leaves[i].pages[n%leafPages]
}

// read fills p from off; the caller has checked the range.
func (m *image) read(p []byte, off int64) {
	for len(p) > 0 {
		from := off % pageSize
		n := min(pageSize-from, int64(len(p)))
		if pg := m.page(off / pageSize); pg != nil {
			copy(p[:n], pg[from:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+n
	}
}

// write puts data at off. The image refers to whole pages of data from now on
// instead of copying them, so nobody may change data any more.
func (m *image) write(off int64, data []byte) {
	for len(data) > 0 {
		from := off % pageSize
		n := min(pageSize-from, int64(len(data)))
		l, i := m.writable(int(off/leafSize)), off/pageSize%leafPages
		if n == pageSize {
			l.pages[i] = (*page)(data)
			l.owned[i/64] &^= 1 << (i % 64)
		} else {
			copy(l.own(i)[from:], data[:n])
		}
		data, off = data[n:], off+n
	}
}

// zero makes n bytes at off zeros.
func (m *image) zero(off, n int64) {
	for n > 0 {
		from := off % pageSize
		k := min(pageSize-from, n)
		if m.page(off/pageSize) != nil {
			l, i := m.writable(int(off/leafSize)), off/pageSize%leafPages
			if k == pageSize {
				l.pages[i] = nil
			} else {
				clear(l.own(i)[from : from+k])
			}
		}
		off, n = off+k, n-k
	}
}

// own returns page i of a leaf that may be changed, such that it may be too.
func (l *leaf) own(i int64) *page {
	if l.pages[i] == nil || l.owned[i/64]&(1<<(i%64)) == 0 {
		p := new(page)
		if old := l.pages[i]; old != nil {
			*p = *old
		}
		l.pages[i] = p
		l.owned[i/64] |= 1 << (i % 64)
	}
	return l.pages[i]
}

// used returns how many bytes of pages the image refers to.
func (m *image) used() int64 {
	var n int64
	for _, l := range m.leaves {
		if l == nil {
			continue
		}
		for _, p := range l.pages {
			if p != nil {
				n += pageSize
			}
		}
	}
	return n
}
