package blockpool

import (
	"fmt"
	"sync"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// healed remembers what an array says that it mended.
type healed struct {
	mu   sync.Mutex
	list []healing
}

type healing struct {
	device raid.DeviceID
	off, n int64
}

func (h *healed) add(id raid.DeviceID, off, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, healing{id, off, n})
}

func (h *healed) take() []healing {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.list
	h.list = nil
	return list
}

// readRecord reads every copy of a record.
func (c *checker) readRecord(x *raid.Chunk, rec format.Record, f Finding) {
	array := c.array
	if c.online != nil {
		// The chunk may have moved since; its addresses have not.
		now, err := c.online.space.chunk(rec.Addr)
		if err != nil {
			return
		}
		array, x = c.online.array, &now.Chunk
	}
	defer c.unpackRecord(array, x, rec, f)
	result, err := array.Scrub(x, rec.Addr, int(rec.Size), fits(rec))
	c.r.BytesRead += stored(rec)
	heals := c.heals.take()
	if err != nil {
		f.Kind, f.Text = FindDataLost, err.Error()
		f.Device, f.Offset = c.where(x, rec.Addr)
		c.r.add(f)
		return
	}
	f.Kind = FindDataCopy
	if c.online == nil {
		for _, h := range heals {
			f.Device, f.Offset = c.path(h.device), number(h.off)
			f.Text = fmt.Sprintf("%d bytes of this copy are wrong", h.n)
			c.r.add(f)
		}
		return
	}
	for id, t := range result {
		if t.Mended > 0 || t.Unrecoverable > 0 {
			f.Device, f.Text = c.path(id), fmt.Sprintf("%d bytes of this copy were wrong, %d of them are mended", t.Mended+t.Unrecoverable, t.Mended)
			c.r.add(f)
		}
	}
}

// unpackRecord looks whether what a packed record has can be unpacked: a checksum
// says only that it is what was written.
func (c *checker) unpackRecord(array *raid.Array, x *raid.Chunk, rec format.Record, f Finding) {
	if rec.Codec == format.Plain {
		return
	}
	packed := make([]byte, rec.Size)
	if array.Read(x, rec.Addr, packed, fits(rec)) != nil {
		return // that was found already
	}
	size := int64(format.MaxRecordSize)
	if c.walking != nil {
		size = c.walking.recordSize
	}
	if _, err := unpacked(rec.Codec, packed, size); err != nil {
		f.Kind, f.Text = FindDataPacked, fmt.Sprintf("it fits its checksum, and %v", err)
		c.r.add(f)
	}
}

// where returns the device and offset at which an address begins.
func (c *checker) where(x *raid.Chunk, at format.Addr) (string, *int64) {
	i, row := 0, int64(at-x.Base)
	if x.Profile.Parity() > 0 {
		i, row = int(row)%len(x.Columns), row/int64(len(x.Columns))
	}
	return c.path(x.Columns[i].Device), number(x.Columns[i].Start + row*format.SectorSize)
}

func (c *checker) path(id raid.DeviceID) string {
	if d := c.devices[uint32(id)]; d != nil {
		return d.state.path
	}
	return fmt.Sprintf("device %d", id)
}
