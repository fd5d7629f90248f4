package blockpool

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// dump returns the dump of a pool, everything in it.
func (b *bench) dump() string {
	b.Helper()
	b.must(b.Sync(ctx))
	var text bytes.Buffer
	b.must(b.Dump(ctx, &text))
	return text.String()
}

// trees returns a dump without what differs from one opening to the next.
func trees(dump string) string {
	return regexp.MustCompile(`(?m)^(pool|end) .*\n`).ReplaceAllString(dump, "")
}

// contents reads all volumes.
func (b *bench) contents() map[string][]byte {
	b.Helper()
	all := map[string][]byte{}
	for _, i := range b.Volumes() {
		if !i.IsDataset() {
			all[i.Name] = b.content(i.Name)
		}
	}
	return all
}

// loseMetadata closes the pool and removes every replica.
func (b *bench) loseMetadata() {
	b.Helper()
	b.must(b.Close())
	found, err := filepath.Glob(filepath.Join(b.dir, "meta-*.db"))
	b.must(err)
	for _, path := range found {
		b.must(os.Remove(path))
	}
}

// restore builds the metadata anew and opens the pool.
func (b *bench) restore(path, dump string, o RestoreOptions) {
	b.Helper()
	o.Storage = b.journal
	b.must(Restore(ctx, path, strings.NewReader(dump), o))
	b.open()
}

func TestADumpBringsBackAPoolThatLostItsMetadata(t *testing.T) {
	for i, p := range checkProfiles {
		t.Run(fmt.Sprintf("%v-%d", p.data, p.devices), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, Config{DataProfile: p.data, MetadataProfile: p.metadata}, p.devices, 128<<20)
			for round := range uint64(2) {
				b.work(150, round+10*uint64(i))
				dump, want, free := b.dump(), b.contents(), b.space.available(0)
				replicas := len(b.replicaPaths())
				b.loseMetadata()
				path := b.device(0).Path()
				if round > 0 {
					path = b.dir
				}
				b.restore(path, dump, RestoreOptions{})
				got := b.contents()
				if !reflect.DeepEqual(got, want) {
					t.Fatal("contents differ")
				}
				if again := b.dump(); trees(again) != trees(dump) {
					t.Error("the trees are not the same")
				}
				if n := b.space.available(0); n != free {
					t.Errorf("%d sectors are free, %d were", n, free)
				}
				if n := len(b.replicaPaths()); n != replicas {
					t.Errorf("%d replicas, %d were", n, replicas)
				}
				b.clean(b.checked())
			}
		})
	}
}

func TestSharedNodesAndRecordsAreDumpedOnce(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateVolume(ctx, "vol", 1<<20, VolumeOptions{RecordSize: 4 << 10}))
	v := b.volume("vol")
	_, err := v.WriteAt(fill(1<<20, 1), 0)
	b.must(err)
	b.must(b.Snapshot(ctx, "vol", "vol@a"))
	one := b.dump()
	for i := range 20 {
		b.must(b.Snapshot(ctx, "vol", fmt.Sprintf("vol@s%d", i)))
	}
	if many := b.dump(); strings.Count(many, "\nrecord ") != 256 || strings.Count(many, "\nleaf ") != strings.Count(one, "\nleaf ") {
		t.Errorf("%d records and %d leaves", strings.Count(many, "\nrecord "), strings.Count(many, "\nleaf "))
	}
	_, err = v.WriteAt(fill(4<<10, 2), 0) // its leaf is copied, and the others of its records are shared
	b.must(err)
	b.must(v.Close())
	dump := b.dump()
	shared, again := strings.Count(dump, "\nshared "), strings.Count(dump, "\nagain ")
	if shared == 0 || shared != again || shared+strings.Count(dump, "\nrecord ") != 257 {
		t.Errorf("%d shared, %d again, %d others", shared, again, strings.Count(dump, "\nrecord "))
	}
}

// TestABrokenDumpIsRefusedAndNothingIsLeft changes a dump in every way that a file
// goes bad.
func TestABrokenDumpIsRefusedAndNothingIsLeft(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.work(60, 2)
	dump := b.dump()
	b.loseMetadata()
	rng := rand.New(rand.NewPCG(1, 1))
	broken := []string{
		"", "lamina-dump version=1\n", strings.Replace(dump, "version=1", "version=0", 1),
		strings.Replace(dump, "\nvolume ", "\nvolume id=9 ", 1), dump[strings.Index(dump, "\n")+1:],
	}
	for range 60 {
		at := rng.IntN(len(dump) - 1)
		broken = append(broken, dump[:at], dump[:at]+string(dump[at]^1<<rng.IntN(7))+dump[at+1:])
	}
	for i, text := range broken {
		err := Restore(ctx, b.dir, strings.NewReader(text), RestoreOptions{Storage: b.journal, Force: true})
		if err == nil {
			t.Fatalf("dump %d was taken", i)
		}
		if left, err := filepath.Glob(filepath.Join(b.dir, "*")); err != nil || len(left) > 0 {
			t.Fatalf("dump %d: left are %v, %v", i, left, err)
		}
	}
	if err := Restore(ctx, b.dir, strings.NewReader("lamina-dump version=7\n"), RestoreOptions{Storage: b.journal}); !errors.Is(err, ErrNewer) {
		t.Errorf("a dump of a later version: %v", err)
	}
	b.restore(b.dir, dump, RestoreOptions{})
}

func TestADumpThatIsTooOldNeedsForce(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.work(60, 2)
	want, dump := b.contents(), b.dump()
	b.must(b.CreateVolume(ctx, "later", 1<<20, VolumeOptions{}))
	v := b.volume("later")
	_, err := v.WriteAt(fill(100_000, 1), 0)
	b.must(err)
	b.must(v.Close())
	if err := Restore(ctx, b.dir, strings.NewReader(dump), RestoreOptions{Storage: b.journal}); err == nil {
		t.Error("restored over a pool that is open")
	}
	b.must(b.Close())
	if err := Restore(ctx, b.dir, strings.NewReader(dump), RestoreOptions{Storage: b.journal}); !errors.Is(err, ErrExists) {
		t.Errorf("restored over metadata: %v", err)
	}
	b.open()
	b.loseMetadata()
	if err := Restore(ctx, b.dir, strings.NewReader(dump), RestoreOptions{Storage: b.journal}); !errors.Is(err, ErrExists) {
		t.Errorf("the dump lacks a volume: %v", err)
	}
	b.restore(b.dir, dump, RestoreOptions{Force: true})
	if got := b.contents(); !reflect.DeepEqual(got, want) {
		t.Error("contents differ") // the volume made later took space that was free
	}
	b.clean(b.checked())
}

func TestRestoreWithForceKeepsWhatWasThere(t *testing.T) {
	b := newBench(t, Config{MetadataProfile: Mirror}, 1, 64<<20)
	b.work(30, 2)
	dump := b.dump()
	b.must(b.Close())
	b.restore(b.dir, dump, RestoreOptions{Force: true})
	kept, err := filepath.Glob(filepath.Join(b.dir, "meta-*.db.before-*"))
	if err != nil || len(kept) != 2 {
		t.Errorf("kept are %v, %v", kept, err)
	}
}

// TestADumpHasEveryField fails when a struct gets a field that the dump does not
// know.
func TestADumpHasEveryField(t *testing.T) {
	for _, c := range []struct {
		what   any
		fields int
	}{
		{Config{}, len(configAttrs(&Config{}))},
		{state{}, len(stateAttrs(&state{}))},
		{deviceState{}, len(deviceAttrs(&deviceState{}))},
		{raid.Chunk{}, len(chunkAttrs(&raid.Chunk{}))},
		{entry{}, len(entryAttrs(&entry{}))},
	} {
		if n := reflect.TypeOf(c.what).NumField(); n != c.fields {
			t.Errorf("%T has %d fields, a dump knows %d", c.what, n, c.fields)
		}
	}
	known := append([]meta.Bucket{meta.Txg, meta.Nodes, meta.NodeMap, meta.Chunks, meta.Space, meta.Devices, meta.Volumes, meta.Dead}, plainBuckets...)
	for _, b := range meta.Buckets() {
		if !slices.Contains(known, b) {
			t.Errorf("a dump and a repair lose bucket %v", b)
		}
	}
}

func TestLinesOfADumpReadBack(t *testing.T) {
	now := time.Unix(0, 1234567890123456789)
	e := entry{
		id: 1, guid: newGUID(), name: "a/b@c d\"é", kind: KindSnapshot, origin: 3, root: 4, size: 5, recordSize: 6, referenced: 7,
		created: now, createdTxg: 8, writtenTxg: 9, quota: 10, refquota: 11, reservation: 12, used: 13, receiving: []byte{1, 2},
		content: contentObjects, objects: 14, compression: CompressionZstd, props: local{},
	}
	d := deviceState{id: 1, guid: newGUID(), path: "/a b\n=\"", size: 2, away: 3, added: now, leaving: true, heirOf: 4}
	c := raid.Chunk{ID: 1, Base: 2, Sectors: 3, Class: 2, Profile: RaidZ2, Columns: []raid.Column{{Device: 1, Start: 4096}, {Device: 2, Start: 0, Shadow: &raid.Place{Device: 3, Start: 5}}}}
	conf := Config{Name: "x", DataProfile: Mirror, MetadataProfile: Mirror, RecordSize: 1, ChunkSize: 2, MetadataSize: 3, WhenFull: FullQueue, QueueTimeout: time.Second, LowWater: 4, MinFree: 5, Hook: "do this", Discard: true, datasets: true}
	var e2 entry
	var d2 deviceState
	var c2 raid.Chunk
	var conf2 Config
	for _, l := range [][2][]attr{{entryAttrs(&e), entryAttrs(&e2)}, {deviceAttrs(&d), deviceAttrs(&d2)}, {chunkAttrs(&c), chunkAttrs(&c2)}, {configAttrs(&conf), configAttrs(&conf2)}} {
		line := string(appendLine(nil, "x", l[0]))
		if err := parseAttrs(strings.TrimSuffix(line[2:], "\n"), l[1]); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if e.created, e2.created = e.created.UTC(), e2.created.UTC(); !reflect.DeepEqual(e, e2) || !bytes.Equal(d.pack(), d2.pack()) || !reflect.DeepEqual(c, c2) || conf != conf2 {
		t.Errorf("%+v\n%+v\n%+v\n%+v", e2, d2, c2, conf2)
	}
	for _, bad := range []string{"id", "id=1 id=2", "id=-1", "id=99999999999999999999", "what=1", "id=1  size=2", "id=1 ", `path="x`, `path="x"id=1`, "path=x", "leaving=no", "guid=12"} {
		if err := parseAttrs(bad, deviceAttrs(&d2)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

var update = flag.Bool("update", false, "write the files of testdata anew")

// hostOf returns devices with the labels that a dump speaks of, all else empty.
func hostOf(t testing.TB, dump string) *memdev.Journal {
	j := memdev.NewUnrecorded()
	var pool dumpPool
	for line := range strings.Lines(dump) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		var err error
		switch word {
		case "pool":
			err = parseAttrs(rest, poolAttrs(&pool))
		case "device":
			var st deviceState
			if err = parseAttrs(rest, deviceAttrs(&st)); err == nil {
				dev, _ := j.Create(st.path, st.size)
				err = writeLabel(dev, &label{pool: pool.guid, name: "golden", device: st.id, deviceGUID: st.guid, size: st.size, txg: 1})
				dev.Close()
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return j
}

// TestADumpOfVersion1IsUnderstood reads a dump that was written when this was the
// version, and writes it again.
func TestADumpOfVersion1IsUnderstood(t *testing.T) {
	const path = "testdata/dump-v1.txt"
	if *update {
		b := &bench{TB: t, journal: memdev.NewUnrecorded(), dir: t.TempDir()}
		b.must(Create(CreateOptions{
			Config: Config{Name: "golden", DataProfile: Mirror, MetadataProfile: Mirror}, Storage: b.journal,
			Metadata: []string{b.replica(0), b.replica(1)}, Devices: []DeviceSpec{{Path: "/golden/disk one", Size: 64 << 20}, {Path: "/golden/disk two", Size: 64 << 20}},
		}))
		b.opts = OpenOptions{Storage: b.journal, Tunables: Tunables{TxgInterval: time.Hour}}
		b.open()
		b.must(b.CreateVolume(ctx, "base", 1<<20, VolumeOptions{RecordSize: 4 << 10, Quota: 1 << 30, Refquota: 1 << 29, Reservation: 1 << 20}))
		v := b.volume("base")
		_, err := v.WriteAt(fill(600<<10, 1), 0)
		b.must(err)
		b.must(b.Snapshot(ctx, "base", "base@first"))
		_, err = v.WriteAt(fill(40<<10, 2), 100<<10)
		b.must(err)
		b.must(b.Clone(ctx, "base@first", "clones/one"))
		b.must(os.WriteFile(path, []byte(b.dump()), 0o644))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden := string(text)
	b := &bench{TB: t, journal: hostOf(t, golden), dir: tempDir(t)}
	b.opts = OpenOptions{Storage: b.journal, Tunables: Tunables{TxgInterval: time.Hour}}
	b.restore(b.dir, golden, RestoreOptions{Metadata: []string{b.replica(0), b.replica(1)}, Force: true})
	defer b.Abandon()
	if again := b.dump(); trees(again) != trees(golden) {
		t.Errorf("it was read as\n%s", again)
	}
	if i, err := b.Volume("clones/one"); err != nil || i.Origin != "base@first" || i.Referenced != 600<<10 {
		t.Errorf("%+v, %v", i, err)
	}
}

func FuzzRestore(f *testing.F) {
	sets, err := os.ReadFile("testdata/dump-v2.txt")
	if err != nil {
		f.Fatal(err)
	}
	golden, err := os.ReadFile("testdata/dump-v1.txt")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(golden))
	f.Add(string(sets))
	f.Add("lamina-dump version=1\npool guid=00000000000000000000000000000001 txg=1\nchunk id=1 columns=1:2>3:4\nend lines=3 sum=0")
	f.Add("lamina-dump version=1\npool txg=1\nvolume id=1\nleaf id=1 items=1\nrecord n=1 at=1024 size=4096\n")
	for i := strings.Index(string(golden), "\nleaf"); i > 0 && i < len(golden); i += 5000 {
		f.Add(string(golden[:i]) + "\nvolume root=1\nend lines=1 sum=0\n")
	}
	dir := tempDir(f)
	f.Fuzz(func(t *testing.T, text string) {
		j, start := hostOf(t, string(golden)), time.Now()
		defer func() {
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("it took %v", d)
			}
		}()
		err := Restore(ctx, dir, strings.NewReader(text), RestoreOptions{Storage: j, Force: true, Metadata: []string{filepath.Join(dir, "fuzz.db")}})
		if err != nil {
			if _, err := os.Stat(filepath.Join(dir, "fuzz.db.restore")); err == nil {
				t.Error("a file is left")
			}
			return
		}
		os.Remove(filepath.Join(dir, "fuzz.db"))
	})
}
