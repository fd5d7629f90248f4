package raid

import (
	"encoding/binary"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// packVersion begins every packed chunk.
const packVersion = 1

// Append appends the packed form of a chunk: a byte each for version, class,
// profile and number of columns; then uvarints: id, base, sectors; then per
// column device, start in sectors, and 0, or 1 and the same two of the shadow.
// It has no checksum.
func (c *Chunk) Append(b []byte) []byte {
	b = append(b, packVersion, byte(c.Class), byte(c.Profile), byte(len(c.Columns)))
	b = binary.AppendUvarint(b, uint64(c.ID))
	b = binary.AppendUvarint(b, uint64(c.Base))
	b = binary.AppendUvarint(b, uint64(c.Sectors))
	for _, col := range c.Columns {
		b = appendPlace(b, col.Place())
		if col.Shadow == nil {
			b = append(b, 0)
		} else {
			b = appendPlace(append(b, 1), *col.Shadow)
		}
	}
	return b
}

func appendPlace(b []byte, p Place) []byte {
	b = binary.AppendUvarint(b, uint64(p.Device))
	return binary.AppendUvarint(b, uint64(p.Start/format.SectorSize))
}

// ParseChunk is the inverse of [Chunk.Append]. What it returns passes
// [Chunk.Check]; everything else is format.ErrDamaged.
func ParseChunk(b []byte) (*Chunk, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("chunk of %d bytes is too short: %w", len(b), format.ErrDamaged)
	}
	if b[0] != packVersion {
		return nil, fmt.Errorf("chunk of version %d, this program knows %d: %w", b[0], packVersion, format.ErrDamaged)
	}
	c := &Chunk{Class: format.Class(b[1]), Profile: format.Profile(b[2])}
	width, r := int(b[3]), reader{b: b[4:]}
	c.ID = uint32(r.uvarint(1<<32 - 1))
	c.Base = format.Addr(r.uvarint(maxAddr))
	c.Sectors = int64(r.uvarint(maxAddr))
	for range min(width, MaxColumns+1) {
		p := r.place()
		col := Column{Device: p.Device, Start: p.Start}
		if r.uvarint(1) == 1 {
			shadow := r.place()
			col.Shadow = &shadow
		}
		c.Columns = append(c.Columns, col)
	}
	if r.bad || len(r.b) != 0 {
		return nil, fmt.Errorf("chunk %d: its fields do not fit its %d bytes: %w", c.ID, len(b), format.ErrDamaged)
	}
	if err := c.Check(); err != nil {
		return nil, err
	}
	return c, nil
}

// A reader takes fields from packed bytes, and remembers when one was bad.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > most || n > 1 && r.b[n-1] == 0 { // the shortest form only
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) place() Place {
	id := DeviceID(r.uvarint(1<<32 - 1))
	return Place{id, int64(r.uvarint(maxAddr)) * format.SectorSize}
}
