package raid

import (
	"fmt"
	"math"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A DeviceID names a device of a pool, for as long as the pool lives.
type DeviceID uint32

// A Place is where something begins on a device.
type Place struct {
	Device DeviceID
	Start  int64 // in bytes, a multiple of format.SectorSize
}

// A Column is the part of a chunk that lies on one device.
type Column struct {
	Device DeviceID
	Start  int64 // in bytes, a multiple of format.SectorSize
	// Shadow is where the column is moving to. Whatever is written goes to both
	// places; reads turn to the shadow when the column itself fails.
	Shadow *Place
}

// Place returns where the column begins.
func (c Column) Place() Place { return Place{c.Device, c.Start} }

// A Chunk is a range of the pool's raw sectors and where it lies. It is not
// changed once it is in use; what changes a chunk makes a new one.
type Chunk struct {
	ID      uint32
	Base    format.Addr // its first sector
	Sectors int64       // raw ones, parity included
	Class   format.Class
	Profile format.Profile
	Columns []Column
}

const (
	// MaxColumns is the most columns that a chunk may have.
	MaxColumns = 32
	// maxAddr bounds addresses so that no sum of them and no offset overflows.
	maxAddr = math.MaxInt64 / format.SectorSize / 2
)

// Check tells what is wrong with a chunk, as an error that wraps
// format.ErrDamaged.
func (c *Chunk) Check() error {
	bad := func(msg string, args ...any) error {
		return fmt.Errorf("chunk %d: %s: %w", c.ID, fmt.Sprintf(msg, args...), format.ErrDamaged)
	}
	switch width := len(c.Columns); {
	case c.Profile > format.RaidZ2 || c.Class > format.Log:
		return bad("unknown %v or %v", c.Profile, c.Class)
	case width < c.Profile.MinDevices() || width > MaxColumns || c.Profile == format.Single && width != 1:
		return bad("%d columns of a %v chunk", width, c.Profile)
	case c.Sectors <= 0 || c.Sectors > maxAddr || c.Base > maxAddr:
		return bad("%d sectors at %d", c.Sectors, c.Base)
	}
	where := map[DeviceID]int{}
	for i, col := range c.Columns {
		if other, ok := where[col.Device]; ok {
			return bad("columns %d and %d are both on device %d", other, i, col.Device)
		}
		where[col.Device] = i
	}
	for i, col := range c.Columns {
		if !col.Place().aligned() {
			return bad("column %d begins at byte %d", i, col.Start)
		}
		if col.Shadow == nil {
			continue
		}
		if !col.Shadow.aligned() {
			return bad("the shadow of column %d begins at byte %d", i, col.Shadow.Start)
		}
		if other, ok := where[col.Shadow.Device]; ok && other != i {
			return bad("the shadow of column %d and column %d are both on device %d", i, other, col.Shadow.Device)
		}
		where[col.Shadow.Device] = i
	}
	return nil
}

func (p Place) aligned() bool {
	return p.Start >= 0 && p.Start%format.SectorSize == 0 && p.Start/format.SectorSize <= maxAddr
}

// ColumnBytes returns how many bytes each column takes on its device.
func (c *Chunk) ColumnBytes() int64 {
	if c.Profile.Parity() == 0 {
		return c.Sectors * format.SectorSize
	}
	width := int64(len(c.Columns))
	return (c.Sectors + width - 1) / width * format.SectorSize
}

// Need returns how many raw sectors a record of n bytes takes, with its parity
// and what rounding leaves unused.
func (c *Chunk) Need(n int64) int64 {
	return Need(c.Profile, len(c.Columns), n)
}

// Need returns how many raw sectors a record of n bytes takes on a chunk of so
// many columns.
func Need(p format.Profile, columns int, n int64) int64 {
	data, parity := format.Sectors(n), int64(p.Parity())
	if parity == 0 {
		return data
	}
	wide := int64(columns) - parity
	rows := (data + wide - 1) / wide
	return roundUp(data+parity*rows, parity+1)
}

// Capacity returns about how many bytes of records of n bytes fit into the
// chunk.
func (c *Chunk) Capacity(n int64) int64 {
	return c.Sectors / c.Need(n) * n
}

// tolerance returns how many columns of a record may be bad.
func (c *Chunk) tolerance() int {
	if c.Profile == format.Mirror {
		return len(c.Columns) - 1
	}
	return c.Profile.Parity()
}

// shadowed tells whether a column is moving.
func (c *Chunk) shadowed() bool {
	for i := range c.Columns {
		if c.Columns[i].Shadow != nil {
			return true
		}
	}
	return false
}

// holds tells whether a record of n bytes at an address lies within the chunk.
func (c *Chunk) holds(at format.Addr, n int) error {
	need := c.Need(int64(n))
	if n <= 0 || at < c.Base || int64(at-c.Base) > c.Sectors-need {
		return fmt.Errorf("%d bytes at sector %d are not within chunk %d, sectors %d to %d: %w",
			n, at, c.ID, c.Base, int64(c.Base)+c.Sectors, format.ErrDamaged)
	}
	return nil
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
