package blockpool

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
	"github.com/laminafs/lamina/blockpool/internal/spacemap"
	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// A vandal changes the metadata of a pool that is closed, as only a bug could:
// every checksum is right.
type vandal struct {
	*bench
	view  *meta.View
	batch meta.Batch
}

// vandalize changes all replicas alike.
func (b *bench) vandalize(f func(v *vandal)) {
	b.Helper()
	paths, err := filepath.Glob(filepath.Join(b.dir, "meta-*.db"))
	b.must(err)
	store, err := meta.Open(paths, meta.GUID{}, meta.Options{MaxSize: 64 << 20})
	b.must(err)
	defer store.Close()
	view, err := store.View()
	b.must(err)
	defer view.Close()
	v := &vandal{bench: b, view: view}
	f(v)
	b.must(store.Commit(store.Txg()+1, &v.batch))
}

func (v *vandal) get(b meta.Bucket, key []byte) []byte {
	v.Helper()
	value, err := v.view.Get(b, key)
	v.must(err)
	if value == nil {
		v.Fatalf("%v has no %x", b, key)
	}
	return value
}

func (v *vandal) entry(name string) *entry {
	v.Helper()
	var found *entry
	v.must(v.view.Scan(meta.Volumes, nil, func(key, value []byte) error {
		id, err := parseKey64(key)
		v.must(err)
		e, err := unpackEntry(id, value)
		v.must(err)
		if e.name == name {
			found = e
		}
		return nil
	}))
	if found == nil {
		v.Fatalf("no volume %s", name)
	}
	return found
}

func (v *vandal) setEntry(name string, change func(e *entry)) {
	e := v.entry(name)
	change(e)
	v.batch.Put(meta.Volumes, key64(e.id), e.pack())
}

func (v *vandal) setState(change func(s *state)) {
	s, err := unpackState(v.get(meta.Config, []byte(keyState)))
	v.must(err)
	change(&s)
	v.batch.Put(meta.Config, []byte(keyState), s.pack())
}

func (v *vandal) chunks() (list []*raid.Chunk) {
	v.must(v.view.Scan(meta.Chunks, nil, func(_, value []byte) error {
		c, err := raid.ParseChunk(value)
		list = append(list, c)
		return err
	}))
	return list
}

func (v *vandal) setChunk(base format.Addr, c *raid.Chunk) {
	v.batch.Put(meta.Chunks, key64(uint64(base)), c.Append(nil))
}

func (v *vandal) setDevice(id uint32, change func(d *deviceState)) {
	d, err := unpackDevice(id, v.get(meta.Devices, key64(uint64(id))))
	v.must(err)
	change(d)
	v.batch.Put(meta.Devices, key64(uint64(id)), d.pack())
}

func (v *vandal) node(id btree.NodeID) *btree.Node {
	n, err := btree.Parse(v.get(meta.Nodes, key64(uint64(id))))
	v.must(err)
	return n
}

// leaf returns the first leaf of a volume.
func (v *vandal) leaf(name string) (btree.NodeID, *btree.Node) {
	id := v.entry(name).root
	for {
		n := v.node(id)
		if n.Level() == 0 {
			return id, n
		}
		id = n.Child(0)
	}
}

// record returns the first record of a volume.
func (v *vandal) record(name string) format.Record {
	_, n := v.leaf(name)
	rec, err := format.ParseRecord(n.Value(0))
	v.must(err)
	return rec
}

// vandalStore is a store in which the items of a leaf can be replaced one by one,
// whatever the counts are.
type vandalStore struct {
	id btree.NodeID
	n  *btree.Node
}

func (s *vandalStore) Load(btree.NodeID) (*btree.Node, error)  { return s.n, nil }
func (s *vandalStore) Refs(btree.NodeID) (uint64, error)       { return 1, nil }
func (s *vandalStore) Retain(btree.NodeID) error               { return nil }
func (s *vandalStore) Release(btree.NodeID) error              { return nil }
func (s *vandalStore) Edit(btree.NodeID) (*btree.Node, error)  { return s.n, nil }
func (s *vandalStore) Add(n *btree.Node) (btree.NodeID, error) { panic("the leaf was split") }

// lastLeaf returns the last leaf of a volume.
func (v *vandal) lastLeaf(name string) (btree.NodeID, *btree.Node) {
	id := v.entry(name).root
	for {
		n := v.node(id)
		if n.Level() == 0 {
			return id, n
		}
		id = n.Child(n.Len() - 1)
	}
}

// put gives a key of a volume's first leaf a value.
func (v *vandal) put(name string, key, value []byte) {
	id, n := v.leaf(name)
	v.putIn(id, n, key, value)
}

// putLast gives a key of a volume's last leaf a value.
func (v *vandal) putLast(name string, key, value []byte) {
	id, n := v.lastLeaf(name)
	v.putIn(id, n, key, value)
}

func (v *vandal) putIn(id btree.NodeID, n *btree.Node, key, value []byte) {
	room := n.Len() - 2
	if len(key) != 8 || key[0] > 0 { // the others share no prefix with it
		room = min(room, 20)
	}
	n = btree.Prune(n, func(i int) bool { return i < room })
	s := &vandalStore{id, n.Clone()}
	_, err := btree.Open(s, btree.NoItems{}, id).Put(key, value)
	v.must(err)
	v.batch.Put(meta.Nodes, key64(uint64(id)), s.n.Bytes())
}

// setRecord changes the first record of a volume.
func (v *vandal) setRecord(name string, change func(r *format.Record)) {
	_, n := v.leaf(name)
	rec := v.record(name)
	change(&rec)
	v.put(name, n.AppendKey(nil, 0), format.AppendRecord(nil, rec))
}

// counts changes a space map.
func (v *vandal) counts(b meta.Bucket, change func(m *spacemap.Map) error) {
	v.Helper()
	m := spacemap.New(func(seg uint64) ([]byte, error) { return v.view.Get(b, key64(seg)) })
	v.must(change(m))
	m.TakeDirty(func(seg uint64, value []byte) {
		if value == nil {
			v.batch.Delete(b, key64(seg))
		} else {
			v.batch.Put(b, key64(seg), value)
		}
	})
}

func release(m *spacemap.Map, unit, n uint64) error {
	_, err := m.Release(unit, n)
	return err
}

// setRecordOf changes the first record of a dataset for which which says yes.
func (v *vandal) setRecordOf(name string, which func(format.Record) bool, change func(r *format.Record)) {
	id, n := v.leaf(name)
	for i := range n.Len() {
		rec, err := format.ParseRecord(n.Value(i))
		v.must(err)
		if which(rec) {
			change(&rec)
			s := &vandalStore{id, btree.Prune(n, func(j int) bool { return j < n.Len()-2 || j == i })}
			_, err := btree.Open(s, btree.NoItems{}, id).Put(n.AppendKey(nil, i), format.AppendRecord(nil, rec))
			v.must(err)
			v.batch.Put(meta.Nodes, key64(uint64(id)), s.n.Bytes())
			return
		}
	}
	v.Fatalf("%s has no such record in its first leaf", name)
}

func isPacked(r format.Record) bool { return r.Codec != format.Plain }

// repack stores something else where a packed record is, with a right checksum.
func (v *vandal) repack(r *format.Record, b []byte) {
	for _, c := range v.chunks() {
		if r.Addr >= c.Base && r.Addr < c.Base+format.Addr(c.Sectors) {
			for _, col := range c.Columns {
				v.device(int(col.Device)-1).Poke(col.Start+int64(r.Addr-c.Base)*format.SectorSize, b)
			}
		}
	}
	r.Size, r.Sum = uint32(len(b)), format.Sum(b)
}

// vandalSet makes a dataset called set with items, of which 60 are counted, and
// records that are whole, short and packed, a snapshot set@snap that has most of them
// too, and a clone.
func (b *bench) vandalSet() *treeModel {
	b.must(b.CreateDataset(ctx, "set", DatasetOptions{RecordSize: 16 << 10, Compression: CompressionLZ4}))
	set, m := b.tree("set"), newTreeModel()
	defer set.Close()
	apply := func(batch *Batch) {
		b.must(set.Apply(ctx, batch))
		m.apply(batch)
	}
	text := bytes.Repeat([]byte("what packs well "), 6000)
	batch := &Batch{}
	for n := range uint64(60) {
		batch.Put(itemKey(n), fill(int(n*7), n))
		batch.Put(append([]byte{0x90}, itemKey(n)...), fill(100, n+1))
		batch.Write(n+1, 0, text[:1000*(n%40+1)])
		batch.Write(n+1, 100<<10, fill(5000, n))
	}
	batch.Write(100, 0, fill(512<<10, 3))
	apply(batch)
	b.must(b.Snapshot(ctx, "set", "set@snap"))
	b.must(b.Clone(ctx, "set@snap", "clone"))
	batch = &Batch{}
	batch.Put(itemKey(7), []byte("later"))
	batch.Write(3, 5, []byte("later"))
	apply(batch)
	return m
}

// vandalized is the pool that damage is planted in: mirrors, a volume of several
// leaves called vol with a snapshot vol@snap that shares most of it, one called
// other, and the dataset of vandalSet.
func vandalized(t *testing.T) *bench {
	b := newBench(t, Config{DataProfile: Mirror, MetadataProfile: Mirror}, 2, 64<<20)
	b.must(b.CreateVolume(ctx, "vol", 4<<20, VolumeOptions{RecordSize: 4 << 10}))
	b.must(b.CreateVolume(ctx, "other", 1<<20, VolumeOptions{RecordSize: 4 << 10}))
	for i, name := range []string{"vol", "other"} {
		v := b.volume(name)
		if _, err := v.WriteAt(fill(1<<20, uint64(i)), 0); err != nil {
			t.Fatal(err)
		}
		v.Close()
	}
	b.must(b.Snapshot(ctx, "vol", "vol@snap"))
	v := b.volume("vol")
	if _, err := v.WriteAt(fill(4<<10, 9), 0); err != nil {
		t.Fatal(err)
	}
	v.Close()
	b.vandalSet()
	b.must(b.Close())
	return b
}

func (b *bench) device(i int) *memdev.Device { return b.journal.Devices()[i] }

// A planted damage and what a check is to say of it.
type planted struct {
	name  string
	kind  FindingKind
	class Class
	plant func(b *bench)
	meta  func(v *vandal)      // the same, on metadata
	also  func(f Finding) bool // what else the finding says
}

var damages = []planted{
	{name: "one copy of a label", kind: FindLabel, plant: func(b *bench) { b.device(0).Zero(labelSpacing, labelSize) },
		also: func(f Finding) bool { return f.Offset != nil && *f.Offset == labelSpacing && f.Severity == Degraded }},
	{name: "the label of another device", kind: FindLabelDiffers, meta: func(v *vandal) {
		l, err := unpackLabel(v.device(0).Peek(0, labelSize))
		v.must(err)
		l.device = 7
		b, err := l.pack()
		v.must(err)
		for i := range int64(labelCopies) {
			v.device(0).Poke(i*labelSpacing, b)
		}
	}},
	{name: "a label newer than the metadata", kind: FindMetadataOld, plant: func(b *bench) {
		l, err := unpackLabel(b.device(1).Peek(0, labelSize))
		b.must(err)
		l.txg = 1000
		p, err := l.pack()
		b.must(err)
		b.device(1).Poke(0, p)
	}},
	{name: "a device that is gone", kind: FindDeviceMissing, plant: func(b *bench) { b.device(1).Pull(0) },
		also: func(f Finding) bool { return f.Severity == Degraded && f.Device != "" }},
	{name: "a device that has shrunk", kind: FindDeviceSize, meta: func(v *vandal) {
		v.setDevice(1, func(d *deviceState) { d.size += 1 << 20 })
	}},
	{name: "a device's entry", kind: FindDeviceEntry, meta: func(v *vandal) { v.batch.Put(meta.Devices, key64(1), []byte{9}) }},
	{name: "a replica that is gone", kind: FindReplica, plant: func(b *bench) { b.must(os.Truncate(b.replica(1), 0)) },
		also: func(f Finding) bool { return filepath.Base(f.Replica) == "meta-1.db" && f.Severity == Degraded }},
	{name: "a replica that lags", kind: FindReplicaOld, class: ClassClean, plant: func(b *bench) {
		old, err := os.ReadFile(b.replica(1))
		b.must(err)
		b.vandalize(func(v *vandal) { v.setState(func(*state) {}) })
		b.must(os.WriteFile(b.replica(1), old, 0o600))
	}},
	{name: "replicas that differ", kind: FindReplicaDiffers, plant: func(b *bench) {
		old, err := os.ReadFile(b.replica(1))
		b.must(err)
		b.vandalize(func(v *vandal) { v.setState(func(s *state) { s.nextNode++ }) })
		changed, err := os.ReadFile(b.replica(0))
		b.must(err)
		b.must(os.WriteFile(b.replica(0), old, 0o600))
		b.must(os.WriteFile(b.replica(1), old, 0o600))
		b.vandalize(func(v *vandal) { v.setState(func(s *state) { s.nextNode += 2 }) })
		b.must(os.WriteFile(b.replica(1), changed, 0o600))
	}},
	{name: "no replica", kind: FindMetadataMissing, plant: func(b *bench) {
		for i := range 2 {
			b.must(os.WriteFile(b.replica(i), make([]byte, 1<<20), 0o600))
		}
	}},
	{name: "the configuration", kind: FindConfig, meta: func(v *vandal) { v.batch.Put(meta.Config, []byte(keyConfig), []byte{1, 200}) }},
	{name: "the numbers given out", kind: FindState, meta: func(v *vandal) { v.batch.Put(meta.Config, []byte(keyState), []byte{77}) }},
	{name: "a number that is used again", kind: FindCounter, meta: func(v *vandal) { v.setState(func(s *state) { s.nextEntry = 1 }) }},
	{name: "a chunk that means nothing", kind: FindChunk, meta: func(v *vandal) {
		v.batch.Put(meta.Chunks, key64(uint64(v.chunks()[1].Base)), []byte("nonsense"))
	}},
	{name: "chunks that share addresses", kind: FindChunkOverlap, meta: func(v *vandal) {
		c := *v.chunks()[0]
		c.Sectors += segmentUnits
		v.setChunk(c.Base, &c)
	}},
	{name: "chunks that share a device's bytes", kind: FindDeviceOverlap, meta: func(v *vandal) {
		a, b := v.chunks()[1], *v.chunks()[2]
		b.Columns = slices.Clone(a.Columns)
		v.setChunk(b.Base, &b)
	}, also: func(f Finding) bool { return f.Chunk == 3 && f.Offset != nil }},
	{name: "a chunk beyond its device", kind: FindChunkDevice, meta: func(v *vandal) {
		c := *v.chunks()[1]
		c.Columns = slices.Clone(c.Columns)
		c.Columns[0].Start = 1 << 40
		v.setChunk(c.Base, &c)
	}},
	{name: "a chunk on no device", kind: FindChunkDevice, meta: func(v *vandal) {
		c := *v.chunks()[1]
		c.Columns = slices.Clone(c.Columns)
		c.Columns[0].Device = 99
		v.setChunk(c.Base, &c)
	}},
	{name: "no intent log", kind: FindLogMissing, meta: func(v *vandal) {
		c := *v.chunks()[0]
		c.Class = format.Data
		v.setChunk(c.Base, &c)
	}},
	{name: "an entry of the catalogue", kind: FindVolumeEntry, meta: func(v *vandal) {
		v.batch.Put(meta.Volumes, key64(v.entry("other").id), []byte{1, 2, 3})
	}},
	{name: "a name that is taken", kind: FindVolumeName, meta: func(v *vandal) { v.setEntry("other", func(e *entry) { e.name = "vol" }) },
		also: func(f Finding) bool { return f.Volume == "vol" }},
	{name: "a name that is none", kind: FindVolumeName, meta: func(v *vandal) { v.setEntry("other", func(e *entry) { e.name = "a//b" }) }},
	{name: "a snapshot called as a volume", kind: FindVolumeName, meta: func(v *vandal) { v.setEntry("vol@snap", func(e *entry) { e.name = "snap" }) }},
	{name: "a volume that is its own origin", kind: FindVolumeOrigin, meta: func(v *vandal) { v.setEntry("other", func(e *entry) { e.origin = e.id }) }},
	{name: "a volume from the future", kind: FindVolumeState, meta: func(v *vandal) { v.setEntry("other", func(e *entry) { e.createdTxg = 5000 }) }},
	{name: "two volumes of one guid", kind: FindVolumeState, meta: func(v *vandal) {
		v.setEntry("other", func(e *entry) { e.guid = v.entry("vol").guid })
	}},
	{name: "a missing node", kind: FindNode, meta: func(v *vandal) {
		id, _ := v.leaf("other")
		v.batch.Delete(meta.Nodes, key64(uint64(id)))
	}, also: func(f Finding) bool { return f.Volume == "other" && f.Node != 0 }},
	{name: "a node that means nothing", kind: FindNode, meta: func(v *vandal) {
		id, _ := v.leaf("other")
		v.batch.Put(meta.Nodes, key64(uint64(id)), []byte("no node at all"))
	}},
	{name: "a node from the future", kind: FindNode, meta: func(v *vandal) {
		id, n := v.leaf("other")
		n = n.Clone()
		n.SetBirth(5000)
		v.batch.Put(meta.Nodes, key64(uint64(id)), n.Bytes())
	}},
	{name: "a leaf in another's place", kind: FindTree, meta: func(v *vandal) {
		root := v.node(v.entry("other").root)
		v.batch.Put(meta.Nodes, key64(uint64(root.Child(0))), v.node(root.Child(1)).Bytes())
	}, also: func(f Finding) bool { return f.Volume == "other" && f.Node != 0 }},
	{name: "a node of another level", kind: FindTree, meta: func(v *vandal) {
		e := v.entry("other")
		v.batch.Put(meta.Nodes, key64(uint64(v.node(e.root).Child(0))), v.node(e.root).Bytes())
	}},
	{name: "a record that means nothing", kind: FindRecord, meta: func(v *vandal) { v.put("other", recordKey(0), []byte("what")) },
		also: func(f Finding) bool { return f.Volume == "other" && f.Record != nil && *f.Record == 0 }},
	{name: "a record of another size", kind: FindRecord, meta: func(v *vandal) { v.setRecord("other", func(r *format.Record) { r.Size = 8 << 10 }) }},
	{name: "a packed record", kind: FindRecord, meta: func(v *vandal) { v.setRecord("other", func(r *format.Record) { r.Codec = format.Zstd }) }},
	{name: "an item in a volume", kind: FindRecord, meta: func(v *vandal) { v.putLast("other", []byte{0x90, 1, 2}, []byte("item")) },
		also: func(f Finding) bool { return f.Volume == "other" }},
	{name: "an item that could be a record in a volume", kind: FindRecordBeyond, meta: func(v *vandal) {
		rec := v.record("other")
		v.putLast("other", []byte{0x90, 1, 2, 3, 4, 5, 6, 7}, format.AppendRecord(nil, rec))
	}, also: func(f Finding) bool { return f.Volume == "other" }},
	{name: "a record longer than the dataset's", kind: FindRecord, meta: func(v *vandal) {
		v.setRecordOf("set", isPacked, func(r *format.Record) { r.Size = 32 << 10 })
	}, also: func(f Finding) bool { return f.Volume == "set" && f.Record != nil && *f.Record>>objectShift > 0 }},
	{name: "a packed record of a codec that is none", kind: FindRecord, meta: func(v *vandal) {
		v.setRecordOf("set", isPacked, func(r *format.Record) { r.Codec = 99 })
	}},
	{name: "a packed record that does not unpack", kind: FindDataPacked, meta: func(v *vandal) {
		v.setRecordOf("set", isPacked, func(r *format.Record) { v.repack(r, fill(3000, 5)) })
	}, also: func(f Finding) bool { return f.Volume == "set" && f.Record != nil && f.Address != 0 }},
	{name: "a packed record that unpacks to more than a record", kind: FindDataPacked, meta: func(v *vandal) {
		v.setRecordOf("set", isPacked, func(r *format.Record) {
			v.repack(r, CompressionLZ4.pack(make([]byte, 32<<10)))
		})
	}, also: func(f Finding) bool { return f.Volume == "set" }},
	{name: "a node of a dataset in a volume's tree", kind: FindRecord, meta: func(v *vandal) {
		v.setEntry("other", func(e *entry) { e.root = v.entry("set").root })
	}},
	{name: "objects counted wrong", kind: FindObjects, class: ClassLeaks, meta: func(v *vandal) { v.setEntry("set", func(e *entry) { e.objects += 3 }) },
		also: func(f Finding) bool { return f.Volume == "set" }},
	{name: "a dataset's bytes counted wrong", kind: FindReferenced, class: ClassLeaks, meta: func(v *vandal) { v.setEntry("set@snap", func(e *entry) { e.referenced = 1 }) },
		also: func(f Finding) bool { return f.Volume == "set@snap" }},
	{name: "a dataset charged wrong", kind: FindUsed, class: ClassLeaks, meta: func(v *vandal) { v.setEntry("set", func(e *entry) { e.used += 4096 }) },
		also: func(f Finding) bool { return f.Volume == "set" }},
	{name: "a node of a dataset", kind: FindNode, meta: func(v *vandal) {
		id, _ := v.leaf("set")
		v.batch.Put(meta.Nodes, key64(uint64(id)), []byte("no node at all"))
	}, also: func(f Finding) bool { return f.Volume == "set" }},
	{name: "a node of items", kind: FindNode, meta: func(v *vandal) {
		id, _ := v.lastLeaf("set")
		v.batch.Delete(meta.Nodes, key64(uint64(id)))
	}, also: func(f Finding) bool { return f.Volume == "set" }},
	{name: "the entry of a dataset", kind: FindVolumeEntry, meta: func(v *vandal) {
		v.batch.Put(meta.Volumes, key64(v.entry("set").id), []byte{1, 2, 3})
	}},
	{name: "a key that is none", kind: FindRecord, meta: func(v *vandal) { v.put("other", []byte{0, 0}, format.AppendRecord(nil, v.record("other"))) }},
	{name: "a record beyond the end", kind: FindRecordBeyond, meta: func(v *vandal) { v.setEntry("other", func(e *entry) { e.size = 512 << 10 }) },
		also: func(f Finding) bool { return f.Volume == "other" && *f.Record == 255 }},
	{name: "a record in no chunk", kind: FindRecordPlace, meta: func(v *vandal) { v.setRecord("other", func(r *format.Record) { r.Addr = 1 << 40 }) },
		also: func(f Finding) bool { return f.Address == 1<<40 && f.Volume == "other" }},
	{name: "a record in the log", kind: FindRecordPlace, meta: func(v *vandal) {
		v.setRecord("other", func(r *format.Record) { r.Addr = v.chunks()[0].Base })
	}},
	{name: "two records in one place", kind: FindRecordOverlap, meta: func(v *vandal) {
		v.setRecord("other", func(r *format.Record) { r.Addr = v.record("vol").Addr })
	}},
	{name: "a record from the future", kind: FindRecordFuture, meta: func(v *vandal) { v.setRecord("other", func(r *format.Record) { r.Birth = 5000 }) }},
	{name: "a destroyed tree", kind: FindDead, meta: func(v *vandal) { v.batch.Put(meta.Dead, key64(1), []byte{3}) }},
	{name: "a missing segment of sectors", kind: FindSegment, meta: func(v *vandal) {
		v.batch.Delete(meta.Space, key64(uint64(v.record("vol").Addr)/segmentUnits))
	}, also: func(f Finding) bool { return f.Chunk != 0 && f.Sectors == segmentUnits }},
	{name: "a segment of sectors", kind: FindSegment, meta: func(v *vandal) {
		v.batch.Put(meta.Space, key64(uint64(v.record("vol").Addr)/segmentUnits), []byte{1})
	}},
	{name: "a missing segment of nodes", kind: FindSegment, meta: func(v *vandal) { v.batch.Delete(meta.NodeMap, key64(0)) }},
	{name: "a segment of no chunk", kind: FindSegmentStray, class: ClassLeaks, meta: func(v *vandal) {
		v.batch.Put(meta.Space, key64(1<<30), make([]byte, 129))
		v.batch.Put(meta.Space, key64(1<<30), binary.AppendUvarint(append([]byte{1}, make([]byte, 128)...), 0)[:129])
	}},
	{name: "a node counted as free", kind: FindNodeFree, meta: func(v *vandal) {
		v.counts(meta.NodeMap, func(m *spacemap.Map) error { return release(m, uint64(v.entry("other").root), 1) })
	}, also: func(f Finding) bool { return f.Node != 0 }},
	{name: "a node counted too seldom", kind: FindNodeCountLow, meta: func(v *vandal) {
		id := v.node(v.entry("vol").root).Child(1) // the snapshot has it too
		v.counts(meta.NodeMap, func(m *spacemap.Map) error { return release(m, uint64(id), 1) })
	}},
	{name: "a node counted too often", kind: FindNodeCountHigh, class: ClassLeaks, meta: func(v *vandal) {
		v.counts(meta.NodeMap, func(m *spacemap.Map) error { return m.Retain(uint64(v.entry("vol").root)) })
	}},
	{name: "a node that nothing refers to", kind: FindNodeLeaked, class: ClassLeaks, meta: func(v *vandal) {
		v.setState(func(s *state) { s.nextNode = 500 })
		v.batch.Put(meta.Nodes, key64(500), v.node(v.entry("other").root).Bytes())
		v.counts(meta.NodeMap, func(m *spacemap.Map) error { return m.Set(500, 1) })
	}, also: func(f Finding) bool { return f.Node == 500 }},
	{name: "a node that nothing counts", kind: FindNodeStray, class: ClassLeaks, meta: func(v *vandal) {
		v.setState(func(s *state) { s.nextNode = 500 })
		v.batch.Put(meta.Nodes, key64(500), v.node(v.entry("other").root).Bytes())
	}, also: func(f Finding) bool { return f.Node == 500 }},
	{name: "sectors counted as free", kind: FindSectorsFree, meta: func(v *vandal) {
		v.counts(meta.Space, func(m *spacemap.Map) error { return release(m, uint64(v.record("vol").Addr), 1) })
	}, also: func(f Finding) bool { return f.Sectors == 1 && f.Device != "" && f.Offset != nil }},
	{name: "a record counted too seldom", kind: FindSectorsLow, meta: func(v *vandal) {
		_, n := v.leaf("vol") // the snapshot has another copy of it, with this record too
		rec, err := format.ParseRecord(n.Value(1))
		v.must(err)
		v.counts(meta.Space, func(m *spacemap.Map) error { return release(m, uint64(rec.Addr), 1) })
	}},
	{name: "a record counted too often", kind: FindSectorsHigh, class: ClassLeaks, meta: func(v *vandal) {
		v.counts(meta.Space, func(m *spacemap.Map) error { return m.Retain(uint64(v.record("other").Addr)) })
	}},
	{name: "sectors that nothing refers to", kind: FindSectorsLeaked, class: ClassLeaks, meta: func(v *vandal) {
		c := v.chunks()[1]
		v.counts(meta.Space, func(m *spacemap.Map) error {
			if err := m.Set(uint64(c.Base)+uint64(c.Sectors)-7, 5); err != nil {
				return err
			}
			return m.Retain(uint64(c.Base) + uint64(c.Sectors) - 7)
		})
	}, also: func(f Finding) bool { return f.Sectors == 1 || f.Sectors == 4 }},
	{name: "a volume charged wrong", kind: FindUsed, class: ClassLeaks, meta: func(v *vandal) { v.setEntry("vol", func(e *entry) { e.used += 4096 }) },
		also: func(f Finding) bool { return f.Volume == "vol" }},
	{name: "a volume's bytes counted wrong", kind: FindReferenced, class: ClassLeaks, meta: func(v *vandal) { v.setEntry("vol@snap", func(e *entry) { e.referenced = 1 }) },
		also: func(f Finding) bool { return f.Volume == "vol@snap" }},
	{name: "one copy of a record", kind: FindDataCopy, plant: func(b *bench) { b.scribbleRecord("other", 1) },
		also: func(f Finding) bool {
			return f.Severity == Degraded && f.Volume == "other" && f.Device != "" && f.Offset != nil
		}},
	{name: "every copy of a record", kind: FindDataLost, plant: func(b *bench) { b.scribbleRecord("other", 2) },
		also: func(f Finding) bool { return f.Volume == "other" && *f.Record == 0 && f.Offset != nil }},
}

// scribbleRecord damages so many copies of the first record of a volume.
func (b *bench) scribbleRecord(name string, copies int) {
	b.vandalize(func(v *vandal) {
		rec := v.record(name)
		for _, c := range v.chunks() {
			if rec.Addr < c.Base || rec.Addr >= c.Base+format.Addr(c.Sectors) {
				continue
			}
			for _, col := range c.Columns[:copies] {
				b.device(int(col.Device)-1).Scribble(1, col.Start+int64(rec.Addr-c.Base)*format.SectorSize, format.SectorSize)
			}
		}
	})
}

func TestPlantedDamageIsFoundAndNamed(t *testing.T) {
	seen := map[FindingKind]bool{}
	for _, d := range damages {
		seen[d.kind] = true
		t.Run(d.name, func(t *testing.T) {
			b := vandalized(t)
			b.clean(b.checkFile(CheckOptions{Data: true}))
			if d.meta != nil {
				b.vandalize(d.meta)
			} else {
				d.plant(b)
			}
			r := b.checkFile(CheckOptions{Data: true})
			class := d.class
			if class == "" {
				class = ClassDamage
			}
			if r.Class != class {
				t.Errorf("class %s, want %s", r.Class, class)
			}
			i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Kind == d.kind && (d.also == nil || d.also(f)) })
			if i < 0 {
				t.Errorf("it was not found, but %v", r.Findings)
			}
			for _, f := range r.Findings {
				if f.Text == "" || f.Repair == "" {
					t.Errorf("%+v says too little", f)
				}
				if class == ClassLeaks && f.Severity != Leak {
					t.Errorf("found as well: %v", f)
				}
			}
		})
	}
	for kind := range kinds {
		switch kind {
		case FindLogPending: // no damage: see TestCheckTellsWhatTheLogHas
		case FindValue: // see TestFlippedBitsOfAReplicaAreFound
		default:
			if !seen[kind] {
				t.Errorf("nothing plants %s", kind)
			}
		}
	}
}

func TestLeaksAreFreedAndNothingElse(t *testing.T) {
	for _, d := range damages {
		if d.class != ClassLeaks {
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			b := vandalized(t)
			before := b.checkFile(CheckOptions{})
			b.vandalize(d.meta)
			r := b.checkFile(CheckOptions{RepairLeaks: true})
			if r.Class != ClassLeaks || r.Counts[d.kind] == 0 {
				t.Fatalf("%v", r.Findings)
			}
			after := b.checkFile(CheckOptions{Data: true})
			b.clean(after)
			if after.Nodes != before.Nodes || after.Bytes != before.Bytes {
				t.Errorf("%d nodes and %d bytes, before %d and %d", after.Nodes, after.Bytes, before.Nodes, before.Bytes)
			}
			b.open()
			b.work(30, 5) // and what is free can be used
			b.clean(b.checked())
		})
	}
}

func TestFreedLeaksCanBeUsedAgainAtOnce(t *testing.T) {
	b := vandalized(t)
	b.vandalize(func(v *vandal) {
		c := v.chunks()[1]
		v.counts(meta.Space, func(m *spacemap.Map) error { return m.Set(uint64(c.Base)+uint64(c.Sectors)-100, 100) })
	})
	b.open()
	before := b.space.available(format.Data)
	r, err := b.Check(ctx, CheckOptions{RepairLeaks: true})
	b.must(err)
	b.must(b.Sync(ctx))
	if got := b.space.available(format.Data); r.FreedBytes != 100*format.SectorSize || got != before+100 {
		t.Errorf("%d bytes freed, %d sectors free, %d before", r.FreedBytes, got, before)
	}
}

func TestLeaksStayWhereSomethingIsDamaged(t *testing.T) {
	b := vandalized(t)
	b.vandalize(func(v *vandal) {
		v.setState(func(s *state) { s.nextNode = 500 })
		v.batch.Put(meta.Nodes, key64(500), v.node(v.entry("other").root).Bytes())
		v.setRecord("other", func(r *format.Record) { r.Addr = 1 << 40 })
	})
	if r := b.checkFile(CheckOptions{RepairLeaks: true}); r.Class != ClassDamage || r.FreedNodes != 0 {
		t.Errorf("%v", r.Findings)
	}
	if r := b.checkFile(CheckOptions{}); r.Counts[FindNodeStray] != 1 {
		t.Errorf("the stray node is gone: it may be what repair needs: %v", r.Findings)
	}
}

func TestCheckTellsWhatTheLogHas(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateVolume(ctx, "vol", 1<<20, VolumeOptions{}))
	v := b.volume("vol")
	for i := range 5 {
		if _, err := v.WriteAt([]byte("five changes"), int64(i)*100); err != nil {
			t.Fatal(err)
		}
	}
	b.Abandon()
	r := b.checkFile(CheckOptions{})
	if r.LogChanges != 5 || r.Counts[FindLogPending] != 1 || r.Class != ClassClean {
		t.Errorf("%d changes, %v", r.LogChanges, r.Findings)
	}
	b.open()
	b.clean(b.checked())
}

// TestFlippedBitsOfAReplicaAreFound flips bits of the only replica, anywhere and
// within values: a check says so or the bit was of no use, and it never crashes.
func TestFlippedBitsOfAReplicaAreFound(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.work(80, 4)
	_, err := b.Compact(ctx) // no value is left in a page that is free
	b.must(err)
	b.must(b.Close())
	good, err := os.ReadFile(b.replica(0))
	b.must(err)
	want := b.checkFile(CheckOptions{})
	var values []int // where they begin
	for at := range len(good) - 64 {
		if good[at] == 'L' && good[at+1] == 'm' && good[at+2] == 1 {
			values = append(values, at)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	found, named := 0, 0
	for i := range 90 {
		bad := slices.Clone(good)
		at := rng.IntN(len(bad))
		if i%3 > 0 {
			at = values[rng.IntN(len(values))] + rng.IntN(40)
		}
		bad[at] ^= 1 << rng.IntN(8)
		b.must(os.WriteFile(b.replica(0), bad, 0o600))
		r, err := Check(ctx, b.dir, CheckOptions{Storage: b.journal})
		if err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		if r.Class == ClassDamage {
			found++
			if r.Counts[FindValue]+r.Counts[FindNode] > 0 {
				named++
			}
		} else if r.Records != want.Records || r.Nodes != want.Nodes || r.Class != ClassClean {
			t.Errorf("byte %d: %d records and %d nodes, %d and %d were: %v", at, r.Records, r.Nodes, want.Records, want.Nodes, r.Findings)
		}
	}
	if found < 25 || named < 20 {
		t.Errorf("%d of 90 flips were found, %d with the value", found, named)
	}
	b.must(os.WriteFile(b.replica(0), good, 0o600))
	b.open()
	b.clean(b.checked())
}
