package blockpool

import (
	"context"
	"fmt"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// A Mapping is records of a volume, of an object of a dataset, or of a snapshot that
// lie in a row in the pool.
type Mapping struct {
	Volume  string      `json:"volume"`           // or dataset
	Object  uint64      `json:"object,omitempty"` // of a dataset
	First   uint64      `json:"first"`            // record of the volume or object
	Count   uint64      `json:"count"`
	Offset  int64       `json:"offset"`  // of the first record in the volume or object, in bytes
	Addr    format.Addr `json:"addr"`    // the first sector of the pool that they take
	Sectors int64       `json:"sectors"` // that they take, parity included
}

// Rmap calls f with everything that lies, at least in part, in n sectors of the
// pool's address space from at on: for each volume and snapshot, whoever shares
// what. Nothing leads from an address to records, so it looks through the maps of
// all volumes, at what they share once, and tells volume after volume for one part
// of the record numbers and then for the next. An error of f ends it.
//
// Volumes are looked at as they are on disk, in steps: what is written meanwhile
// may be told or not.
func (p *Pool) Rmap(ctx context.Context, at format.Addr, n int64, f func(Mapping) error) error {
	if n <= 0 || at+format.Addr(n) < at {
		return fmt.Errorf("rmap of %d sectors at %d: %w", n, at, ErrInvalid)
	}
	err := p.rmap(ctx, areas{{column: anyColumn, first: at, end: at + format.Addr(n)}}, f)
	if err != nil {
		return fmt.Errorf("rmap of %d sectors at %d: %w", n, at, err)
	}
	return nil
}

// RmapDevice is [Pool.Rmap] for n bytes from off on of a device, by its path: what
// is lost or doubtful when they cannot be read. What is mirrored elsewhere, or can
// be made from parity, counts as well.
func (p *Pool) RmapDevice(ctx context.Context, device string, off, n int64, f func(Mapping) error) error {
	err := p.rmapDevice(ctx, device, off, n, f)
	if err != nil {
		return fmt.Errorf("rmap of %d bytes at %d of device %s: %w", n, off, device, err)
	}
	return nil
}

func (p *Pool) rmapDevice(ctx context.Context, device string, off, n int64, f func(Mapping) error) error {
	if off < 0 || n <= 0 || off+n < off {
		return ErrInvalid
	}
	for _, d := range p.devices.all() {
		if d.state.Load().path == device {
			return p.rmap(ctx, p.areasOf(raid.DeviceID(d.id), off, off+n), f)
		}
	}
	return ErrNotFound
}

// An area is a range of addresses, or those sectors of one that are on one column
// of a chunk.
type area struct {
	column     int
	width      uint64 // columns over which raw sectors are dealt
	base       format.Addr
	first, end format.Addr
}

type areas []area

// anyColumn says that all sectors of an area count.
const anyColumn = -1

// touches reports whether some of the sectors of x are in an area.
func (s areas) touches(x extent) bool {
	for _, a := range s {
		first, end := max(a.first, x.at), min(a.end, x.at+format.Addr(x.n))
		switch {
		case first >= end:
		case a.column == anyColumn:
			return true
		default:
			// The first sector from first on that is on the column.
			raw := uint64(first - a.base)
			if raw += (uint64(a.column) + a.width - raw%a.width) % a.width; a.base+format.Addr(raw) < end {
				return true
			}
		}
	}
	return false
}

// areasOf returns which sectors bytes off to end-1 of a device hold, copies and
// the places where columns are moving to included.
func (p *Pool) areasOf(id raid.DeviceID, off, end int64) (list areas) {
	for _, c := range p.space.all() {
		for i, col := range c.Columns {
			for _, place := range []*raid.Place{{Device: col.Device, Start: col.Start}, col.Shadow} {
				if place == nil || place.Device != id {
					continue
				}
				from, to := max(off-place.Start, 0), min(end-place.Start, c.ColumnBytes())
				if from >= to {
					continue
				}
				first, last := format.Addr(from/format.SectorSize), format.Addr((to-1)/format.SectorSize)
				a := area{column: anyColumn, base: c.Base, first: c.Base + first, end: c.Base + last + 1}
				if c.Profile.Parity() > 0 {
					width := format.Addr(len(c.Columns))
					a.column, a.width = i, uint64(width)
					a.first, a.end = c.Base+first*width, c.Base+(last+1)*width
				}
				list = append(list, a)
			}
		}
	}
	return list
}

func (p *Pool) rmap(ctx context.Context, where areas, f func(Mapping) error) error {
	return inWindows(ctx, func(w window) (*walk, int, uint64, error) {
		s, found, end, err := p.rmapStep(where, w)
		if err != nil {
			return &s.walk, s.trees, 0, err
		}
		for _, m := range found {
			if err := f(m); err != nil {
				return &s.walk, s.trees, 0, err
			}
		}
		return &s.walk, s.trees, end, nil
	})
}

// rmapStep looks at a window of every volume and dataset, and returns also where the
// last of them ends.
func (p *Pool) rmapStep(where areas, w window) (s *search, found []Mapping, end uint64, err error) {
	p.view.RLock()
	e := p.epochs.hold()
	var entries []*entry
	for _, v := range p.catalogue.all() {
		entries = append(entries, v.entry.Load())
	}
	p.view.RUnlock()
	defer e.release()
	s = &search{
		walk: walk{Loader: e, window: w, most: mostNodes + treeNodes*len(entries)}, trees: len(entries),
		p: p, where: where, known: map[btree.NodeID][]Mapping{},
	}
	for _, e := range entries {
		end = max(end, e.end())
		if e.root == 0 || !e.holdsFiles() && w.first >= e.records() {
			continue
		}
		list, err := s.find(e.root, anyLevel)
		if err != nil {
			return s, nil, 0, fmt.Errorf("%s %s: %w", e.noun(), e.name, err)
		}
		for _, m := range list {
			m.Volume = e.name
			if e.holdsFiles() {
				m.Object, m.First = m.First>>objectShift, m.First&(1<<objectShift-1)
			}
			m.Offset = int64(m.First) * e.recordSize
			found = append(found, m)
		}
	}
	return s, found, end, nil
}

// A search finds the records of a window that lie in certain areas. What it has
// found below a node it knows when it comes there again by way of another volume.
type search struct {
	walk
	trees int
	p     *Pool
	where areas
	known map[btree.NodeID][]Mapping
}

func (s *search) find(id btree.NodeID, level int) ([]Mapping, error) {
	if list, ok := s.known[id]; ok {
		return list, nil
	}
	n, err := s.load(id, level)
	if err != nil {
		return nil, err
	}
	var list []Mapping
	err = s.below(n, func(id btree.NodeID, level int) error {
		found, err := s.find(id, level)
		for _, m := range found {
			list = appendMapping(list, m)
		}
		return err
	}, func(n uint64, rec format.Record) error {
		if x := s.p.space.extent(rec.Addr, int64(rec.Size)); s.where.touches(x) {
			list = appendMapping(list, Mapping{First: n, Count: 1, Addr: x.at, Sectors: x.n})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("node %d: %w", id, err)
	}
	s.known[id] = slices.Clip(list)
	return list, nil
}

// appendMapping adds m to a list, to the last one of it if it goes on there, in the
// same object.
func appendMapping(list []Mapping, m Mapping) []Mapping {
	if i := len(list) - 1; i >= 0 {
		if l := &list[i]; l.First+l.Count == m.First && m.First&(1<<objectShift-1) != 0 && l.Addr+format.Addr(l.Sectors) == m.Addr {
			l.Count += m.Count
			l.Sectors += m.Sectors
			return list
		}
	}
	return append(list, m)
}
