package blockpool

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// On raidz a record takes sectors for its parity, how many depends on its size and
// on how many devices the chunk lies on. Free space is counted in raw sectors, and
// what people ask for in bytes of data; this file is where one becomes the other.

// A shape is how data lies, or will lie, in some chunks.
type shape struct {
	profile Profile
	columns int
}

// need returns the raw sectors of a record of n bytes.
func (f shape) need(n int64) int64 { return raid.Need(f.profile, f.columns, n) }

// shapes returns those of all data chunks, and of those that can still be made: the
// widest of them first.
func (p *Pool) shapes(chunks []*chunk) []shape {
	profile := p.profile(format.Data)
	var list []shape
	add := func(f shape) {
		if !slices.Contains(list, f) {
			list = append(list, f)
		}
	}
	for _, n := range p.devices.widths(profile, chunks) {
		add(shape{profile, n})
	}
	for _, c := range chunks {
		if c.Class == format.Data {
			add(shape{c.Profile, len(c.Columns)})
		}
	}
	return list
}

// widths returns on how many devices chunks will lie as these fill up, the most
// first.
func (d *devices) widths(profile Profile, chunks []*chunk) (list []int) {
	var free []int64
	for _, dev := range d.takers(profile) {
		n := int64(0)
		for _, g := range dev.gaps(chunks) {
			n += g.n
		}
		if n > 0 {
			free = append(free, n)
		}
	}
	slices.Sort(free)
	for i, n := range free {
		if left := len(free) - i; left >= profile.MinDevices() && (i == 0 || n > free[i-1]) {
			list = append(list, min(left, maxWidth))
		}
	}
	return list
}

// rawLocked returns the raw sectors that so many sectors of records of n bytes may
// take, in the worst of the shapes.
func (s *space) rawLocked(sectors, n int64) int64 {
	whole, worst := format.Sectors(n), format.Sectors(n)
	for _, f := range s.shapes {
		worst = max(worst, f.need(n))
	}
	if whole == worst || whole == 0 {
		return sectors
	}
	return (sectors*worst + whole - 1) / whole
}

// promise notes how many sectors of data are reserved and not used, by the size of
// the records that they are kept for.
func (s *space) promise(sectors map[int64]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.promised = sectors
	s.countPromisedLocked()
}

// countPromisedLocked makes raw sectors of all that is promised.
func (s *space) countPromisedLocked() {
	s.reserved = 0
	for n, sectors := range s.promised {
		s.reserved += s.rawLocked(sectors, n)
	}
}

// unpromisedLocked returns the free raw sectors that are promised to nobody.
func (s *space) unpromisedLocked() int64 {
	return s.availableLocked(format.Data) - s.reserved - s.totalLocked(format.Data)*kept/100
}

// mayReserve refuses to promise what is not there.
func (s *pass) mayReserve(e *entry, reservation int64) error {
	n, err := s.p.catalogue.growth(e, reservation)
	if err != nil || n <= 0 {
		return err
	}
	space := s.p.space
	space.mu.Lock()
	defer space.mu.Unlock()
	free := max(space.unpromisedLocked(), 0)
	if need := space.rawLocked(format.Sectors(n), e.recordSize); need > free {
		return fmt.Errorf("reservation of %d bytes, %d more than now, which with parity takes %d: %d are free: %w", reservation, n, need*format.SectorSize, free*format.SectorSize, ErrNoSpace)
	}
	return nil
}

// unpromisedBytes returns how much data of records of n bytes there is room for that
// is promised to nobody.
func (p *Pool) unpromisedBytes(n int64) int64 {
	s := p.space
	s.mu.Lock()
	defer s.mu.Unlock()
	const many = 1 << 10 // so that little is rounded
	return s.unpromisedLocked() * format.SectorSize * many / s.rawLocked(many, n)
}

// usedBytes returns how much of the space for data is in use, parity included.
func (p *Pool) usedBytes() int64 {
	p.space.mu.Lock()
	defer p.space.mu.Unlock()
	return (p.space.totalLocked(format.Data) - p.space.availableLocked(format.Data)) * format.SectorSize
}

// usable tells how much data of records of n bytes there is room for, and how much
// of that is free, in bytes.
func (s *space) usable(n int64) (size, free int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	net := func(raw int64, f shape) int64 { return raw * format.Sectors(n) / max(f.need(n), 1) }
	for _, c := range s.chunks {
		if c.Class != format.Data {
			continue
		}
		f := shape{c.Profile, len(c.Columns)}
		size += net(c.Sectors, f)
		if !c.frozen {
			free += net(int64(c.free.Free()), f)
		}
	}
	if room := s.room[format.Data]; room > 0 && len(s.shapes) > 0 {
		size += net(room, s.shapes[0])
		free += net(room, s.shapes[0])
	}
	return size * format.SectorSize, free * format.SectorSize
}

// usableSpace is the space of the pool for data of records of its usual size, with
// neither parity nor copies.
func (p *Pool) usableSpace() SpaceStatus {
	size, free := p.space.usable(cmp.Or(p.Config().RecordSize, format.SectorSize))
	return SpaceStatus{Size: size, Used: size - free, Free: free}
}
