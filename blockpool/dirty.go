package blockpool

import (
	"slices"

	tree "github.com/tidwall/btree"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// dirty is what one volume has changed in one txg. The volume's mu guards it
// while the txg is open; then nothing changes it any more.
//
// A record that is in records is as it says there; one that is not, but lies in
// a hole, reads as zeros; any other is as it was before.
type dirty struct {
	records map[uint64]*dirtyRecord
	holes   spans
	items   tree.Map[string, itemValue] // of a dataset
}

// An itemValue is the new value of an item; nil: there is none any more.
type itemValue []byte

// A dirtyRecord is a record with its new content, in memory or written already.
type dirtyRecord struct {
	at       format.Addr   // sectors that were allocated for it
	admitted int64         // bytes for which they were
	buf      []byte        // the content, still to be written; nil when rec tells where it is
	rec      format.Record // of a record that was written when it was admitted
}

// copyTo fills p with what is from within bytes on. What a short record of a
// dataset lacks is zeros.
func (r *dirtyRecord) copyTo(p []byte, within int64) {
	n := 0
	if within < int64(len(r.buf)) {
		n = copy(p, r.buf[within:])
	}
	clear(p[n:])
}

// admitted returns the bytes that were admitted for all records.
func (d *dirty) admitted() (n int64) {
	for _, r := range d.records {
		n += r.admitted
	}
	return n
}

func newDirty() *dirty { return &dirty{records: map[uint64]*dirtyRecord{}} }

// find returns what d knows of a record: its new content, or that it is a hole.
func (d *dirty) find(record uint64) (r *dirtyRecord, hole bool) {
	if d == nil {
		return nil, false
	}
	if r := d.records[record]; r != nil {
		return r, false
	}
	return nil, d.holes.has(record)
}

// cut makes records first to end-1 a hole and returns what they held.
func (d *dirty) cut(first, end uint64) (gone []*dirtyRecord) {
	if end-first > uint64(len(d.records)) {
		for n, r := range d.records {
			if n >= first && n < end {
				gone = append(gone, r)
				delete(d.records, n)
			}
		}
	} else {
		for n := first; n < end; n++ {
			if r := d.records[n]; r != nil {
				gone = append(gone, r)
				delete(d.records, n)
			}
		}
	}
	d.holes.add(first, end)
	return gone
}

// spans is a set of numbers, as sorted ranges that neither touch nor overlap.
type spans []span

// A span is the numbers from first to end-1.
type span struct{ first, end uint64 }

// has reports whether n is in the set.
func (s spans) has(n uint64) bool {
	i, _ := slices.BinarySearchFunc(s, n, func(a span, n uint64) int {
		if a.end <= n {
			return -1
		}
		return 1
	})
	return i < len(s) && s[i].first <= n
}

// add puts the numbers from first to end-1 into the set.
func (s *spans) add(first, end uint64) {
	if first >= end {
		return
	}
	// from is the first span that touches the new one, to the first behind it.
	from, _ := slices.BinarySearchFunc(*s, first, func(a span, n uint64) int {
		if a.end < n {
			return -1
		}
		return 1
	})
	to := from
	for to < len(*s) && (*s)[to].first <= end {
		first, end = min(first, (*s)[to].first), max(end, (*s)[to].end)
		to++
	}
	*s = slices.Replace(*s, from, to, span{first, end})
}

// next returns the first number from n on that is in the set, or false.
func (s spans) next(n uint64) (uint64, bool) {
	for _, a := range s {
		if a.end > n {
			return max(a.first, n), true
		}
	}
	return 0, false
}
