package blockpool

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// A seenTree is what a dataset has: its items, and the sums of its records that are
// not zeros, by number.
type seenTree struct {
	recordSize int
	items      map[string]string
	records    map[uint64]uint64
}

func (s *seenTree) equal(o *seenTree) bool {
	return s == o || s != nil && o != nil && s.recordSize == o.recordSize && maps.Equal(s.items, o.items) && maps.Equal(s.records, o.records)
}

// explain tells what differs.
func (s *seenTree) explain(want *seenTree) (text string) {
	for key := range maps.Keys(s.items) {
		if s.items[key] != want.items[key] {
			text += fmt.Sprintf(" item %x differs", key)
		}
	}
	for n, sum := range s.records {
		if sum != want.records[n] {
			text += fmt.Sprintf(" record %d of object %d differs", n&(1<<objectShift-1), n>>objectShift)
		}
	}
	return text + fmt.Sprintf(" (%d items of %d, %d records of %d)", len(s.items), len(want.items), len(s.records), len(want.records))
}

// seeTree reads all of a dataset.
func seeTree(t *Tree) (*seenTree, error) {
	s := &seenTree{t.RecordSize(), map[string]string{}, map[uint64]uint64{}}
	err := t.Items([]byte{ItemCounted}, nil, func(key, value []byte) error {
		s.items[string(key)] = string(value)
		return nil
	})
	if err != nil {
		return nil, err
	}
	b := make([]byte, s.recordSize)
	for at, end := uint64(0), t.v.entry.Load().records(); at < end; {
		data, next, err := t.v.mapped(at, end)
		if err != nil {
			return nil, err
		}
		for _, x := range data {
			for n := x.first; n < x.end; n++ {
				if err := t.ReadObject(n>>objectShift, b, int64(n&(1<<objectShift-1))*int64(len(b))); err != nil {
					return nil, err
				}
				if !isZero(b) {
					s.records[n] = format.Sum(b)
				}
			}
		}
		at = next
	}
	return s, nil
}

// seen is what the model has, in records of that size.
func (m *treeModel) seen(size int) *seenTree {
	s := &seenTree{size, maps.Clone(m.items), map[uint64]uint64{}}
	b := make([]byte, size)
	for object, content := range m.objects {
		for at := 0; at < len(content); at += size {
			clear(b)
			if copy(b, content[at:]); !isZero(b) {
				s.records[object<<objectShift+uint64(at/size)] = format.Sum(b)
			}
		}
	}
	return s
}

// see reads all of a dataset or a snapshot of one.
func (b *bench) see(name string) *seenTree {
	b.Helper()
	t := b.tree(name)
	defer t.Close()
	s, err := seeTree(t)
	b.must(err)
	return s
}

// datasets reads all datasets and their snapshots.
func (b *bench) datasets() map[string]*seenTree {
	b.Helper()
	all := map[string]*seenTree{}
	for _, i := range b.Volumes() {
		if i.IsDataset() && !i.Receiving {
			all[i.Name] = b.see(i.Name)
		}
	}
	return all
}

// missing compares a dataset that lost some of its tree with what it was: each item
// and each record is right or gone. It returns how many are gone.
func (b *bench) missing(name string, want *seenTree) (n int) {
	b.Helper()
	is := b.see(name)
	for key, value := range is.items {
		if was, ok := want.items[key]; !ok || was != value {
			b.Errorf("%s: item %x is what it never was", name, key)
		}
	}
	for key, sum := range is.records {
		if was, ok := want.records[key]; !ok || was != sum {
			b.Errorf("%s: record %d of object %d is neither right nor zeros", name, key&(1<<objectShift-1), key>>objectShift)
		}
	}
	return len(want.items) - len(is.items) + len(want.records) - len(is.records)
}

func TestALostDatasetComesBackAsOne(t *testing.T) {
	for name, lose := range map[string]func(v *vandal){
		"its entry":     func(v *vandal) { v.batch.Put(meta.Volumes, key64(v.entry("set").id), []byte{9}) },
		"all entries":   func(v *vandal) { v.loseEntries("set", "set@snap", "clone") },
		"all its roots": func(v *vandal) { v.loseRoots("set", "set@snap", "clone") },
	} {
		t.Run(name, func(t *testing.T) {
			b := vandalized(t)
			b.open()
			want, objects := b.datasets(), b.volumeInfo("set").Objects
			b.must(b.Close())
			b.vandalize(lose)
			p, err := b.repaired(RepairOptions{Source: RepairNewest})
			b.must(err)
			found := false
			for _, v := range p.Volumes {
				if !v.Lost {
					continue
				}
				if v.Kind != "dataset" {
					t.Errorf("%s came back as a %s", v.Name, v.Kind)
					continue
				}
				found = found || b.see(v.Name).equal(want["set"]) && b.volumeInfo(v.Name).Objects == objects
			}
			if !found {
				t.Errorf("nothing that came back is what set was: %+v, %q", p.Volumes, p.Losses)
			}
			b.clean(b.checked())
			for _, v := range p.Volumes {
				if v.Lost { // and it can be used
					tree := b.tree(v.Name)
					b.must(tree.Apply(ctx, &Batch{Writes: []ObjectWrite{{5, 0, []byte("again")}}, Items: []ItemChange{{itemKey(999), []byte("x")}}}))
					b.must(tree.Close())
				}
			}
			b.clean(b.checked())
		})
	}
}

// loseEntries breaks entries of the catalogue.
func (v *vandal) loseEntries(names ...string) {
	for _, name := range names {
		v.batch.Put(meta.Volumes, key64(v.entry(name).id), []byte{9})
	}
}

// loseRoots removes the roots of trees.
func (v *vandal) loseRoots(names ...string) {
	for _, name := range names {
		v.batch.Delete(meta.Nodes, key64(uint64(v.entry(name).root)))
	}
}

func TestADumpBringsDatasetsBack(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateDataset(ctx, "set", DatasetOptions{RecordSize: 8 << 10, Compression: CompressionZstd, Quota: 40 << 20}))
	b.changeTrees(120, 5)
	want, dump := b.datasets(), b.dump()
	infos := b.Volumes()
	b.loseMetadata()
	b.restore(b.dir, dump, RestoreOptions{})
	for name, seen := range b.datasets() {
		if !seen.equal(want[name]) {
			t.Errorf("%s is not what it was", name)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("%d datasets and snapshots are gone", len(want))
	}
	for i, info := range b.Volumes() {
		if was := infos[i]; info.Objects != was.Objects || info.Compression != was.Compression || info.Referenced != was.Referenced || info.Used != was.Used || info.Quota != was.Quota {
			t.Errorf("%+v, was %+v", info, was)
		}
	}
	if again := b.dump(); trees(again) != trees(dump) {
		t.Error("the trees are not the same")
	}
	b.changeTrees(30, 6)
	b.clean(b.checked())
}

// changeTrees applies batches at random to datasets, takes snapshots and clones of
// them and destroys some.
func (b *bench) changeTrees(steps int, seed uint64) {
	b.Helper()
	rng := rand.New(rand.NewPCG(seed, 13))
	for i := range steps {
		var all, sets []string
		for _, v := range b.Volumes() {
			if v.IsDataset() && !v.Receiving {
				all = append(all, v.Name)
				if !strings.Contains(v.Name, "@") {
					sets = append(sets, v.Name)
				}
			}
		}
		set, any := sets[rng.IntN(len(sets))], all[rng.IntN(len(all))]
		switch op := rng.IntN(20); {
		case op == 0 && len(all) < 9:
			b.must(b.Snapshot(ctx, set, fmt.Sprintf("%s@%d-%d", set, seed, i)))
		case op == 1 && len(all) < 9:
			b.must(b.Clone(ctx, any, fmt.Sprintf("clone%d-%d", seed, i)))
		case op == 2 && len(all) > 6 && any != "set":
			b.must(b.Destroy(ctx, any))
		case op == 3:
			b.must(b.Sync(ctx))
		default:
			tree := b.tree(set)
			b.must(tree.Apply(ctx, randomBatch(rng, tree.RecordSize())))
			b.must(tree.Close())
		}
	}
}

// TestADumpOfVersion2IsUnderstood is TestADumpOfVersion1IsUnderstood with datasets.
func TestADumpOfVersion2IsUnderstood(t *testing.T) {
	const path = "testdata/dump-v2.txt"
	if *update {
		b := &bench{TB: t, journal: memdev.NewUnrecorded(), dir: t.TempDir()}
		b.must(Create(CreateOptions{
			Config: Config{Name: "golden"}, Storage: b.journal,
			Metadata: []string{b.replica(0)}, Devices: []DeviceSpec{{Path: "/golden/disk", Size: 64 << 20}},
		}))
		b.opts = OpenOptions{Storage: b.journal, Tunables: Tunables{TxgInterval: time.Hour}}
		b.open()
		b.must(b.CreateDataset(ctx, "set", DatasetOptions{RecordSize: 8 << 10, Compression: CompressionLZ4}))
		b.changeTrees(60, 2)
		b.must(os.WriteFile(path, []byte(b.dump()), 0o644))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden := string(text)
	b := &bench{TB: t, journal: hostOf(t, golden), dir: tempDir(t)}
	b.opts = OpenOptions{Storage: b.journal, Tunables: Tunables{TxgInterval: time.Hour}}
	b.restore(b.dir, golden, RestoreOptions{Metadata: []string{b.replica(0)}, Force: true})
	defer b.Abandon()
	if again := b.dump(); trees(again) != trees(golden) {
		t.Errorf("it was read as\n%s", again)
	}
	if i, err := b.Volume("set"); err != nil || !i.IsDataset() || i.Objects == 0 || i.Compression != "lz4" {
		t.Errorf("%+v, %v", i, err)
	}
}

func TestAnItemThatCannotBeIsRefusedInADump(t *testing.T) {
	text, err := os.ReadFile("testdata/dump-v2.txt")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"the key of a record": {"item key=8", "item key=7"},
		"no key":              {"item key=80", "item value=80"},
		"an item in a volume": {" content=objects", ""},
		"a codec":             {" codec=2", " codec=9"},
	} {
		bad := strings.Replace(string(text), change[0], change[1], 1)
		if bad == string(text) {
			t.Fatalf("%s: the dump has no %q", name, change[0])
		}
		lines := strings.SplitAfter(bad, "\n")
		lines = lines[:len(lines)-2]
		body := strings.Join(lines, "")
		end := dumpEnd{uint64(len(lines)), xxhash.Sum64String(body)}
		bad = string(appendLine([]byte(body), "end", endAttrs(&end)))
		dir := tempDir(t)
		err := Restore(ctx, dir, strings.NewReader(bad), RestoreOptions{Storage: hostOf(t, bad), Force: true, Metadata: []string{filepath.Join(dir, "meta.db")}})
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestThinToolsRefuseDatasetsByName(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateDataset(ctx, "set", DatasetOptions{RecordSize: thinBlock}))
	b.must(b.CreateVolume(ctx, "vol", 1<<20, VolumeOptions{RecordSize: thinBlock}))
	b.changeTrees(10, 1)
	b.must(b.Sync(ctx))
	_, err := b.DumpThin(ctx, io.Discard, nil, "vol", "set")
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "set is a dataset") {
		t.Errorf("%v", err)
	}
	devices, err := b.DumpThin(ctx, io.Discard, nil)
	if err != nil || len(devices) != 1 || devices[0].Name != "vol" {
		t.Errorf("%v, %v", devices, err)
	}
}

// A lamina that knows no datasets takes their entries for damage, and its repair would
// throw them away: it must be kept from opening the pool at all.
func TestAPoolWithDatasetsSaysSo(t *testing.T) {
	for name, change := range map[string]func(b *bench){
		"a dataset": func(b *bench) { b.must(b.CreateDataset(ctx, "set", DatasetOptions{})) },
		"a received one": func(b *bench) {
			a := newBench(t, Config{}, 1, 64<<20)
			a.must(a.CreateDataset(ctx, "set", DatasetOptions{}))
			a.must(a.Snapshot(ctx, "set", "set@1"))
			_, err := b.Receive(ctx, strings.NewReader(string(a.sent("", "set@1"))), "got", ReceiveOptions{})
			b.must(err)
		},
		"a property of a volume": func(b *bench) {
			b.must(b.SetProperties(ctx, "vol", map[string]string{"ours:colour": "blue"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, Config{}, 1, 64<<20)
			b.must(b.CreateVolume(ctx, "vol", 1<<20, VolumeOptions{}))
			b.must(b.Sync(ctx))
			if b.Config().datasets || !strings.HasPrefix(b.dump(), "lamina-dump version=1\n") {
				t.Error("it has the feature before it needs it")
			}
			change(b)
			b.must(b.SetConfig(ctx, func(c *Config) { *c = Config{Name: c.Name, ChunkSize: c.ChunkSize, LowWater: 7} }))
			b.reopen()
			e := b.epochs.hold()
			value, err := e.view.Get(meta.Config, []byte(keyConfig))
			e.release()
			if b.must(err); !strings.Contains(string(value), featureDatasets) || b.Config().LowWater != 7 {
				t.Errorf("the configuration says nothing: %q", value)
			}
			b.clean(b.checked())
		})
	}
	b := vandalized(t)
	b.vandalize(func(v *vandal) { v.batch.Put(meta.Config, []byte(keyConfig), []byte{1, 200}) })
	_, err := b.repaired(RepairOptions{})
	if b.must(err); !b.Config().datasets {
		t.Error("a repair has forgotten it")
	}
}

// What is changed together in one transaction group is changed by all.
func TestTwoChangesOfTheConfigurationAtOnceAreBothKept(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	var wg sync.WaitGroup
	var errs [20]error
	for i := range errs {
		wg.Go(func() {
			errs[i] = b.SetConfig(ctx, func(c *Config) { c.MinFree += i % 2; c.LowWater += (i + 1) % 2 })
		})
	}
	wg.Wait()
	b.must(errors.Join(errs[:]...))
	if c := b.Config(); c.MinFree != 10 || c.LowWater != 10+10 {
		t.Errorf("%+v", c)
	}
}
