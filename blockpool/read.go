package blockpool

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// read fills p with what is at off, which the volume's size covers.
func (v *volume) read(p []byte, off int64) (done int, err error) {
	size := v.entry.Load().recordSize
	return v.readFrom(uint64(off/size), off%size, p)
}

// readFrom fills p with what is from within bytes into record n on.
func (v *volume) readFrom(n uint64, within int64, p []byte) (done int, err error) {
	size := v.entry.Load().recordSize
	for first := n; done < len(p); {
		at := within + int64(done)
		n, within := first+uint64(at/size), at%size
		part := p[done:min(int64(len(p)), int64(done)+size-within)]
		if left := int64(len(p) - done); within == 0 && left >= 2*size {
			part = p[done : int64(done)+min(left, maxRun)/size*size]
			err = v.readRun(n, part, size)
		} else {
			err = v.readRecord(n, within, part)
		}
		if err != nil {
			return done, err
		}
		done += len(part)
	}
	return done, nil
}

// readRun fills p with whole records from n on, those that lie in a row
// together.
func (v *volume) readRun(n uint64, p []byte, size int64) error {
	count := uint64(int64(len(p)) / size)
	records := make([]format.Record, count) // one of no bytes: nothing to read
	s, err := v.standRun(n, p, size, records)
	defer s.release()
	if err != nil {
		return err
	}
	for i := 0; i < len(records); {
		if records[i].Size == 0 {
			i++
			continue
		}
		end := i + 1
		for end < len(records) && v.pool.follows(records[end-1], records[end], size) {
			end++
		}
		if err := v.pool.readRow(records[i:end], p[int64(i)*size:int64(end)*size], size); err != nil {
			return err
		}
		i = end
	}
	return nil
}

// standRun finds the records from n on, and fills the parts of p of those that are
// holes or in memory.
func (v *volume) standRun(n uint64, p []byte, size int64, records []format.Record) (stand, error) {
	v.pool.view.RLock()
	v.mu.RLock()
	s := stand{epoch: v.pool.epochs.hold(), entry: v.entry.Load()}
	missing := 0
	tree := make([]bool, len(records)) // those that the tree knows of
	for i := range records {
		part := p[int64(i)*size:][:size]
		switch where, r := v.find(n + uint64(i)); where {
		case inHole:
			clear(part)
		case inMemory:
			r.copyTo(part, 0)
		case inSectors:
			records[i] = r.rec
		case inTree:
			tree[i] = true
			missing++
		}
	}
	v.mu.RUnlock()
	v.pool.view.RUnlock()
	if missing == 0 {
		return s, nil
	}
	err := btree.Scan(s.epoch, s.entry.root, recordKey(n), recordKey(n+uint64(len(records))), func(key, value []byte) error {
		number, err := parseKey64(key)
		if err != nil {
			return err
		}
		if i := number - n; tree[i] {
			tree[i] = false
			records[i], err = format.ParseRecord(value)
		}
		return err
	})
	for i, hole := range tree {
		if hole {
			clear(p[int64(i)*size:][:size])
		}
	}
	return s, err
}

// readRecord fills p from within bytes into record n.
func (v *volume) readRecord(n uint64, within int64, p []byte) error {
	s := v.stand(n, within, p)
	defer s.release()
	rec, found := s.rec, s.where == inSectors
	if s.where == inTree {
		var err error
		if rec, found, err = s.epoch.record(s.entry.root, n); err != nil {
			return err
		}
	}
	switch {
	case found:
		return v.pool.readStored(rec, s.entry.recordSize, within, p)
	case s.where != inMemory:
		clear(p)
	}
	return nil
}

// isHole reports whether record n is one.
func (v *volume) isHole(n uint64) (bool, error) {
	birth, err := v.birth(n)
	return birth == 0, err
}

// birth returns the txg that wrote record n; 0 is a hole, and a change that is
// not committed belongs to the end of time.
func (v *volume) birth(n uint64) (uint64, error) {
	s := v.stand(n, 0, nil)
	defer s.release()
	switch s.where {
	case inHole:
		return 0, nil
	case inTree:
		rec, _, err := s.epoch.record(s.entry.root, n)
		return rec.Birth, err
	default:
		return math.MaxUint64, nil
	}
}

// A stand is what a reader of a record stands on: where its content was, and the
// epoch that keeps it there until the stand is released.
type stand struct {
	where place
	epoch *epoch
	entry *entry
	rec   format.Record // inSectors
}

// A place tells where the content of a record is.
type place uint8

const (
	inTree    place = iota // as the committed tree says
	inHole                 // nowhere: zeros
	inMemory               // in memory, from where it was copied
	inSectors              // where a record says that no tree names yet
)

func (s *stand) release() { s.epoch.release() }

// stand finds record n. If it is in memory it copies what is within bytes into it
// to p.
func (v *volume) stand(n uint64, within int64, p []byte) stand {
	v.pool.view.RLock()
	defer v.pool.view.RUnlock()
	v.mu.RLock()
	defer v.mu.RUnlock()
	s := stand{epoch: v.pool.epochs.hold(), entry: v.entry.Load()}
	var r *dirtyRecord
	switch s.where, r = v.find(n); s.where {
	case inMemory:
		r.copyTo(p, within)
	case inSectors:
		s.rec = r.rec
	}
	return s
}

// find tells where record n is. The view and mu are held.
func (v *volume) find(n uint64) (place, *dirtyRecord) {
	newest := [...]*dirty{v.open, v.syncing}
	if mutant.Breaks(mutant.OpenBeforeSyncing) {
		slices.Reverse(newest[:])
	}
	for _, d := range newest {
		switch r, hole := d.find(n); {
		case hole:
			return inHole, nil
		case r == nil:
		case r.buf != nil:
			return inMemory, r
		default:
			return inSectors, r
		}
	}
	return inTree, nil
}

// follows reports whether b lies right behind a, where records lie as they are and
// are whole ones of that size.
func (p *Pool) follows(a, b format.Record, size int64) bool {
	if !whole(a, size) || !whole(b, size) || a.Addr+format.Addr(format.Sectors(int64(a.Size))) != b.Addr {
		return false
	}
	c, err := p.space.chunk(a.Addr)
	return err == nil && c.Profile.Parity() == 0 && b.Addr < c.end()
}

// readRow fills b with records that lie in a row. If one of them is wrong, each
// is read by itself, so that it can be mended.
func (p *Pool) readRow(row []format.Record, b []byte, size int64) error {
	if len(row) > 1 {
		c, err := p.space.chunk(row[0].Addr)
		if err != nil {
			return err
		}
		fit := func(b []byte) bool {
			for i, rec := range row {
				if format.Sum(b[int64(i)*size:][:size]) != rec.Sum {
					return false
				}
			}
			return true
		}
		if p.array.TryRead(&c.Chunk, row[0].Addr, b, fit) {
			return nil
		}
	}
	for i, rec := range row {
		if err := p.readWhole(rec, b[int64(i)*size:][:size]); err != nil {
			return err
		}
	}
	return nil
}

// readStored fills p from within bytes into the record of that size that is
// stored as rec says.
func (p *Pool) readStored(rec format.Record, size, within int64, b []byte) error {
	if p.readCache.copy(rec, within, b) {
		return nil
	}
	if int64(len(b)) == size && size > maxCachedRead {
		return p.readWhole(rec, b)
	}
	whole := p.buffers.get(size)
	defer p.buffers.put(whole)
	if err := p.readWhole(rec, whole); err != nil {
		return err
	}
	copy(b, whole[within:])
	p.readCache.add(rec, whole)
	return nil
}

// readWhole fills b with a whole record. What is not stored of a short one is
// zeros.
func (p *Pool) readWhole(rec format.Record, b []byte) error {
	c, err := p.space.chunk(rec.Addr)
	if err != nil {
		return err
	}
	switch n := int(rec.Size); {
	case n > len(b):
		return damagedf("record at %d: %d bytes of a record of %d", rec.Addr, n, len(b))
	case rec.Codec == format.Plain:
		clear(b[n:])
		return p.array.Read(&c.Chunk, rec.Addr, b[:n], fits(rec))
	default:
		packed := p.buffers.get(int64(n))
		defer p.buffers.put(packed)
		if err := p.array.Read(&c.Chunk, rec.Addr, packed, fits(rec)); err != nil {
			return err
		}
		if err := decode(rec.Codec, packed, b); err != nil {
			return fmt.Errorf("record at %d: %w", rec.Addr, err)
		}
		return nil
	}
}

// whole reports whether a record is stored as it is, with all its bytes.
func whole(rec format.Record, size int64) bool {
	return rec.Codec == format.Plain && int64(rec.Size) == size
}

// fits returns what tells whether bytes are those of a record.
func fits(rec format.Record) func([]byte) bool {
	return func(b []byte) bool { return format.Sum(b) == rec.Sum }
}

// recordKey is the key of a record in a tree. Of the number behind the last one that
// there can be in a dataset it is a key behind all records and before all items,
// which may have keys that are shorter.
func recordKey(n uint64) []byte {
	if n == ItemCounted<<56 {
		return []byte{ItemCounted}
	}
	return binary.BigEndian.AppendUint64(nil, n)
}
