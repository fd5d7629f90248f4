package spacemap

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrInUse is wrapped when units are to be given out that are not free.
var ErrInUse = errors.New("in use")

// ErrNotInUse is wrapped when a reference is to be added to, or taken from,
// units that have none.
var ErrNotInUse = errors.New("not in use")

// lastSegment is the number of the last segment whose units have 64-bit numbers.
const lastSegment = 1<<64/SegmentUnits - 1

// A Map counts references per unit. It belongs to one goroutine. A method that
// fails has changed nothing, except that segments may have been loaded.
type Map struct {
	load     func(seg uint64) ([]byte, error)
	segments map[uint64]*segment
	dirty    map[uint64]struct{}
}

// New returns a map that loads segment seg, once it is needed, with load. A nil
// value says that there is no such segment. The map does not keep the value.
func New(load func(seg uint64) ([]byte, error)) *Map {
	return &Map{load: load, segments: map[uint64]*segment{}, dirty: map[uint64]struct{}{}}
}

// segment returns segment seg, which must exist: a missing one is ErrDamaged.
func (m *Map) segment(seg uint64) (*segment, error) {
	s, err := m.lookup(seg)
	if err == nil && s == nil {
		err = fmt.Errorf("spacemap: segment %d is missing: %w", seg, ErrDamaged)
	}
	return s, err
}

// lookup returns segment seg, or nil when there is none.
func (m *Map) lookup(seg uint64) (*segment, error) {
	s, ok := m.segments[seg]
	if ok {
		if s.gone {
			return nil, nil
		}
		return s, nil
	}
	b, err := m.load(seg)
	if err != nil {
		return nil, fmt.Errorf("spacemap: load segment %d: %w", seg, err)
	}
	if b == nil {
		return nil, nil
	}
	if s, err = unpackSegment(b); err != nil {
		return nil, fmt.Errorf("spacemap: segment %d: %w", seg, err)
	}
	m.segments[seg] = s
	return s, nil
}

func (m *Map) touch(seg uint64, s *segment) {
	if !s.dirty {
		s.dirty = true
		m.dirty[seg] = struct{}{}
	}
}

// AddSegments makes n segments from number from on, all of their units free. It
// fails with ErrInUse when one of them exists.
func (m *Map) AddSegments(from, n uint64) error {
	if n > lastSegment || from > lastSegment-n {
		return fmt.Errorf("spacemap: add %d segments from %d on: past the last unit", n, from)
	}
	for seg := from; seg < from+n; seg++ {
		s, err := m.lookup(seg)
		if err != nil {
			return err
		}
		if s != nil {
			return fmt.Errorf("spacemap: add segment %d: %w", seg, ErrInUse)
		}
	}
	for seg := from; seg < from+n; seg++ {
		s := new(segment)
		m.segments[seg] = s
		m.touch(seg, s)
	}
	return nil
}

// RemoveSegments removes n segments from number from on. It fails with ErrInUse
// when a unit in them is in use, and with ErrDamaged when a segment is missing.
func (m *Map) RemoveSegments(from, n uint64) error {
	if n > lastSegment || from > lastSegment-n {
		return fmt.Errorf("spacemap: remove %d segments from %d on: past the last unit", n, from)
	}
	for seg := from; seg < from+n; seg++ {
		s, err := m.segment(seg)
		if err != nil {
			return err
		}
		if used := s.bits.Len(); used > 0 {
			return fmt.Errorf("spacemap: remove segment %d with %d units in use: %w", seg, used, ErrInUse)
		}
	}
	for seg := from; seg < from+n; seg++ {
		s := m.segments[seg]
		s.gone = true
		m.touch(seg, s)
	}
	return nil
}

// Set gives the n units from unit on, all of them free, one reference. It fails
// with ErrInUse when one of them has any.
func (m *Map) Set(unit, n uint64) error {
	err := m.each(unit, n, func(_ uint64, s *segment, u uint64) error {
		if s.bits.has(u) {
			return ErrInUse
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.each(unit, n, func(seg uint64, s *segment, u uint64) error {
		s.bits.set(u)
		m.touch(seg, s)
		return nil
	})
}

// Retain adds a reference to the extent that begins at unit.
func (m *Map) Retain(unit uint64) error {
	seg, u := unit/SegmentUnits, unit%SegmentUnits
	s, err := m.segment(seg)
	if err != nil {
		return err
	}
	switch n := s.count(u); n {
	case 0:
		return fmt.Errorf("spacemap: retain unit %d: %w", unit, ErrNotInUse)
	case MaxCount:
		return fmt.Errorf("spacemap: retain unit %d: it has %d references", unit, n)
	default:
		s.setCount(u, n+1)
		m.touch(seg, s)
		return nil
	}
}

// Release takes a reference from the extent of n units that begins at unit, and
// returns how many are left. When none is, the n units are free. It fails with
// ErrNotInUse when the extent has no reference, or when its last one goes and a
// unit of it has no bit, and with ErrInUse when a unit within the extent turns
// out to be the shared beginning of another one.
func (m *Map) Release(unit, n uint64) (left uint64, err error) {
	if n == 0 {
		return 0, fmt.Errorf("spacemap: release nothing at unit %d", unit)
	}
	seg, u := unit/SegmentUnits, unit%SegmentUnits
	s, err := m.segment(seg)
	if err != nil {
		return 0, err
	}
	switch count := s.count(u); count {
	case 0:
		return 0, fmt.Errorf("spacemap: release unit %d: %w", unit, ErrNotInUse)
	case 1:
		return 0, m.free(unit, n)
	default:
		s.setCount(u, count-1)
		m.touch(seg, s)
		return count - 1, nil
	}
}

// free clears n units from unit on, each of which must count one.
func (m *Map) free(unit, n uint64) error {
	err := m.each(unit, n, func(_ uint64, s *segment, u uint64) error {
		switch s.count(u) {
		case 0:
			return ErrNotInUse
		case 1:
			return nil
		default:
			return ErrInUse
		}
	})
	if err != nil {
		return err
	}
	return m.each(unit, n, func(seg uint64, s *segment, u uint64) error {
		s.bits.clear(u)
		m.touch(seg, s)
		return nil
	})
}

// each calls f for n units from unit on.
func (m *Map) each(unit, n uint64, f func(seg uint64, s *segment, u uint64) error) error {
	if n == 0 || unit+n < unit {
		return fmt.Errorf("spacemap: %d units from %d on are no extent", n, unit)
	}
	for end := unit + n; unit < end; {
		seg := unit / SegmentUnits
		s, err := m.segment(seg)
		if err != nil {
			return err
		}
		for stop := min(end, (seg+1)*SegmentUnits); unit < stop; unit++ {
			if err := f(seg, s, unit%SegmentUnits); err != nil {
				return fmt.Errorf("spacemap: unit %d: %w", unit, err)
			}
		}
	}
	return nil
}

// Count returns the references to the extent that begins at unit, 0 when unit is
// free. A unit within an extent counts one.
func (m *Map) Count(unit uint64) (uint64, error) {
	s, err := m.segment(unit / SegmentUnits)
	if err != nil {
		return 0, err
	}
	return s.count(unit % SegmentUnits), nil
}

// Bits returns which units of segment seg are in use. The caller reads it before
// the next change of the map and does not write to it.
func (m *Map) Bits(seg uint64) (*Bits, error) {
	s, err := m.segment(seg)
	if err != nil {
		return nil, err
	}
	return &s.bits, nil
}

// Dirty returns the number of segments that changed since they were last taken.
func (m *Map) Dirty() int { return len(m.dirty) }

// TakeDirty calls f for each segment that changed since the last call, in
// ascending order, with its new value, or with nil for one that was removed, and
// holds them for stored from then on. f owns the value.
func (m *Map) TakeDirty(f func(seg uint64, value []byte)) {
	for _, seg := range slices.Sorted(maps.Keys(m.dirty)) {
		s := m.segments[seg]
		s.dirty = false
		if s.gone {
			f(seg, nil)
		} else {
			f(seg, s.pack())
		}
	}
	clear(m.dirty)
}

// Evict forgets segments that are not dirty, until no more than keep are in
// memory. What TakeDirty has yielded must be visible to load before.
func (m *Map) Evict(keep int) {
	for seg, s := range m.segments {
		if len(m.segments) <= keep {
			return
		}
		if !s.dirty {
			delete(m.segments, seg)
		}
	}
}
