package blockpool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/stream"
)

// TestReplicaOfADatasetIsWhatTheSourceIs sends snapshots of datasets, with streams
// that are cut off and a receiver that is killed, and compares all of them.
func TestReplicaOfADatasetIsWhatTheSourceIs(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 79))
			profiles := []struct {
				Profile
				devices int
			}{{Single, 1}, {Mirror, 2}, {RaidZ1, 3}, {RaidZ2, 4}}
			x, y := profiles[rng.IntN(4)], profiles[rng.IntN(4)]
			a := newBench(t, Config{DataProfile: x.Profile}, x.devices, 256<<20)
			b := newBench(t, Config{DataProfile: y.Profile, Name: "backup"}, y.devices, 256<<20)
			a.must(a.CreateDataset(ctx, "set", DatasetOptions{RecordSize: 4 << 10 << rng.IntN(6), Compression: []Compression{CompressionOff, CompressionLZ4, CompressionZstd}[rng.IntN(3)]}))
			b.must(b.CreateFilesystem(ctx, "copy", FilesystemOptions{}))
			want, objects := map[string]*seenTree{}, map[string]uint64{}
			last := ""
			for i := range 8 {
				tree := a.tree("set")
				for range 1 + rng.IntN(40) {
					a.must(tree.Apply(ctx, randomBatch(rng, tree.RecordSize())))
				}
				many := &Batch{}
				for range rng.IntN(2000) {
					many.Items = append(many.Items, randomItem(rng))
				}
				slices.SortFunc(many.Items, func(a, b ItemChange) int { return bytes.Compare(a.Key, b.Key) })
				many.Items = slices.CompactFunc(many.Items, func(a, b ItemChange) bool { return bytes.Equal(a.Key, b.Key) })
				a.must(tree.Apply(ctx, many))
				a.must(tree.Close())
				snap := fmt.Sprintf("set@%d", i)
				a.must(a.Snapshot(ctx, "set", snap))
				if rng.IntN(4) == 0 {
					continue // not every snapshot travels
				}
				b.replicate(a, rng, last, snap, "copy/of")
				for _, name := range []string{"copy/of@" + snap[4:], "copy/of"} {
					want[name], objects[name] = a.see(snap), a.volumeInfo(snap).Objects
				}
				last = snap
			}
			b.crash()
			for name, seen := range want {
				if !b.see(name).equal(seen) {
					t.Errorf("%s differs", name)
				}
				if n := b.volumeInfo(name).Objects; n != objects[name] {
					t.Errorf("%s has %d objects, not %d", name, n, objects[name])
				}
			}
			var names []string
			for _, info := range b.Volumes() {
				names = append(names, info.Name)
			}
			want["copy"] = nil
			if !slices.Equal(names, slices.Sorted(maps.Keys(want))) {
				t.Errorf("the replica has %v", names)
			}
			a.clean(a.checked())
			b.clean(b.checked())
		})
	}
}

// randomItem returns a change of an item, whose key may be short or long, and agree
// with others in its first bytes.
func randomItem(rng *rand.Rand) ItemChange {
	key := append([]byte{0x80 + byte(rng.IntN(128))}, make([]byte, rng.IntN(12))...)
	if n := len(key); n > 1 {
		key[n-1] = byte(rng.IntN(4))
	}
	if rng.IntN(8) == 0 {
		key = append(key, bytes.Repeat([]byte{7}, rng.IntN(MaxItemKey-len(key)))...)
	}
	i := ItemChange{Key: key}
	if rng.IntN(5) > 0 {
		i.Value = append([]byte{}, fill(rng.IntN(200), rng.Uint64())...)
	}
	return i
}

func TestPackedRecordsTravelAndArriveAsTheyAre(t *testing.T) {
	a, b := newBench(t, Config{}, 1, 64<<20), newBench(t, Config{}, 1, 64<<20)
	a.must(a.CreateDataset(ctx, "set", DatasetOptions{RecordSize: 128 << 10, Compression: CompressionZstd}))
	tree := a.tree("set")
	a.must(tree.Apply(ctx, &Batch{Writes: []ObjectWrite{{1, 0, bytes.Repeat([]byte("what packs well "), 512<<10)}, {2, 0, fill(9000, 1)}}}))
	a.must(tree.Close())
	a.must(a.Snapshot(ctx, "set", "set@1"))
	s := a.sent("", "set@1")
	if len(s) > 200<<10 {
		t.Errorf("8 MiB that pack well are sent as %d bytes", len(s))
	}
	info, err := b.Receive(ctx, bytes.NewReader(s), "set", ReceiveOptions{})
	b.must(err)
	if was := a.volumeInfo("set@1"); info.Referenced != was.Referenced {
		t.Errorf("%d bytes there, %d here", was.Referenced, info.Referenced)
	}
	if u, err := b.UsageOf(ctx, "set", "set@1"); err != nil || u.Bytes != info.Referenced || b.volumeInfo("set").Used != u.Bytes {
		t.Errorf("%+v, %v, of %+v", u, err, b.volumeInfo("set"))
	}
	if !b.see("set").equal(a.see("set")) {
		t.Error("content differs")
	}
	// What is unchanged is shared, and nothing of it is sent.
	tree = a.tree("set")
	a.must(tree.Apply(ctx, &Batch{Writes: []ObjectWrite{{2, 100, []byte("later")}}, Zeros: []ObjectRange{{1, 0, 1 << 20}}}))
	a.must(tree.Close())
	a.must(a.Snapshot(ctx, "set", "set@2"))
	if s = a.sent("set@1", "set@2"); len(s) > 20<<10 {
		t.Errorf("a change is sent as %d bytes", len(s))
	}
	_, err = b.Receive(ctx, bytes.NewReader(s), "set", ReceiveOptions{})
	b.must(err)
	if !b.see("set").equal(a.see("set")) || !b.see("set@2").equal(a.see("set@2")) || b.see("set@1").equal(a.see("set")) {
		t.Error("content differs after the change")
	}
	b.emptied()
}

func TestAVolumeTakesNoDatasetsStreamAndADatasetNoVolumes(t *testing.T) {
	a, b := newBench(t, Config{}, 1, 64<<20), newBench(t, Config{}, 1, 64<<20)
	a.must(a.CreateDataset(ctx, "set", DatasetOptions{RecordSize: 16 << 10}))
	a.must(a.CreateVolume(ctx, "vol", 1<<20, VolumeOptions{RecordSize: 16 << 10}))
	for i := range 2 {
		a.changeTrees(10, uint64(i))
		a.scribble("vol", rand.New(rand.NewPCG(1, uint64(i))))
		for _, name := range []string{"set", "vol"} {
			a.must(a.Snapshot(ctx, name, fmt.Sprintf("%s@%c", name, 'a'+i)))
		}
	}
	for _, name := range []string{"set", "vol"} {
		if _, err := b.Receive(ctx, bytes.NewReader(a.sent("", name+"@a")), name, ReceiveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{"set": "vol", "vol": "set"} {
		_, err := b.Receive(ctx, bytes.NewReader(a.sent(from+"@a", from+"@b")), to, ReceiveOptions{Force: true})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "the stream is of a "+b.volumeInfo(from).Type) {
			t.Errorf("%s into %s: %v", from, to, err)
		}
		if _, err := b.Receive(ctx, bytes.NewReader(a.sent("", from+"@a")), to, ReceiveOptions{Force: true}); !errors.Is(err, ErrExists) {
			t.Errorf("all of %s into %s: %v", from, to, err)
		}
		if _, err := a.Send(ctx, io.Discard, from+"@b", SendOptions{From: to + "@a"}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s since %s: %v", from, to, err)
		}
	}
	if _, err := b.Receive(ctx, bytes.NewReader(a.sent("", "set@a")), "not/there", ReceiveOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("below nothing: %v", err)
	}
	if _, err := b.Receive(ctx, bytes.NewReader(a.sent("", "set@a")), "vol/below", ReceiveOptions{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("below a volume: %v", err)
	}
	b.emptied()
}

func TestBadStreamsOfDatasetsPublishNothing(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	good := stream.Header{Pool: stream.ID{1}, Volume: stream.ID{2}, To: stream.ID{3}, Name: "set@s", Dataset: true, RecordSize: 4 << 10}
	packed := CompressionLZ4.pack(make([]byte, 32<<10))
	for name, write := range map[string]func(w *stream.Writer) error{
		"a packed record that means nothing":     func(w *stream.Writer) error { return w.Write(1<<32, format.LZ4, fill(100, 1)) },
		"one that unpacks to more than a record": func(w *stream.Writer) error { return w.Write(1<<32, format.LZ4, packed) },
	} {
		_, err := b.Receive(ctx, bytes.NewReader(forged(t, good, write)), "", ReceiveOptions{})
		if !errors.Is(err, ErrDamaged) || len(b.Volumes()) != 0 {
			t.Errorf("%s: %v, %+v", name, err, b.Volumes())
		}
	}
	s := forged(t, good, func(w *stream.Writer) error {
		return errors.Join(w.Write(1<<32, format.Plain, fill(4096, 1)), w.Write(5<<32, format.Zstd, zstdEncoder(3).EncodeAll([]byte("abcabcabc"), nil)),
			w.Items([]stream.Item{{Key: []byte{0x80, 1}, Value: []byte("x")}, {Key: []byte{0x80, 2}, Deleted: true}}))
	})
	for at := 0; at < len(s); at += 3 {
		bad := bytes.Clone(s)
		bad[at] ^= 1
		if _, err := b.Receive(ctx, bytes.NewReader(bad), "", ReceiveOptions{}); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
			t.Fatalf("byte %d: %v", at, err)
		}
		if err := b.AbortReceive(ctx, "set"); err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		if len(b.Volumes()) != 0 {
			t.Fatalf("byte %d is wrong and there is %+v", at, b.Volumes())
		}
	}
	if _, err := b.Receive(ctx, bytes.NewReader(s), "", ReceiveOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := b.volumeInfo("set").Objects; n != 1 {
		t.Errorf("%d objects", n)
	}
	b.emptied()
}
