package blockpool

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
)

// grow gives a dataset objects of few records each, far apart, and so many items that
// one look cannot take in all of them; keys of many are alike in their first bytes.
func (b *bench) grow(name string, rng *rand.Rand, objects, items int) {
	b.Helper()
	tree := b.tree(name)
	defer tree.Close()
	batch := &Batch{}
	apply := func() {
		b.must(tree.Apply(ctx, batch))
		batch = &Batch{}
	}
	changed := map[uint64]bool{}
	for range objects {
		object := 1 + rng.Uint64N(MaxObject)>>rng.IntN(31)
		if object == 0 || object > MaxObject || changed[object] {
			continue
		}
		changed[object] = true
		batch.Write(object, rng.Int64N(30)<<12, fill(1+rng.IntN(9000), rng.Uint64()))
		if len(batch.Writes) == 80 {
			apply()
		}
	}
	apply()
	keys := map[string]bool{}
	for i := range items {
		key := fmt.Sprintf("\x90directory%d/%d", rng.IntN(3), rng.IntN(1<<20))
		if i%4 == 0 {
			key = string(itemKey(rng.Uint64()))
		}
		if keys[key] {
			continue
		}
		keys[key] = true
		batch.Put([]byte(key), fill(200+rng.IntN(500), rng.Uint64()))
		if len(batch.Items) == 1000 {
			apply()
		}
	}
	apply()
}

// What usage promises for a destroy of datasets is what the destroy brings back:
// records of all sizes, and nodes of items too.
func TestUsageOfDatasetsIsWhatDestroyingBringsBack(t *testing.T) {
	b := newBench(t, Config{}, 1, 256<<20)
	rng := rand.New(rand.NewPCG(4, 8))
	b.must(b.CreateDataset(ctx, "set", DatasetOptions{RecordSize: 4 << 10, Compression: CompressionLZ4}))
	b.grow("set", rng, 1500, 24_000)
	b.must(b.Snapshot(ctx, "set", "set@a"))
	b.grow("set", rng, 300, 500)
	b.must(b.Clone(ctx, "set@a", "clone"))
	b.changeTrees(30, 8)
	b.must(b.CreateVolume(ctx, "vol", 1<<20, VolumeOptions{}))
	if n := b.storedNodes(); n < 2*mostNodes {
		t.Fatalf("%d nodes are looked at in one step", n)
	}
	if d, _, err := b.wouldDrop(b.catalogue.all(), window{0, noEnd}); !errors.Is(err, errWide) {
		t.Errorf("one step may look at %d nodes: %v", d.visited, err)
	}
	for left := b.Volumes(); len(left) > 0; left = b.Volumes() {
		b.must(b.drain())
		rng.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
		var names []string
		for _, info := range left[:1+rng.IntN(min(3, len(left)))] {
			names = append(names, info.Name)
		}
		promised, err := b.UsageOf(ctx, names...)
		b.must(err)
		free, nodes := b.space.available(0), b.storedNodes()
		for _, name := range names {
			b.must(b.Destroy(ctx, name))
		}
		b.must(b.drain())
		if bytes, got := (b.space.available(0)-free)*format.SectorSize, nodes-b.storedNodes(); bytes != promised.Bytes || got != promised.Nodes {
			t.Fatalf("destroying %v brought back %d bytes and %d nodes, promised was %+v", names, bytes, got, promised)
		}
	}
}

// Who replaces a bad disk wants to know which files were on the bad sectors.
func TestRmapNamesObjectsOfDatasets(t *testing.T) {
	b := newBench(t, Config{DataProfile: RaidZ1}, 3, 64<<20)
	rng := rand.New(rand.NewPCG(5, 9))
	b.must(b.CreateDataset(ctx, "set", DatasetOptions{RecordSize: 16 << 10, Compression: CompressionLZ4}))
	b.must(b.CreateVolume(ctx, "vol", 1<<20, VolumeOptions{}))
	b.scribble("vol", rng)
	b.grow("set", rng, 300, 3000)
	b.must(b.Snapshot(ctx, "set", "set@a"))
	b.changeTrees(60, 3)
	b.must(b.Sync(ctx))
	type spot struct {
		name   string
		object uint64
		record uint64
	}
	all := map[spot]extent{}
	e := b.epochs.hold()
	for _, v := range b.catalogue.all() {
		en := v.entry.Load()
		b.must(btree.Scan(e, en.root, nil, []byte{ItemCounted}, func(key, value []byte) error {
			n, err := parseKey64(key)
			b.must(err)
			at := spot{en.name, 0, n}
			if en.holdsFiles() {
				at = spot{en.name, n >> objectShift, n & (1<<objectShift - 1)}
			}
			rec, err := format.ParseRecord(value)
			all[at] = b.space.extent(rec.Addr, int64(rec.Size))
			return err
		}))
	}
	e.release()
	for range 30 {
		c := b.space.all()[rng.IntN(len(b.space.all()))]
		at, n := c.Base+format.Addr(rng.Int64N(c.Sectors)), 1+rng.Int64N(300)
		want, got := map[spot]bool{}, map[spot]bool{}
		for p, x := range all {
			if x.at < at+format.Addr(n) && at < x.at+format.Addr(x.n) {
				want[p] = true
			}
		}
		b.must(b.Rmap(ctx, at, n, func(m Mapping) error {
			size := b.volumeInfo(m.Volume).RecordSize
			if m.Offset != int64(m.First)*size {
				t.Errorf("%+v, in records of %d", m, size)
			}
			for i := range m.Count {
				got[spot{m.Volume, m.Object, m.First + i}] = true
			}
			return nil
		}))
		if !maps.Equal(got, want) {
			t.Fatalf("%d sectors at %d: %v, want %v", n, at, got, want)
		}
	}
}

func TestDeltaOfDatasetsPointsToWhatTellsFiles(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateDataset(ctx, "set", DatasetOptions{}))
	b.must(b.CreateVolume(ctx, "vol", 1<<20, VolumeOptions{}))
	b.changeTrees(10, 1)
	b.must(b.Snapshot(ctx, "set", "set@a"))
	for _, c := range [][2]string{{"", "set"}, {"set@a", "set"}, {"set", "vol"}, {"vol", "set"}} {
		err := b.Delta(ctx, c[0], c[1], func(uint64, uint64, Change) error { return nil })
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "lamina dataset diff") {
			t.Errorf("from %q to %q: %v", c[0], c[1], err)
		}
	}
}
