package blockpool

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
	"github.com/laminafs/lamina/blockpool/internal/spacemap"
)

// segmentUnits is how many sectors, or nodes, one segment of a space map counts.
// Chunks are made of whole segments.
const segmentUnits = spacemap.SegmentUnits

// extentUnit is what the part of a device that a chunk takes is a multiple of, in
// bytes: a segment's worth of sectors.
const extentUnit = segmentUnits * format.SectorSize

// chunksPerTxg bounds how many chunks one txg makes.
const chunksPerTxg = 16

// makeChunks keeps enough free sectors in chunks for what two txgs may write,
// as long as the devices have room. A chunk takes records when the txg that made it
// is durable, so that no record ever lies in a chunk that a crash forgets.
func (s *pass) makeChunks() error {
	for class := format.Data; class <= format.Metadata; class++ {
		profile := s.p.profile(class)
		for range chunksPerTxg {
			free, wanted := s.p.space.stock(class)
			for _, c := range s.chunks {
				if c.Class == class {
					free += c.Sectors
				}
			}
			if !wanted && (class != format.Data || free*format.SectorSize >= 4*s.p.tune.DirtyLimit) {
				break
			}
			c, err := s.makeChunk(class, profile, s.p.profileWidth(class))
			if err != nil {
				return err
			}
			if c == nil || wanted && free >= c.Sectors/2 {
				break
			}
		}
	}
	return nil
}

// makeChunk makes one chunk, or returns nil when the devices have no room for
// it.
func (s *pass) makeChunk(class format.Class, profile Profile, width int) (*chunk, error) {
	size, columns := s.p.devices.choose(profile, width, s.p.Config().ChunkSize, s.allChunks())
	if columns == nil {
		return nil, nil
	}
	sectors := size / format.SectorSize
	if profile.Parity() > 0 {
		sectors *= int64(len(columns))
	}
	s.state.nextChunk++
	c := &chunk{Chunk: raid.Chunk{
		ID: uint32(s.state.nextChunk), Base: s.state.nextAddr, Sectors: sectors,
		Class: class, Profile: profile, Columns: columns,
	}}
	s.state.nextAddr += format.Addr(sectors)
	c.free = spacemap.NewAllocator(uint64(c.Base), uint64(sectors))
	if err := s.p.counts.AddSegments(uint64(c.Base)/segmentUnits, uint64(sectors)/segmentUnits); err != nil {
		return nil, err
	}
	s.saveChunk(c)
	s.chunks = append(s.chunks, c)
	return c, nil
}

// saveChunk puts a chunk's place on devices into the batch.
func (s *pass) saveChunk(c *chunk) {
	s.batch.Put(meta.Chunks, key64(uint64(c.Base)), c.Append(nil))
}

// allChunks returns the chunks as this txg has them, and as they were where
// somebody may still write to them so.
func (s *pass) allChunks() []*chunk {
	return slices.Concat(s.p.space.all(), s.p.space.allGhosts(), s.chunks, s.moved)
}

// all returns all chunks, by base.
func (s *space) all() []*chunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.chunks)
}

// stock returns the free sectors in chunks of a class, and whether somebody found
// them too few.
func (s *space) stock(class format.Class) (free int64, wanted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free[class], s.wanted[class]
}

// setRoom says how many sectors could be made, of either class, and how data lies.
func (s *space) setRoom(data, metadata int64, shapes []shape) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shapes = shapes
	s.countPromisedLocked()
	s.room[format.Data], s.room[format.Metadata] = data, metadata
	s.announceLocked()
}

// profile returns how new chunks of a class lie on devices.
func (p *Pool) profile(class format.Class) Profile {
	c := p.Config()
	switch class {
	case format.Data:
		return c.DataProfile
	case format.Metadata:
		return c.MetadataProfile
	}
	if c.DataProfile == Single {
		return Single
	}
	return Mirror
}

// profileWidth returns on how many devices a new chunk of a class lies; 0 is on
// as many as there are. The log survives what the data does.
func (p *Pool) profileWidth(class format.Class) int {
	profile := p.profile(class)
	switch {
	case class == format.Log && p.Config().DataProfile == RaidZ2:
		return 3
	case profile.Parity() > 0:
		return 0
	}
	return profile.MinDevices()
}

// choose finds places for a chunk: width devices with the most room, or all of
// them, and the size of its part on each, at most that size. It returns nil when
// there is not enough room.
func (d *devices) choose(profile Profile, width int, size int64, chunks []*chunk) (int64, []raid.Column) {
	type place struct {
		id    uint32
		free  int64
		start int64
		gap   int64
	}
	var places []place
	for _, dev := range d.takers(profile) {
		gaps := dev.gaps(chunks)
		p := place{id: dev.id}
		for _, g := range gaps {
			p.free += g.n
			if g.n > p.gap && p.gap < size {
				p.start, p.gap = g.at, g.n
			}
		}
		if p.gap >= extentUnit {
			places = append(places, p)
		}
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Or(cmp.Compare(b.free, a.free), cmp.Compare(a.id, b.id)) })
	if width == 0 {
		width = min(len(places), maxWidth)
	}
	if len(places) < width || width < profile.MinDevices() {
		return 0, nil
	}
	var columns []raid.Column
	for _, p := range places[:width] {
		size = min(size, p.gap/extentUnit*extentUnit)
		columns = append(columns, raid.Column{Device: raid.DeviceID(p.id), Start: p.start})
	}
	return size, columns
}

// maxWidth is the most devices that a raidz chunk lies on: wider ones only make
// records slower.
const maxWidth = 16

// A gap is n bytes of a device that no chunk takes.
type gap struct{ at, n int64 }

// gaps returns what chunks leave of a device, in order, in whole extent units.
func (d *device) gaps(chunks []*chunk) (gaps []gap) {
	var taken []gap
	for _, c := range chunks {
		for _, col := range c.Columns {
			if uint32(col.Device) == d.id {
				taken = append(taken, gap{col.Start, c.ColumnBytes()})
			}
			if s := col.Shadow; s != nil && uint32(s.Device) == d.id {
				taken = append(taken, gap{s.Start, c.ColumnBytes()})
			}
		}
	}
	slices.SortFunc(taken, func(a, b gap) int { return cmp.Compare(a.at, b.at) })
	at := int64(labelSpace)
	for _, t := range append(taken, gap{d.state.Load().size, 0}) {
		if n := (t.at - at) / extentUnit * extentUnit; n > 0 {
			gaps = append(gaps, gap{at, n})
		}
		at = t.at + t.n
	}
	return gaps
}

// room returns how many raw sectors of a profile the devices still have room
// for.
func (d *devices) room(profile Profile, chunks []*chunk) int64 {
	var free []int64
	for _, dev := range d.takers(profile) {
		n := int64(0)
		for _, g := range dev.gaps(chunks) {
			n += g.n
		}
		free = append(free, n)
	}
	slices.Sort(free)
	var sum, bytes int64
	for _, n := range free {
		sum += n
	}
	switch {
	case len(free) < profile.MinDevices():
	case profile == Single:
		bytes = sum
	case profile == Mirror:
		bytes = min(sum/2, sum-free[len(free)-1])
	default:
		// Columns of all devices until the smallest is full, then of the others.
		taken := int64(0)
		for i, n := range free {
			if left := len(free) - i; left >= profile.MinDevices() {
				bytes += (n - taken) * int64(left)
				taken = n
			}
		}
	}
	return bytes / format.SectorSize
}

// loadChunks reads the chunks and what is free in them.
func (p *Pool) loadChunks(view *meta.View) error {
	err := view.Scan(meta.Chunks, nil, func(key, value []byte) error {
		c := &chunk{}
		base, err := parseKey64(key)
		if err == nil {
			var place *raid.Chunk
			if place, err = raid.ParseChunk(value); err == nil {
				c.Chunk = *place
			}
		}
		if err == nil && (uint64(c.Base) != base || c.Sectors%segmentUnits != 0 || c.end() > p.state.nextAddr) {
			err = damagedf("covers %d to %d", c.Base, c.end())
		}
		if err != nil {
			return fmt.Errorf("chunk at %x: %w", key, err)
		}
		if c.free, err = p.counts.Allocator(uint64(c.Base), uint64(c.Sectors)); err != nil {
			return fmt.Errorf("chunk %d: %w", c.ID, err)
		}
		p.space.add(c)
		return nil
	})
	if err != nil {
		return err
	}
	p.updateRoom()
	return nil
}

// updateRoom counts anew what the devices have room for.
func (p *Pool) updateRoom() {
	chunks := p.space.all()
	p.space.setRoom(p.devices.room(p.profile(format.Data), chunks), p.devices.room(p.profile(format.Metadata), chunks), p.shapes(chunks))
}
