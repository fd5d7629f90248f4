package blockpool

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/thinxml"
)

// thinBlock is the size of a block of dm-thin, in bytes, that the pool's records
// of devicemapper volumes have too.
const thinBlock = DevicemapperRecordSize

// A ThinDevice is a volume as a device of a dm-thin pool.
type ThinDevice struct {
	ID     uint32 `json:"id"` // dev_id
	Name   string `json:"name"`
	Size   int64  `json:"size"`   // virtual, in bytes: what its table has to say
	Mapped uint64 `json:"mapped"` // blocks
}

// DumpThin writes volumes as a dm-thin pool: their mappings to w, as the XML that
// thin_restore takes, and their data to data, block after block, a shared one
// once; a file or block device says by its size how large the pool is to be. With a
// nil data only the XML is written. Both are as of the last durable transaction group. The names are those of volumes and snapshots of 64K records;
// with none, all such are written. A volume's id is its dev_id.
//
// It returns what dm-thin keeps elsewhere: names and sizes.
func (p *Pool) DumpThin(ctx context.Context, w io.Writer, data io.WriterAt, names ...string) ([]ThinDevice, error) {
	e := p.epochs.hold()
	defer e.release()
	d := &thinDumper{ctx: ctx, p: p, e: e, w: thinxml.NewWriter(w), data: data, sectors: newRecount(), blocks: map[format.Addr]uint64{}}
	err := d.choose(names)
	if err == nil {
		err = d.dump()
	}
	if err != nil {
		return nil, fmt.Errorf("dump to dm-thin: %w", err)
	}
	return d.devices, nil
}

// A thinDumper walks over all volumes twice: to count blocks and see which are
// shared, and to write.
type thinDumper struct {
	ctx  context.Context
	p    *Pool
	e    *epoch
	w    *thinxml.Writer
	data io.WriterAt
	buf  []byte

	entries []*entry
	devices []ThinDevice
	sectors *recount
	total   uint64                 // different blocks
	next    uint64                 // the next one to be written
	blocks  map[format.Addr]uint64 // those shared blocks that were written
}

// choose finds the entries, by id.
func (d *thinDumper) choose(names []string) error {
	for _, name := range names {
		v := d.p.catalogue.find(name)
		if v == nil {
			return fmt.Errorf("%s: %w", name, ErrNotFound)
		}
		switch e := v.entry.Load(); {
		case e.holdsFiles():
			return invalidf("%s is a dataset: dm-thin has volumes, and no place for files", name)
		case e.recordSize != thinBlock:
			return invalidf("%s has records of %d bytes: dm-thin takes blocks of %d", name, e.recordSize, thinBlock)
		}
	}
	var list []*entry
	err := scanEntries(d.e.view, func(e *entry) error {
		if e.recordSize == thinBlock && !e.holdsFiles() && (len(names) == 0 || slices.Contains(names, e.name)) && e.receiving == nil {
			list = append(list, e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.id > thinxml.MaxDeviceID {
			return invalidf("%s has id %d, dm-thin takes ids up to %d", e.name, e.id, thinxml.MaxDeviceID)
		}
	}
	d.entries = list
	return nil
}

// scan calls f with each record of a volume.
func (d *thinDumper) scan(e *entry, f func(n uint64, rec format.Record) error) error {
	err := btree.Scan(d.e, e.root, nil, nil, func(key, value []byte) error {
		if d.ctx.Err() != nil {
			return context.Cause(d.ctx)
		}
		n, err := parseKey64(key)
		if err != nil {
			return err
		}
		rec, err := format.ParseRecord(value)
		if err != nil {
			return err
		}
		return f(n, rec)
	})
	if err != nil {
		return fmt.Errorf("volume %s: %w", e.name, err)
	}
	return nil
}

func (d *thinDumper) dump() error {
	for _, e := range d.entries {
		t := ThinDevice{ID: uint32(e.id), Name: e.name, Size: e.size}
		err := d.scan(e, func(_ uint64, rec format.Record) error {
			c, err := d.p.space.chunk(rec.Addr)
			if err != nil {
				return err
			}
			first, err := d.sectors.add(&c.Chunk, rec)
			if first {
				d.total++
			}
			t.Mapped++
			return err
		})
		if err != nil {
			return err
		}
		d.devices = append(d.devices, t)
	}
	// Time 1 is now. A block that is shared is from before the snapshot, so that
	// dm-thin copies it when it is written to; others are written in place.
	blocks, err := d.dataBlocks()
	if err != nil {
		return err
	}
	sb := thinxml.Superblock{Time: 1, Transaction: 1, DataBlockSize: thinBlock / 512, NrDataBlocks: blocks}
	if err := d.w.Superblock(sb); err != nil {
		return err
	}
	d.buf = make([]byte, thinBlock)
	for i, e := range d.entries {
		if err := d.w.Device(thinxml.Device{ID: uint32(e.id), MappedBlocks: d.devices[i].Mapped, SnapTime: 1}); err != nil {
			return err
		}
		err := d.scan(e, func(n uint64, rec format.Record) error { return d.block(n, rec) })
		if err != nil {
			return err
		}
		if err := d.w.EndDevice(); err != nil {
			return err
		}
	}
	return d.w.Close()
}

// dataBlocks returns how many blocks the data device has: all of it where it can tell,
// a file or block device, else those that are used. thin_restore takes what lies behind
// them for used, and a pool of dm-thin that finds its device larger adds only what
// further bitmaps count, 16,320 blocks each: it could be full from the beginning.
func (d *thinDumper) dataBlocks() (uint64, error) {
	device, ok := d.data.(io.Seeker)
	if !ok {
		return d.total, nil
	}
	size, err := device.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("size of the data device: %w", err)
	}
	return max(d.total, uint64(size)/thinBlock), nil
}

// block writes the mapping of one record, and its data if nobody had it before.
func (d *thinDumper) block(n uint64, rec format.Record) error {
	m := thinxml.Mapping{Origin: n, Length: 1, Time: 1}
	shared := d.sectors.shared(rec.Addr)
	if shared {
		m.Time = 0
		if at, ok := d.blocks[rec.Addr]; ok {
			m.Data = at
			return d.w.Map(m)
		}
		d.blocks[rec.Addr] = d.next
	}
	m.Data = d.next
	d.next++
	if d.data != nil {
		if err := d.p.readWhole(rec, d.buf); err != nil {
			return fmt.Errorf("record %d: %w", n, err)
		}
		if _, err := d.data.WriteAt(d.buf, int64(m.Data)*thinBlock); err != nil {
			return err
		}
	}
	return d.w.Map(m)
}
