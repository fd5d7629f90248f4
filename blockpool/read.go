package blockpool

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// read fills p with what is at off, which the volume's size covers.
func (v *volume) read(p []byte, off int64) (done int, err error) {
	size := v.entry.Load().recordSize
	for done < len(p) {
		at := off + int64(done)
		n, within := uint64(at/size), at%size
		part := p[done:min(int64(len(p)), int64(done)+size-within)]
		if err := v.readRecord(n, within, part); err != nil {
			return done, err
		}
		done += len(part)
	}
	return done, nil
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
	for _, d := range []*dirty{v.open, v.syncing} {
		switch r, hole := d.find(n); {
		case hole:
			s.where = inHole
			return s
		case r == nil:
		case r.buf != nil:
			copy(p, r.buf[within:])
			s.where = inMemory
			return s
		default:
			s.where, s.rec = inSectors, r.rec
			return s
		}
	}
	return s
}

// readStored fills p from within bytes into the record of that size that is
// stored as rec says.
func (p *Pool) readStored(rec format.Record, size, within int64, b []byte) error {
	if int64(len(b)) == size {
		return p.readWhole(rec, b)
	}
	whole := p.buffers.get(size)
	defer p.buffers.put(whole)
	if err := p.readWhole(rec, whole); err != nil {
		return err
	}
	copy(b, whole[within:])
	return nil
}

// readWhole fills b with a whole record.
func (p *Pool) readWhole(rec format.Record, b []byte) error {
	if rec.Codec != format.Plain || int(rec.Size) != len(b) {
		return damagedf("record at %d: %d bytes of codec %d for a record of %d", rec.Addr, rec.Size, rec.Codec, len(b))
	}
	c, err := p.space.chunk(rec.Addr)
	if err != nil {
		return err
	}
	return p.array.Read(&c.Chunk, rec.Addr, b, fits(rec))
}

// fits returns what tells whether bytes are those of a record.
func fits(rec format.Record) func([]byte) bool {
	return func(b []byte) bool { return xxhash.Sum64(b) == rec.Sum }
}

// recordKey is the key of a record's item in the volume's tree.
func recordKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
