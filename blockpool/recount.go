package blockpool

import (
	"errors"
	"math/bits"

	"github.com/cespare/xxhash/v2"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/raid"
	"github.com/laminafs/lamina/blockpool/internal/spacemap"
)

// recount counts the references to records anew. For each segment of the address
// space that holds something it has two bitmaps, four bytes for each record, and
// more only for those that are shared.
type recount struct {
	segments map[uint64]*recounted
}

// recounted is a segment's part: which sectors records take, where they begin, and
// what tells the record that begins there from any other.
type recounted struct {
	covered, starts spacemap.Bits
	prints          []uint32          // one for each start
	more            map[uint16]uint64 // references to a record beyond the first, by its start
}

func newRecount() *recount { return &recount{segments: map[uint64]*recounted{}} }

// errOverlap says that another record has some of the sectors.
var errOverlap = errors.New("another record has some of these sectors")

// add counts a reference to a record in chunk c, which covers it. It reports
// whether it was the first.
func (r *recount) add(c *raid.Chunk, rec format.Record) (first bool, err error) {
	at, need := uint64(rec.Addr), uint64(c.Need(int64(rec.Size)))
	s, u := r.segment(at/segmentUnits), at%segmentUnits
	i, print := rank(&s.starts, u), fingerprint(rec)
	if hasBit(&s.starts, u) {
		if s.prints[i] != print {
			return false, errOverlap
		}
		if s.more == nil {
			s.more = map[uint16]uint64{}
		}
		s.more[uint16(u)]++
		return false, nil
	}
	for n := range need {
		if hasBit(&r.segment((at+n)/segmentUnits).covered, (at+n)%segmentUnits) {
			return false, errOverlap
		}
	}
	for n := range need {
		setBit(&r.segment((at+n)/segmentUnits).covered, (at+n)%segmentUnits)
	}
	setBit(&s.starts, u)
	s.prints = append(s.prints, 0)
	copy(s.prints[i+1:], s.prints[i:])
	s.prints[i] = print
	return true, nil
}

func (r *recount) segment(seg uint64) *recounted {
	s := r.segments[seg]
	if s == nil {
		s = &recounted{}
		r.segments[seg] = s
	}
	return s
}

// count returns the references to the record that begins at u, 1 for a sector
// within one, and 0 for one that no record has.
func (s *recounted) count(u uint64) uint64 {
	if s == nil || !hasBit(&s.covered, u) {
		return 0
	}
	return 1 + s.more[uint16(u)]
}

// shared reports whether more than one reference to the record at an address was
// counted.
func (r *recount) shared(at format.Addr) bool {
	s := r.segments[uint64(at)/segmentUnits]
	return s.count(uint64(at)%segmentUnits) > 1
}

// fingerprint tells records apart that claim one address.
func fingerprint(rec format.Record) uint32 {
	return uint32(xxhash.Sum64(format.AppendRecord(nil, rec)))
}

func hasBit(b *spacemap.Bits, u uint64) bool { return b[u/64]>>(u%64)&1 != 0 }
func setBit(b *spacemap.Bits, u uint64)      { b[u/64] |= 1 << (u % 64) }

// rank returns how many bits below u are set.
func rank(b *spacemap.Bits, u uint64) (n int) {
	for i := range u / 64 {
		n += bits.OnesCount64(b[i])
	}
	return n + bits.OnesCount64(b[u/64]&(1<<(u%64)-1))
}
