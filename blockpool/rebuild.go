package blockpool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/intent"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
	"github.com/laminafs/lamina/blockpool/internal/spacemap"
)

// A rebuilder writes metadata anew, into a file beside those that it is to take
// the place of. It counts what nodes refer to as they come.
type rebuilder struct {
	path   string
	store  *meta.Store
	batch  meta.Batch
	txg    uint64 // of the next commit
	failed error  // of a commit or count; the first one stays

	chunks     []*raid.Chunk // by base
	counts     *spacemap.Map
	nodeCounts *spacemap.Map
}

// rebuildStep is how many bytes go into one commit of a new file.
const rebuildStep = 4 << 20

// newRebuilder makes the file. The first commit is of that txg.
func newRebuilder(path string, guid GUID, txg uint64, size int64) (*rebuilder, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err // what an attempt before left
	}
	store, err := meta.Create([]string{path}, guid, meta.Options{MaxSize: size})
	if err != nil {
		return nil, err
	}
	none := func(uint64) ([]byte, error) { return nil, nil }
	return &rebuilder{path: path, store: store, txg: txg, counts: spacemap.New(none), nodeCounts: spacemap.New(none)}, nil
}

func (b *rebuilder) fail(err error) error {
	if b.failed == nil {
		b.failed = err
	}
	return b.failed
}

func (b *rebuilder) put(bucket meta.Bucket, key, value []byte) error {
	b.batch.Put(bucket, key, value)
	if b.batch.Bytes() < rebuildStep {
		return b.failed
	}
	return b.commit()
}

func (b *rebuilder) commit() error {
	if b.failed == nil {
		b.fail(b.store.Commit(b.txg, &b.batch))
	}
	b.txg++
	b.batch = meta.Batch{}
	return b.failed
}

// chunk adds a chunk, of which nothing is in use yet. Chunks come by base.
func (b *rebuilder) chunk(c *raid.Chunk) error {
	if n := len(b.chunks); n > 0 && b.chunks[n-1].Base+format.Addr(b.chunks[n-1].Sectors) > c.Base {
		return b.fail(damagedf("chunk %d overlaps chunk %d", c.ID, b.chunks[n-1].ID))
	}
	if uint64(c.Base)%segmentUnits != 0 || c.Sectors%segmentUnits != 0 {
		return b.fail(damagedf("chunk %d covers %d sectors from %d", c.ID, c.Sectors, c.Base))
	}
	if err := b.counts.AddSegments(uint64(c.Base)/segmentUnits, uint64(c.Sectors)/segmentUnits); err != nil {
		return b.fail(err)
	}
	b.chunks = append(b.chunks, c)
	return b.put(meta.Chunks, key64(uint64(c.Base)), c.Append(nil))
}

// chunkFits refuses a chunk that does not lie on its devices, or on none that is there.
func chunkFits(c *raid.Chunk, devices []*device) error {
	there := 0
	for _, col := range c.Columns {
		i := slices.IndexFunc(devices, func(d *device) bool { return d.id == uint32(col.Device) })
		switch {
		case i < 0:
			return damagedf("chunk %d lies on device %d, which the pool has not", c.ID, col.Device)
		case devices[i].dev == nil:
		case col.Start+c.ColumnBytes() > devices[i].dev.Size():
			return damagedf("chunk %d lies beyond the end of %s", c.ID, devices[i].state.Load().path)
		default:
			there++
		}
	}
	if there == 0 {
		return fmt.Errorf("chunk %d lies on devices that are missing: %w", c.ID, ErrIncomplete)
	}
	return nil
}

// refNode counts a reference to a node.
func (b *rebuilder) refNode(id btree.NodeID) error {
	if id == 0 || id > btree.MaxNodeID {
		return b.fail(damagedf("there is no node %d", id))
	}
	seg := uint64(id) / segmentUnits
	if _, err := b.nodeCounts.Bits(seg); err != nil {
		if err := b.nodeCounts.AddSegments(seg, 1); err != nil {
			return b.fail(err)
		}
	}
	n, err := b.nodeCounts.Count(uint64(id))
	switch {
	case err != nil:
	case n == 0:
		err = b.nodeCounts.Set(uint64(id), 1)
	default:
		err = b.nodeCounts.Retain(uint64(id))
	}
	if err != nil {
		return b.fail(err)
	}
	return nil
}

// need returns how many sectors a record takes, 0 if no chunk of data covers it.
func (b *rebuilder) need(rec format.Record) uint64 {
	c := (&checker{chunks: b.chunks}).chunk(rec.Addr)
	if c == nil || c.Class != format.Data {
		return 0
	}
	n := uint64(c.Need(int64(rec.Size)))
	if uint64(rec.Addr-c.Base)+n > uint64(c.Sectors) {
		return 0
	}
	return n
}

// refRecord counts a reference to a record, the first one or another.
func (b *rebuilder) refRecord(rec format.Record) error {
	n := b.need(rec)
	if n == 0 {
		return b.fail(damagedf("record at %d lies in no chunk of data", rec.Addr))
	}
	have, err := b.counts.Count(uint64(rec.Addr))
	switch {
	case err != nil:
	case have == 0:
		err = b.counts.Set(uint64(rec.Addr), n)
	default:
		err = b.counts.Retain(uint64(rec.Addr))
	}
	if err != nil {
		return b.fail(err)
	}
	return nil
}

// finish writes the counts and the numbers that are given out next.
func (b *rebuilder) finish(s state) error {
	if last := s.nextNode / segmentUnits; b.failed == nil {
		if _, err := b.nodeCounts.Bits(last); err != nil {
			b.fail(b.nodeCounts.AddSegments(last, 1)) // that of the next nodes
		}
	}
	save := func(bucket meta.Bucket) func(uint64, []byte) {
		return func(seg uint64, value []byte) { b.put(bucket, key64(seg), value) }
	}
	b.counts.TakeDirty(save(meta.Space))
	b.nodeCounts.TakeDirty(save(meta.NodeMap))
	b.put(meta.Config, []byte(keyState), s.pack())
	return b.commit()
}

// close lets go of the file, which stays.
func (b *rebuilder) close() error { return b.store.Close() }

// check looks at what was written, as a check of the pool would. Labels are not
// its concern: they are written last.
func (b *rebuilder) check(ctx context.Context, o *CheckOptions) (*Report, error) {
	view, err := b.store.View()
	if err != nil {
		return nil, err
	}
	defer view.Close()
	c := newChecker(ctx, view, b.store.GUID(), b.store.Txg(), o)
	defer c.end()
	if err := c.run(); err != nil {
		return nil, err
	}
	return c.r, nil
}

// install makes the new file the pool's metadata, at each of the paths, and
// writes the labels. What was there is kept beside, with suffix at its name.
//
//	Crash before the rename: the pool as it was, and a file beside.
//	Crash after it:          the new metadata at the first path. It is newer than
//	                         what is at the others, which the next opening writes
//	                         anew; and newer than every label.
func (b *rebuilder) install(paths []string, suffix string, devices []*device, name string, size int64) error {
	guid := b.store.GUID()
	if err := b.close(); err != nil {
		return err
	}
	for _, path := range paths {
		if err := keep(path, suffix); err != nil {
			return err
		}
	}
	if err := os.Rename(b.path, paths[0]); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(paths[0])); err != nil {
		return err
	}
	store, err := meta.Open(paths, guid, meta.Options{MaxSize: size})
	if err != nil {
		return err
	}
	for _, path := range store.Failed() {
		if err := store.Recopy(path); err != nil {
			return errors.Join(err, store.Close())
		}
	}
	txg := store.Txg()
	if err := store.Close(); err != nil {
		return err
	}
	for _, d := range devices {
		if d.dev == nil {
			continue
		}
		err := writeLabel(d.dev, &label{
			pool: guid, name: name, device: d.id, deviceGUID: d.state.Load().guid, size: d.state.Load().size, txg: txg, replicas: paths,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// keep gives a file a second name, so that the first may be taken.
func keep(path, suffix string) error {
	err := os.Link(path, path+suffix)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrExist) {
		return nil // nothing to keep, or kept by an attempt before
	}
	return err
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lastTxg returns the highest transaction group that labels and intent log know
// of: what is written anew has to be later.
func lastTxg(devices []*device, chunks []*raid.Chunk, guid GUID) (last uint64) {
	array := raid.New(raid.Hooks{})
	for _, d := range devices {
		if d.dev == nil {
			continue
		}
		array.Add(raid.DeviceID(d.id), lookOnly{d.dev})
		if l, err := readLabel(d.dev); err == nil {
			last = max(last, l.txg)
		}
	}
	i := slices.IndexFunc(chunks, func(c *raid.Chunk) bool { return c.Class == format.Log })
	if i < 0 {
		return last
	}
	area := &logArea{p: &Pool{array: array}}
	area.chunk.Store(&chunk{Chunk: *chunks[i]})
	enough := errors.New("enough")
	// A log that cannot be read ends here as well: then nothing of it will be
	// replayed either.
	if n, _ := intent.Replay(area, guid, 0, func(uint64, intent.Kind, []byte) error { return enough }); n > last {
		last = n
	}
	return last
}

// openDevices opens those devices that are there.
func openDevices(states []*deviceState, guid GUID, storage Storage, search []string) (devices []*device) {
	o := OpenOptions{Storage: storage, SearchDevices: search}
	for _, st := range states {
		d := newDevice(*st, nil)
		if dev, err := o.deviceAt(st, guid); err == nil {
			d.dev = dev
		}
		devices = append(devices, d)
	}
	return devices
}

func closeDevices(devices []*device) {
	for _, d := range devices {
		if d.dev != nil {
			d.dev.Close()
			d.dev = nil
		}
	}
}

// errNotClean says that new metadata is not what it should be: it was not used.
var errNotClean = fmt.Errorf("what was written does not check clean: %w", ErrDamaged)
