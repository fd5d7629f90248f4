package raid

import (
	"errors"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/vdev"
)

// Discard tells the devices that raw sectors of a chunk hold nothing any more.
// It takes raw sectors, not records, so that what was freed piece by piece is
// discarded in runs. Devices that are not online, and those that cannot discard,
// are passed over; what other devices say is reported and returned, and changes
// nothing else.
func (a *Array) Discard(c *Chunk, at format.Addr, sectors int64) error {
	if sectors <= 0 || at < c.Base || int64(at-c.Base) > c.Sectors-sectors {
		return fmt.Errorf("discard: %d sectors at %d are not within chunk %d: %w", sectors, at, c.ID, format.ErrDamaged)
	}
	var causes []error
	for i := range c.Columns {
		row, count := c.rows(i, int64(at-c.Base), sectors)
		causes = append(causes, a.discard(c.Columns[i].Place(), row, count))
		if shadow := c.Columns[i].Shadow; shadow != nil {
			causes = append(causes, a.discard(*shadow, row, count))
		}
	}
	if err := errors.Join(causes...); err != nil {
		return fmt.Errorf("discard %d sectors at %d of chunk %d: %w", sectors, at, c.ID, err)
	}
	return nil
}

func (a *Array) discard(p Place, row, count int64) error {
	m, state := a.find(p.Device)
	if state != Online || count == 0 {
		return nil
	}
	err := m.dev.Discard(p.Start+row*format.SectorSize, count*format.SectorSize)
	if err == nil || errors.Is(err, vdev.ErrNoDiscard) {
		return nil
	}
	a.report(m, "discard", err)
	return err
}
