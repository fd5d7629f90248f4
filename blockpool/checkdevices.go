package blockpool

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/intent"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
	"github.com/laminafs/lamina/blockpool/vdev"
)

// A checkedDevice is a device that the metadata names.
type checkedDevice struct {
	state *deviceState
	dev   vdev.Device // nil: it is missing
}

// checkDevices looks at the devices and their labels.
func (c *checker) checkDevices() error {
	err := c.each(meta.Devices, func(n uint64, value []byte) {
		st, err := unpackDevice(uint32(n), value)
		if err == nil && n>>32 != 0 {
			err = damagedf("device %d", n)
		}
		if err != nil {
			c.r.add(Finding{Kind: FindDeviceEntry, Text: err.Error()})
			return
		}
		c.counter("device", c.state.nextDevice, n)
		d := &checkedDevice{state: st}
		c.devices[st.id] = d
		c.openDevice(d)
		if d.dev != nil {
			c.checkLabels(d)
		}
	})
	c.r.Devices = len(c.devices)
	if c.online == nil {
		c.array = raid.New(raid.Hooks{Heal: c.heals.add})
		for id, d := range c.devices {
			if d.dev != nil {
				c.array.Add(raid.DeviceID(id), lookOnly{d.dev})
			}
		}
	}
	return err
}

// openDevice finds a device, or reports that it is missing.
func (c *checker) openDevice(d *checkedDevice) {
	var err error
	if c.online != nil {
		if dev := c.online.devices.get(d.state.id); dev != nil {
			d.dev = dev.dev
		}
	} else {
		o := OpenOptions{Storage: c.o.Storage, SearchDevices: c.o.SearchDevices}
		d.dev, err = o.deviceAt(d.state, c.r.GUID)
	}
	if d.dev == nil {
		c.r.add(Finding{Kind: FindDeviceMissing, Device: d.state.path, Text: fmt.Sprintf("device %d is not there: %v", d.state.id, err)})
	}
}

// checkLabels looks at each copy of a device's label.
func (c *checker) checkLabels(d *checkedDevice) {
	path := d.state.path
	if d.dev.Size() < d.state.size {
		c.r.add(Finding{Kind: FindDeviceSize, Device: path, Text: fmt.Sprintf("it has %d bytes, it had %d", d.dev.Size(), d.state.size)})
	}
	b := make([]byte, labelSize)
	var newest *label
	for i := range int64(labelCopies) {
		_, err := d.dev.ReadAt(b, i*labelSpacing)
		var l *label
		if err == nil {
			l, err = unpackLabel(b)
		}
		if err != nil {
			c.r.add(Finding{Kind: FindLabel, Device: path, Offset: number(i * labelSpacing), Text: fmt.Sprintf("copy %d of the label: %v", i, err)})
			continue
		}
		if newest == nil || l.txg > newest.txg {
			newest = l
		}
	}
	if newest == nil {
		return
	}
	differs := func(format string, args ...any) {
		c.r.add(Finding{Kind: FindLabelDiffers, Device: path, Text: fmt.Sprintf(format, args...)})
	}
	switch l := newest; {
	case l.pool != c.r.GUID:
		differs("the label is that of pool %s (%s)", l.name, l.pool)
	case l.deviceGUID != d.state.guid || l.device != d.state.id:
		differs("the label is that of device %d (%s), not %d (%s)", l.device, l.deviceGUID, d.state.id, d.state.guid)
	case c.config.Name != "" && l.name != c.config.Name:
		differs("the label calls the pool %s, its configuration %s", l.name, c.config.Name)
	}
	if newest.txg > c.txg && c.online == nil {
		c.r.add(Finding{Kind: FindMetadataOld, Device: path, Text: fmt.Sprintf("its label knows txg %d, the metadata is of %d", newest.txg, c.txg)})
	}
}

// room returns how many bytes all devices have: no chunk has more.
func (c *checker) room() (n int64) {
	for _, d := range c.devices {
		if d.dev != nil {
			n += d.dev.Size()
		} else {
			n += min(d.state.size, math.MaxInt64-n)
		}
	}
	return n
}

// checkChunks looks at where chunks lie, in the address space and on devices.
func (c *checker) checkChunks() error {
	ids, room := map[uint32]bool{}, c.room()
	err := c.each(meta.Chunks, func(base uint64, value []byte) {
		x, err := raid.ParseChunk(value)
		switch {
		case err != nil:
		case uint64(x.Base) != base || base%segmentUnits != 0 || x.Sectors%segmentUnits != 0 || x.Sectors > room/format.SectorSize:
			err = damagedf("chunk %d covers %d sectors from %d", x.ID, x.Sectors, x.Base)
		case ids[x.ID]:
			err = damagedf("there are two chunks %d", x.ID)
		}
		if err != nil {
			c.r.add(Finding{Kind: FindChunk, Address: base, Sectors: 1, Text: err.Error()})
			return
		}
		ids[x.ID] = true
		c.counter("chunk", c.state.nextChunk, uint64(x.ID))
		c.counter("address", uint64(c.state.nextAddr), uint64(x.Base)+uint64(x.Sectors))
		if n := len(c.chunks); n > 0 && c.chunks[n-1].Base+format.Addr(c.chunks[n-1].Sectors) > x.Base {
			c.r.add(Finding{Kind: FindChunkOverlap, Chunk: x.ID, Address: base, Sectors: uint64(x.Sectors), Text: fmt.Sprintf("it begins within chunk %d", c.chunks[n-1].ID)})
			return
		}
		c.chunks = append(c.chunks, x)
	})
	c.r.Chunks = len(c.chunks)
	c.checkExtents()
	return err
}

// A piece is the part of a device that a chunk takes.
type piece struct {
	chunk  *raid.Chunk
	at, n  int64
	device uint32
}

// checkExtents looks at the parts of devices that chunks take.
func (c *checker) checkExtents() {
	var pieces []piece
	for _, x := range c.chunks {
		missing := 0
		for _, col := range x.Columns {
			pieces = append(pieces, piece{x, col.Start, x.ColumnBytes(), uint32(col.Device)})
			if s := col.Shadow; s != nil {
				pieces = append(pieces, piece{x, s.Start, x.ColumnBytes(), uint32(s.Device)})
			}
			if d := c.devices[uint32(col.Device)]; d == nil || d.dev == nil {
				missing++
			}
		}
		may := x.Profile.Parity()
		if x.Profile == Mirror {
			may = len(x.Columns) - 1
		}
		if missing > may {
			c.r.add(Finding{Kind: FindDeviceMissing, Severity: Damage, Chunk: x.ID, Text: fmt.Sprintf("%v chunk of %v lacks %d of %d devices", x.Profile, x.Class, missing, len(x.Columns))})
		}
	}
	slices.SortFunc(pieces, func(a, b piece) int { return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(a.at, b.at)) })
	for i, p := range pieces {
		f := Finding{Chunk: p.chunk.ID, Offset: number(p.at)}
		d := c.devices[p.device]
		if d == nil {
			f.Kind, f.Text = FindChunkDevice, fmt.Sprintf("it lies on device %d, which the pool has not", p.device)
			c.r.add(f)
			continue
		}
		f.Device = d.state.path
		if p.at < labelSpace || p.at+p.n > d.state.size {
			f.Kind, f.Text = FindChunkDevice, fmt.Sprintf("%d bytes at %d are not within what chunks may take: %d to %d", p.n, p.at, labelSpace, d.state.size)
			c.r.add(f)
		}
		if i > 0 && pieces[i-1].device == p.device && pieces[i-1].at+pieces[i-1].n > p.at {
			f.Kind, f.Text = FindDeviceOverlap, fmt.Sprintf("chunk %d has %d bytes at %d", pieces[i-1].chunk.ID, pieces[i-1].n, pieces[i-1].at)
			c.r.add(f)
		}
	}
}

// checkLog looks for the intent log, and for what it would bring back.
func (c *checker) checkLog() error {
	var logs []*raid.Chunk
	for _, x := range c.chunks {
		if x.Class == format.Log {
			logs = append(logs, x)
		}
	}
	if len(logs) != 1 {
		c.r.add(Finding{Kind: FindLogMissing, Text: fmt.Sprintf("the pool has %d intent logs", len(logs))})
		return nil
	}
	if c.online != nil {
		return nil
	}
	area := &logArea{p: &Pool{array: c.array}}
	area.chunk.Store(&chunk{Chunk: *logs[0]})
	_, err := intent.Replay(area, c.r.GUID, c.txg, func(uint64, intent.Kind, []byte) error {
		c.r.LogChanges++
		return nil
	})
	if err != nil {
		c.r.add(Finding{Kind: FindLogMissing, Chunk: logs[0].ID, Text: err.Error()})
	} else if c.r.LogChanges > 0 {
		c.r.add(Finding{Kind: FindLogPending, Chunk: logs[0].ID, Text: fmt.Sprintf("the intent log has %d changes", c.r.LogChanges)})
	}
	return nil
}

// lookOnly is a device that takes writes for done and does not do them: so what
// reading a record would mend is told, and stays as it is.
type lookOnly struct{ vdev.Device }

func (lookOnly) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (lookOnly) Sync() error                            { return nil }
func (lookOnly) Discard(int64, int64) error             { return nil }
func (d lookOnly) Grow(int64) error                     { return fmt.Errorf("%s: %w", d.Path(), ErrReadOnly) }
