package spacemap

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// SegmentUnits is the number of units that a segment counts.
const SegmentUnits = 1024

// MaxCount is the most references that a unit can have.
const MaxCount = 1 << 56

// segmentVersion is the first byte of an encoded segment.
const segmentVersion = 1

// Bits is the bitmap of a segment. Unit u is in use when bit u%64 of word u/64
// is set.
type Bits [SegmentUnits / 64]uint64

// bitmapSize is the size of an encoded bitmap, in bytes.
const bitmapSize = SegmentUnits / 8

func (b *Bits) has(u uint64) bool { return b[u/64]>>(u%64)&1 != 0 }
func (b *Bits) set(u uint64)      { b[u/64] |= 1 << (u % 64) }
func (b *Bits) clear(u uint64)    { b[u/64] &^= 1 << (u % 64) }

// Len returns the number of units in use.
func (b *Bits) Len() int {
	n := 0
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// segment is the decoded form.
type segment struct {
	bits   Bits
	shared []sharedUnit // sorted by unit
	dirty  bool
	gone   bool // removed: nothing may be in it, and its value is to be deleted
}

// sharedUnit is a unit with two or more references.
type sharedUnit struct {
	unit  uint64 // within the segment
	count uint64
}

// find returns where u is in the list, or where it would be.
func (s *segment) find(u uint64) (int, bool) {
	return slices.BinarySearchFunc(s.shared, u, func(e sharedUnit, u uint64) int {
		return int(e.unit) - int(u)
	})
}

func (s *segment) count(u uint64) uint64 {
	if !s.bits.has(u) {
		return 0
	}
	if i, ok := s.find(u); ok {
		return s.shared[i].count
	}
	return 1
}

// setCount gives a unit that is in use n references, n being 1 or more.
func (s *segment) setCount(u, n uint64) {
	i, ok := s.find(u)
	switch {
	case n >= 2 && ok:
		s.shared[i].count = n
	case n >= 2:
		s.shared = slices.Insert(s.shared, i, sharedUnit{u, n})
	case ok:
		s.shared = slices.Delete(s.shared, i, i+1)
	}
}

// pack encodes the segment: the version, the bitmap in little endian words, and
// for each shared unit the distance from the one before, less one, and its count
// less two, both as varints.
func (s *segment) pack() []byte {
	b := make([]byte, 0, 1+bitmapSize+3*len(s.shared))
	b = append(b, segmentVersion)
	for _, w := range s.bits {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	next := uint64(0) // the lowest unit that may follow
	for _, e := range s.shared {
		b = binary.AppendUvarint(b, e.unit-next)
		b = binary.AppendUvarint(b, e.count-2)
		next = e.unit + 1
	}
	return b
}

// unpackSegment is the inverse of pack. There is one encoding of each segment:
// anything else is format.ErrDamaged.
func unpackSegment(b []byte) (*segment, error) {
	if len(b) < 1+bitmapSize {
		return nil, fmt.Errorf("segment of %d bytes is too short: %w", len(b), ErrDamaged)
	}
	if b[0] != segmentVersion {
		return nil, fmt.Errorf("segment has version %d: %w", b[0], ErrDamaged)
	}
	s := new(segment)
	for i := range s.bits {
		s.bits[i] = binary.LittleEndian.Uint64(b[1+8*i:])
	}
	next := uint64(0)
	for rest := b[1+bitmapSize:]; len(rest) > 0; {
		skip, n := uvarint(rest)
		count, m := uvarint(rest[n:])
		if n == 0 || m == 0 {
			return nil, fmt.Errorf("segment's list of counts ends within an entry: %w", ErrDamaged)
		}
		rest = rest[n+m:]
		unit := next + skip
		switch {
		case skip >= SegmentUnits || unit >= SegmentUnits:
			return nil, fmt.Errorf("segment counts a unit past its end: %w", ErrDamaged)
		case !s.bits.has(unit):
			return nil, fmt.Errorf("segment counts unit %d, which is free: %w", unit, ErrDamaged)
		case count > MaxCount-2:
			return nil, fmt.Errorf("segment counts %d references to unit %d: %w", count, unit, ErrDamaged)
		}
		s.shared = append(s.shared, sharedUnit{unit, count + 2})
		next = unit + 1
	}
	return s, nil
}

// uvarint is binary.Uvarint for bytes that may be hostile: it returns length 0
// for all that is no varint in its shortest form.
func uvarint(b []byte) (v uint64, n int) {
	v, n = binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, 0
	}
	return v, n
}

// CheckSegment reports whether b is an encoded segment, and how many of its
// units are in use. The error wraps format.ErrDamaged.
func CheckSegment(b []byte) (used int, err error) {
	s, err := unpackSegment(b)
	if err != nil {
		return 0, err
	}
	return s.bits.Len(), nil
}

// ErrDamaged is format.ErrDamaged: what is stored means nothing, or is missing.
var ErrDamaged = format.ErrDamaged
