package blockpool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// A treeModel is a dataset as it must be.
type treeModel struct {
	items   map[string]string
	objects map[uint64][]byte
}

func newTreeModel() *treeModel {
	return &treeModel{map[string]string{}, map[uint64][]byte{}}
}

func (m *treeModel) clone() *treeModel {
	c := newTreeModel()
	maps.Copy(c.items, m.items)
	for o, b := range m.objects {
		c.objects[o] = bytes.Clone(b)
	}
	return c
}

// apply does to the model what a batch does.
func (m *treeModel) apply(b *Batch) {
	for _, i := range b.Items {
		if i.Value == nil {
			delete(m.items, string(i.Key))
		} else {
			m.items[string(i.Key)] = string(i.Value)
		}
	}
	for _, w := range b.Writes {
		m.reach(w.Object, int(w.Offset)+len(w.Data))
		copy(m.objects[w.Object][w.Offset:], w.Data)
	}
	for _, z := range b.Zeros {
		o := m.objects[z.Object]
		end := len(o)
		if z.Length != ToEnd {
			end = min(end, int(z.Offset+z.Length))
		}
		if int(z.Offset) < end {
			clear(o[z.Offset:end])
		}
	}
}

func (m *treeModel) reach(object uint64, n int) {
	if o := m.objects[object]; len(o) < n {
		m.objects[object] = append(o, make([]byte, n-len(o))...)
	}
}

// same compares a dataset with the model.
func (m *treeModel) same(b *bench, t *Tree) {
	b.Helper()
	got := map[string]string{}
	last := ""
	b.must(t.Items([]byte{ItemCounted}, nil, func(key, value []byte) error {
		if string(key) <= last {
			b.Fatalf("%s: item %x after %x", t.Name(), key, last)
		}
		last = string(key)
		got[last] = string(value)
		return nil
	}))
	if !maps.Equal(got, m.items) {
		b.Fatalf("%s: %d items, want %d", t.Name(), len(got), len(m.items))
	}
	for key, want := range m.items {
		if value, err := t.Item([]byte(key)); err != nil || string(value) != want {
			b.Fatalf("%s: item %x is %q, %v, want %q", t.Name(), key, value, err, want)
		}
	}
	for object, want := range m.objects {
		have := make([]byte, len(want)+9999)
		b.must(t.ReadObject(object, have, 0))
		if i := firstDifference(have, append(bytes.Clone(want), make([]byte, 9999)...)); i >= 0 {
			b.Fatalf("%s: object %d differs at %d of %d", t.Name(), object, i, len(want))
		}
		mapped := spans{}
		for from := uint64(0); ; {
			first, end, err := t.NextRecords(object, from)
			b.must(err)
			if first == end {
				break
			}
			mapped.add(first, end)
			from = end
		}
		size := t.RecordSize()
		for at := 0; at < len(want); at += size {
			if !mapped.has(uint64(at/size)) && !isZero(want[at:min(at+size, len(want))]) {
				b.Fatalf("%s: object %d has no record at %d", t.Name(), object, at)
			}
		}
	}
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

func (b *bench) tree(name string) *Tree {
	b.Helper()
	t, err := b.OpenTree(name)
	b.must(err)
	b.Cleanup(func() { t.Close() })
	return t
}

func itemKey(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{ItemCounted}, n) }

// randomBatch returns a batch of a few changes.
func randomBatch(rng *rand.Rand, size int) *Batch {
	b := &Batch{Frees: rng.IntN(8) == 0}
	keys := map[uint64]bool{}
	for range rng.IntN(4) {
		n := rng.Uint64N(40)
		if keys[n] {
			continue
		}
		keys[n] = true
		key := itemKey(n)
		key[0] += byte(n % 3)
		if rng.IntN(3) == 0 {
			b.Delete(key)
		} else {
			b.Put(key, fill(rng.IntN(MaxItemValue+1), rng.Uint64()))
		}
	}
	for object := uint64(1); object < 4; object++ {
		off := rng.Int64N(int64(4 * size))
		switch rng.IntN(6) {
		case 0:
			n := 1 + rng.IntN(3*size)
			data := fill(n, rng.Uint64())
			if rng.IntN(2) == 0 { // what packs well
				copy(data, bytes.Repeat([]byte("abcdefgh"), n/8))
			}
			if rng.IntN(3) == 0 {
				clear(data[n/2:])
			}
			b.Write(object, off, data)
		case 1:
			b.Write(object, off, fill(1+rng.IntN(300), rng.Uint64()))
		case 2:
			b.Zero(object, off, rng.Int64N(int64(2*size)))
		case 3:
			if rng.IntN(3) == 0 {
				b.Zero(object, off, ToEnd)
			}
		}
	}
	return b
}

// TestDatasetsAreWhatTheModelSays applies batches at random, with everything that
// happens to a pool in between, and compares items and objects of the dataset, its
// snapshots and clones. LAMINA_TREE_OPS operations for each of LAMINA_TREE_SEEDS seeds.
func TestDatasetsAreWhatTheModelSays(t *testing.T) {
	t.Parallel()
	ops, seeds := fromEnv("LAMINA_TREE_OPS", 400), fromEnv("LAMINA_TREE_SEEDS", 8)
	for seed := range seeds {
		profile := modelProfiles[seed%len(modelProfiles)]
		t.Run(fmt.Sprintf("seed %d, %v", seed, profile.Profile), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 17))
			b := newModelBench(t, profile.Profile, profile.devices, profile.meta, rng)
			compression := []Compression{CompressionOff, CompressionLZ4, CompressionZstd}[rng.IntN(3)]
			b.must(b.CreateDataset(ctx, "set", DatasetOptions{RecordSize: 4 << (10 + rng.IntN(6)), Compression: compression}))
			live := map[string]*treeModel{"set": newTreeModel()} // datasets and snapshots
			for i := range ops {
				names := slices.Sorted(maps.Keys(live))
				name := names[rng.IntN(len(names))]
				volume, snap, _ := splitSnapshot(name)
				switch op := rng.IntN(60); {
				case op == 0:
					b.reopen()
				case op < 3:
					b.crash()
				case op < 5:
					b.must(b.Sync(ctx))
				case op == 5:
					b.must(b.recount()) // before an opening counts free sectors anew
				case op == 6 && len(live) < 8:
					to := fmt.Sprintf("%s@s%d", volume, i)
					if live[volume] != nil {
						b.must(b.Snapshot(ctx, name, to))
						live[to] = live[name].clone()
					}
				case op == 7 && len(live) < 8:
					to := fmt.Sprintf("clone%d", i)
					b.must(b.Clone(ctx, name, to))
					live[to] = live[name].clone()
				case op == 8 && snap != "" && live[volume] != nil:
					b.must(b.Rollback(ctx, name))
					live[volume] = live[name].clone()
				case op == 9 && len(live) > 3 && (snap != "" || len(names) > 1):
					if snap == "" && len(slices.DeleteFunc(names, func(n string) bool { return n == name || n[0] == 's' && n != "set" })) == 0 {
						continue
					}
					b.must(b.Destroy(ctx, name))
					delete(live, name)
				case op < 14:
					tree := b.tree(name)
					live[name].same(b, tree)
					b.must(tree.Close())
				case op < 17 && snap == "":
					// Shares records with whatever else there is.
					from := names[rng.IntN(len(names))]
					if b.volumeInfo(from).RecordSize != b.volumeInfo(name).RecordSize {
						continue
					}
					b.shareAtRandom(rng, name, from, live)
				case snap == "":
					tree := b.tree(name)
					batch := randomBatch(rng, tree.RecordSize())
					b.must(tree.Apply(ctx, batch))
					live[name].apply(batch)
					b.must(tree.Close())
				default:
					tree := b.tree(name)
					if err := tree.Apply(ctx, randomBatch(rng, tree.RecordSize())); !errors.Is(err, ErrReadOnly) {
						t.Fatalf("a snapshot was changed: %v", err)
					}
					b.must(tree.Close())
				}
			}
			for range 2 {
				for name, m := range live {
					tree := b.tree(name)
					m.same(b, tree)
					b.must(tree.Close())
				}
				b.reopen()
			}
			for name, m := range live {
				counted := 0
				for key := range m.items {
					if key[0] == ItemCounted {
						counted++
					}
				}
				tree := b.tree(name)
				if got := tree.Objects(); got != uint64(counted) {
					t.Errorf("%s: %d objects, want %d", name, got, counted)
				}
				b.must(tree.Close())
			}
			b.clean(b.checked())
			b.must(b.recount())
		})
	}
}

func (b *bench) volumeInfo(name string) VolumeInfo {
	b.Helper()
	i, err := b.Volume(name)
	b.must(err)
	return i
}

// shareAtRandom shares records of an object of from with one of to.
func (b *bench) shareAtRandom(rng *rand.Rand, to, from string, live map[string]*treeModel) {
	b.Helper()
	dst, src := b.tree(to), b.tree(from)
	defer dst.Close()
	defer src.Close()
	size := uint64(dst.RecordSize())
	s := Share{SrcObject: 1 + rng.Uint64N(3), Src: rng.Uint64N(4), DstObject: 1 + rng.Uint64N(3), Dst: rng.Uint64N(4), N: rng.Uint64N(5)}
	batch := &Batch{}
	batch.Put(itemKey(99), fill(10, rng.Uint64()))
	b.must(dst.ShareRecords(ctx, batch, src, s))
	live[to].share(live[from], s, size)
	live[to].apply(batch)
}

// share does to the model what sharing records of that size does.
func (m *treeModel) share(from *treeModel, s Share, size uint64) {
	content := make([]byte, s.N*size)
	if o := from.objects[s.SrcObject]; uint64(len(o)) > s.Src*size {
		copy(content, o[s.Src*size:])
	}
	m.reach(s.DstObject, int((s.Dst+s.N)*size))
	copy(m.objects[s.DstObject][s.Dst*size:], content)
}

func TestABatchThatCannotBeChangesNothing(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateDataset(ctx, "set", DatasetOptions{RecordSize: 16 << 10, Refquota: 1 << 20}))
	tree := b.tree("set")
	for name, batch := range map[string]*Batch{
		"object 0":         {Writes: []ObjectWrite{{0, 0, []byte("x")}}},
		"object too high":  {Writes: []ObjectWrite{{MaxObject + 1, 0, []byte("x")}}},
		"negative offset":  {Writes: []ObjectWrite{{1, -1, []byte("x")}}},
		"offset too high":  {Writes: []ObjectWrite{{1, 16 << 42, []byte("x")}}},
		"key of a record":  {Items: []ItemChange{{make([]byte, 8), []byte("x")}}},
		"no key":           {Items: []ItemChange{{nil, []byte("x")}}},
		"long key":         {Items: []ItemChange{{bytes.Repeat([]byte{0x90}, MaxItemKey+1), []byte("x")}}},
		"long value":       {Items: []ItemChange{{itemKey(1), make([]byte, MaxItemValue+1)}}},
		"record twice":     {Writes: []ObjectWrite{{1, 0, []byte("x")}, {1, 5, []byte("y")}}},
		"write and zeros":  {Writes: []ObjectWrite{{1, 0, []byte("x")}}, Zeros: []ObjectRange{{1, 0, ToEnd}}},
		"negative zeros":   {Zeros: []ObjectRange{{1, 0, -2}}},
		"too much at once": {Items: manyItems(1100)},
		"beyond the quota": {Items: []ItemChange{{itemKey(1), []byte("x")}}, Writes: []ObjectWrite{{1, 0, fill(2<<20, 1)}}},
	} {
		err := tree.Apply(ctx, batch)
		if want := map[bool]error{true: ErrQuota, false: ErrInvalid}[name == "beyond the quota"]; !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	newTreeModel().same(b, tree)
	b.must(b.Sync(ctx))
	if n := tree.v.pending.Load(); n != 0 {
		t.Errorf("%d bytes are still admitted", n)
	}
	b.must(tree.Close())
	b.reopen()
	newTreeModel().same(b, b.tree("set"))
}

// TestTheLastObjectEndsBeforeTheShortestItem: what is done to all of the object with
// the highest number has nothing to do with items, whose keys may be short.
func TestTheLastObjectEndsBeforeTheShortestItem(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateDataset(ctx, "set", DatasetOptions{RecordSize: 4 << 10}))
	tree, m := b.tree("set"), newTreeModel()
	batch := &Batch{}
	for _, key := range []string{"\x80", "\x80\x00", "\x80\x00\x00\x00\x00\x00\x00"} {
		batch.Put([]byte(key), []byte("item "+key))
	}
	last := tree.MaxObjectSize() - 4<<10
	batch.Write(MaxObject, 0, []byte("first"))
	batch.Write(MaxObject, last, []byte("last"))
	b.must(tree.Apply(ctx, batch))
	m.apply(&Batch{Items: batch.Items})
	b.must(b.Sync(ctx))
	if first, end, err := tree.NextRecords(MaxObject, 1); err != nil || first != 1<<objectShift-1 || end != 1<<objectShift {
		t.Errorf("records %d to %d, %v", first, end, err)
	}
	b.must(tree.Apply(ctx, &Batch{Zeros: []ObjectRange{{MaxObject, 0, ToEnd}}}))
	b.must(b.Sync(ctx))
	if first, end, err := tree.NextRecords(MaxObject, 0); err != nil || first != end {
		t.Errorf("records %d to %d, %v", first, end, err)
	}
	m.same(b, tree)
	b.must(tree.Close())
	b.clean(b.checked())
}

// manyItems returns so many items of a KiB.
func manyItems(n int) (list []ItemChange) {
	for i := range n {
		list = append(list, ItemChange{itemKey(uint64(i)), make([]byte, MaxItemValue)})
	}
	return list
}

func TestWhatWasAppliedSurvivesAKillAndWhatWasFlushedALossOfPower(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateDataset(ctx, "set", DatasetOptions{RecordSize: 64 << 10, Compression: CompressionLZ4}))
	m := newTreeModel()
	rng := rand.New(rand.NewPCG(3, 3))
	for range 20 {
		tree := b.tree("set")
		for range 10 {
			batch := randomBatch(rng, tree.RecordSize())
			b.must(tree.Apply(ctx, batch))
			m.apply(batch)
		}
		b.must(tree.Flush(ctx))
		b.must(tree.Close())
		b.crash()
		m.same(b, b.tree("set"))
	}
}

// TestReadersSeeABatchWholeOrNotAtAll has one goroutine change an item and a record
// together, and others look at both.
func TestReadersSeeABatchWholeOrNotAtAll(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateDataset(ctx, "set", DatasetOptions{RecordSize: 4 << 10}))
	tree := b.tree("set")
	keys := [][]byte{itemKey(1), itemKey(1 << 40), {0xff, 1}}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	for range 2 {
		go func() {
			for ctx.Err() == nil {
				var seen []string
				err := tree.Items([]byte{ItemCounted}, nil, func(_, value []byte) error {
					seen = append(seen, string(value))
					return nil
				})
				if err == nil && len(slices.Compact(slices.Clone(seen))) > 1 {
					err = fmt.Errorf("saw %q", seen)
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for i := range 3000 {
		batch := &Batch{}
		for _, key := range keys {
			batch.Put(key, fmt.Append(nil, i))
		}
		b.must(tree.Apply(ctx, batch))
		if i%200 == 0 {
			b.must(b.Sync(ctx))
		}
	}
	stop()
	for range 2 {
		b.must(<-done)
	}
}
