package raid

import "github.com/laminafs/lamina/blockpool/internal/format"

// A piece is the part of a record, or of its parity, on one column.
type piece struct {
	column  int
	row     int64 // the first sector on the column
	sectors int64
	from    int64 // where the data begins in the record, in bytes; 0 for parity and copies
}

// bytes returns the length of the piece on the device.
func (p *piece) bytes() int64 { return p.sectors * format.SectorSize }

// off returns where the piece begins on a device on which its column begins at
// start.
func (p *piece) off(start int64) int64 { return start + p.row*format.SectorSize }

// of returns what the piece takes of a record, which may end before the piece
// does when it is not padded to whole sectors.
func (p *piece) of(data []byte) []byte {
	n := int64(len(data))
	return data[min(p.from, n):min(p.from+p.bytes(), n)]
}

// A stripe says where a record lies: whole on every piece if parity is 0, else
// parity in the first pieces and the data in the others, in order. A record has
// at most one piece per column.
type stripe struct {
	parity int
	count  int
	all    [MaxColumns]piece
}

func (s *stripe) pieces() []piece { return s.all[:s.count] }

// data returns how many pieces hold data.
func (s *stripe) data() int { return s.count - s.parity }

// height returns the number of sectors of the longest piece, which every parity
// piece has.
func (s *stripe) height() int64 { return s.all[0].sectors }

// stripe computes where a record of n bytes lies; the caller has made sure that
// the chunk holds it.
func (c *Chunk) stripe(at format.Addr, n int) *stripe {
	s := new(stripe)
	c.layOut(s, at, n)
	return s
}

// layOut is stripe in memory of the caller's: a stripe has a kilobyte, which a
// small read feels.
func (c *Chunk) layOut(s *stripe, at format.Addr, n int) {
	s.parity = c.Profile.Parity()
	first, sectors := int64(at-c.Base), format.Sectors(int64(n))
	if s.parity == 0 {
		s.count = len(c.Columns)
		for i := range s.pieces() {
			s.all[i] = piece{column: i, row: first, sectors: sectors}
		}
		return
	}
	// The names of vdev_raidz_map_alloc: q full rows, r data sectors in the
	// last one, which is on the first big columns.
	width, parity := int64(len(c.Columns)), int64(s.parity)
	q, r := sectors/(width-parity), sectors%(width-parity)
	big := int64(0)
	if r > 0 {
		big = r + parity
	}
	s.count = int(width)
	if q == 0 {
		s.count = int(big)
	}
	from := int64(0)
	for i := range s.count {
		raw := first + int64(i) // of the piece's first sector
		p := piece{column: int(raw % width), row: raw / width, sectors: q}
		if int64(i) < big {
			p.sectors++
		}
		if i >= s.parity {
			p.from = from
			from += p.bytes()
		}
		s.all[i] = p
	}
}

// rows returns which sectors of a column hold raw sectors [first, first+n) of
// the chunk.
func (c *Chunk) rows(column int, first, n int64) (row, count int64) {
	if c.Profile.Parity() == 0 {
		return first, n
	}
	width := int64(len(c.Columns))
	from := func(raw int64) int64 { return (raw - int64(column) + width - 1) / width }
	return from(first), from(first+n) - from(first)
}
