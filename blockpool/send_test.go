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

	"github.com/laminafs/lamina/blockpool/internal/stream"
)

// sent returns the stream of a snapshot.
func (b *bench) sent(from, to string) []byte {
	b.Helper()
	var w bytes.Buffer
	if _, err := b.Send(ctx, &w, to, SendOptions{From: from}); err != nil {
		b.Fatal(err)
	}
	return w.Bytes()
}

// emptied destroys everything and fails when something does not come back, or was
// counted wrongly before.
func (b *bench) emptied() {
	b.Helper()
	b.must(b.recount())
	for _, info := range b.Volumes() {
		if info.Receiving {
			b.must(b.AbortReceive(ctx, strings.TrimSuffix(info.Name, receivingSuffix)))
		} else {
			b.must(b.Destroy(ctx, info.Name))
		}
	}
	b.must(b.recount())
	b.nothingLeft()
}

// scribble changes a volume here and there.
func (b *bench) scribble(name string, rng *rand.Rand) {
	b.Helper()
	v := b.volume(name)
	defer v.Close()
	for range 1 + rng.IntN(12) {
		off := rng.Int64N(v.Size())
		n := 1 + rng.Int64N(min(v.Size()-off, 300<<10))
		if rng.IntN(4) == 0 {
			b.must(v.Discard(ctx, off, n))
		} else if _, err := v.WriteAt(fill(int(n), rng.Uint64()), off); err != nil {
			b.Fatal(err)
		}
	}
}

// A replica that was fed with streams, however often they were cut off and the
// replica killed, is what the source is.
func TestReplicaIsWhatTheSourceIs(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 77))
			profiles := []struct {
				Profile
				devices int
			}{{Single, 1}, {Mirror, 2}, {RaidZ1, 3}, {RaidZ2, 4}}
			x, y := profiles[rng.IntN(4)], profiles[rng.IntN(4)]
			a := newBench(t, Config{DataProfile: x.Profile}, x.devices, 256<<20)
			b := newBench(t, Config{DataProfile: y.Profile, Name: "backup"}, y.devices, 256<<20)
			a.must(a.CreateVolume(ctx, "v", 3<<20+5000, VolumeOptions{RecordSize: 4 << 10 << rng.IntN(4)}))
			want := map[string][]byte{}
			last := ""
			for i := range 8 {
				a.scribble("v", rng)
				if rng.IntN(4) == 0 {
					a.must(a.Resize(ctx, "v", 1<<20+rng.Int64N(3<<20)))
				}
				snap := fmt.Sprintf("v@%d", i)
				a.must(a.Snapshot(ctx, "v", snap))
				if rng.IntN(4) == 0 {
					continue // not every snapshot travels
				}
				b.replicate(a, rng, last, snap, "copy/of")
				want["copy/of@"+snap[2:]] = a.content(snap)
				last = snap
			}
			if last == "" {
				t.Fatal("nothing was sent: take another seed")
			}
			want["copy/of"] = a.content(last)
			b.crash()
			for name, p := range want {
				if !bytes.Equal(b.content(name), p) {
					t.Errorf("%s differs", name)
				}
			}
			var names []string
			for _, info := range b.Volumes() {
				names = append(names, info.Name)
			}
			if !slices.Equal(names, slices.Sorted(maps.Keys(want))) {
				t.Errorf("the replica has %v", names)
			}
			a.emptied()
			b.emptied()
		})
	}
}

// replicate sends a snapshot, with interruptions.
func (b *bench) replicate(a *bench, rng *rand.Rand, from, to, volume string) {
	b.Helper()
	o := SendOptions{From: from, Compression: rng.IntN(3)}
	token := ""
	for try := 0; ; try++ {
		var w bytes.Buffer
		var err error
		if token == "" {
			_, err = a.Send(ctx, &w, to, o)
		} else {
			_, err = a.SendResume(ctx, &w, token, SendOptions{Compression: rng.IntN(3)})
		}
		a.must(err)
		var src io.Reader = &w
		cut, killed := try < 4 && rng.IntN(3) > 0, errors.New("killed")
		if cut {
			src = bytes.NewReader(w.Bytes()[:rng.IntN(w.Len())])
		}
		kill := cut && rng.IntN(3) == 0
		if kill {
			src = io.MultiReader(src, readerFunc(func() error { b.crash(); return killed }))
		}
		info, err := b.Receive(ctx, src, volume, ReceiveOptions{})
		if err == nil {
			if cut || info.Name != volume+to[strings.Index(to, "@"):] {
				b.Fatalf("part of a stream made %+v", info)
			}
			return
		}
		if !cut || !errors.Is(err, io.ErrUnexpectedEOF) && !(kill && errors.Is(err, killed)) {
			b.Fatal(err)
		}
		if rng.IntN(3) == 0 {
			b.crash()
		}
		if _, err := b.Open(volume + to[strings.Index(to, "@"):]); !errors.Is(err, ErrNotFound) {
			b.Fatalf("half a snapshot can be opened: %v", err)
		}
		b.must(b.recount())
		switch token, err = b.ReceiveToken(volume); {
		case err != nil && !errors.Is(err, ErrNotFound):
			b.Fatal(err)
		case err == nil && rng.IntN(5) == 0:
			b.must(b.AbortReceive(ctx, volume))
			token = ""
		}
	}
}

// A volume that is renamed while half a stream for it is there takes the rest under
// its new name.
func TestHalfAStreamFollowsItsVolume(t *testing.T) {
	a, b := newBench(t, Config{}, 1, 64<<20), newBench(t, Config{}, 1, 64<<20)
	a.must(a.CreateVolume(ctx, "v", 8<<20, VolumeOptions{}))
	rng := rand.New(rand.NewPCG(4, 4))
	for i := range 2 {
		a.scribble("v", rng)
		a.must(a.Snapshot(ctx, "v", fmt.Sprintf("v@%d", i)))
	}
	if _, err := b.Receive(ctx, bytes.NewReader(a.sent("", "v@0")), "old", ReceiveOptions{}); err != nil {
		t.Fatal(err)
	}
	s := a.sent("v@0", "v@1")
	if _, err := b.Receive(ctx, bytes.NewReader(s[:len(s)/2]), "old", ReceiveOptions{}); err == nil {
		t.Fatal("half a stream was enough")
	}
	b.must(b.Rename(ctx, "old", "new"))
	token, err := b.ReceiveToken("new")
	b.must(err)
	if _, err := b.Receive(ctx, bytes.NewReader(a.sentSince(token)), "new", ReceiveOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.content("new@1"), a.content("v@1")) || !bytes.Equal(b.content("new"), a.content("v@1")) {
		t.Error("content differs")
	}
	b.emptied()
}

// A process that is killed while a stream arrives goes on near where it was.
func TestReceiveGoesOnAfterAKill(t *testing.T) {
	a := newBench(t, Config{}, 1, 512<<20)
	b := newBench(t, Config{}, 1, 512<<20)
	a.must(a.CreateVolume(ctx, "v", 50<<20, VolumeOptions{}))
	v := a.volume("v")
	if _, err := v.WriteAt(fill(50<<20, 1), 0); err != nil {
		t.Fatal(err)
	}
	v.Close()
	a.must(a.Snapshot(ctx, "v", "v@1"))
	s := a.sent("", "v@1")
	killed := errors.New("killed")
	_, err := b.Receive(ctx, io.MultiReader(bytes.NewReader(s[:45<<20]), readerFunc(func() error {
		b.must(b.Sync(ctx)) // the cursor is on its way; what matters is that it needs no end of the stream
		b.crash()
		return killed
	})), "v", ReceiveOptions{})
	if err == nil {
		t.Fatal("received what was cut off")
	}
	token, err := b.ReceiveToken("v")
	b.must(err)
	parsed, err := stream.ParseToken(token)
	if b.must(err); parsed.Cursor < 30<<20/(16<<10) {
		t.Errorf("after 45 MB the cursor is at record %d", parsed.Cursor)
	}
	if _, err := b.Receive(ctx, bytes.NewReader(a.sentSince(token)), "v", ReceiveOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.content("v@1"), a.content("v@1")) {
		t.Error("content differs")
	}
	b.emptied()
}

func (b *bench) sentSince(token string) []byte {
	b.Helper()
	var w bytes.Buffer
	if _, err := b.SendResume(ctx, &w, token, SendOptions{}); err != nil {
		b.Fatal(err)
	}
	return w.Bytes()
}

type readerFunc func() error

func (f readerFunc) Read([]byte) (int, error) { return 0, f() }

// What is unchanged is stored once, and a snapshot that was sent on keeps its guid.
func TestIncrementalReceiveSharesWhatIsUnchanged(t *testing.T) {
	a, b, c := newBench(t, Config{}, 1, 256<<20), newBench(t, Config{}, 1, 256<<20), newBench(t, Config{}, 1, 256<<20)
	a.must(a.CreateVolume(ctx, "v", 64<<20, VolumeOptions{}))
	v := a.volume("v")
	defer v.Close()
	if _, err := v.WriteAt(fill(20<<20, 1), 0); err != nil {
		t.Fatal(err)
	}
	a.must(a.Snapshot(ctx, "v", "v@1"))
	if _, err := v.WriteAt(fill(64<<10, 2), 1<<20); err != nil {
		t.Fatal(err)
	}
	a.must(a.Snapshot(ctx, "v", "v@2"))
	if n := len(a.sent("v@1", "v@2")); n > 80<<10 {
		t.Errorf("64 KiB of changes are sent as %d bytes", n)
	}
	for _, hop := range [][2]*bench{{a, b}, {b, c}} {
		from, to := hop[0], hop[1]
		for _, s := range [][2]string{{"", "v@1"}, {"v@1", "v@2"}} {
			info, err := to.Receive(ctx, bytes.NewReader(from.sent(s[0], s[1])), "", ReceiveOptions{})
			if to.must(err); info.Name != s[1] {
				t.Errorf("received %s as %s", s[1], info.Name)
			}
		}
		u, err := to.UsageOf(ctx, "v", "v@1", "v@2")
		if to.must(err); u.Bytes != 20<<20+64<<10 {
			t.Errorf("%d bytes are in use", u.Bytes)
		}
		if info, err := to.Volume("v"); err != nil || info.Used != u.Bytes || info.Referenced != 20<<20 {
			t.Errorf("the volume is charged %+v, %v", info, err)
		}
		x, _ := a.Volume("v@2")
		if y, err := to.Volume("v@2"); err != nil || y.GUID != x.GUID {
			t.Errorf("guid %v, %v", y.GUID, err)
		}
		if !bytes.Equal(to.content("v"), a.content("v@2")) {
			t.Error("content differs")
		}
	}
}

func TestReceiveSaysWhichSnapshotIsMissing(t *testing.T) {
	a, b := newBench(t, Config{}, 1, 256<<20), newBench(t, Config{}, 1, 256<<20)
	rng := rand.New(rand.NewPCG(1, 1))
	a.must(a.CreateVolume(ctx, "v", 4<<20, VolumeOptions{}))
	var content [][]byte
	for i := range 4 {
		a.scribble("v", rng)
		a.must(a.Snapshot(ctx, "v", fmt.Sprintf("v@%d", i)))
		content = append(content, a.content("v"))
	}
	receive := func(s []byte, name string, o ReceiveOptions) error {
		_, err := b.Receive(ctx, bytes.NewReader(s), name, o)
		return err
	}
	refused := func(what string, err, kind error, words ...string) {
		t.Helper()
		if !errors.Is(err, kind) {
			t.Errorf("%s: %v", what, err)
			return
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v does not say %q", what, err, w)
			}
		}
	}
	guid := func(name string) string {
		info, err := a.Volume(name)
		a.must(err)
		return info.GUID.String()
	}
	refused("incremental into nothing", receive(a.sent("v@0", "v@1"), "v", ReceiveOptions{}), ErrNotFound, "v@0", guid("v@0"))
	b.must(receive(a.sent("", "v@0"), "w@zero", ReceiveOptions{}))
	refused("full over a volume", receive(a.sent("", "v@0"), "w", ReceiveOptions{}), ErrExists)
	refused("base that is not there", receive(a.sent("v@1", "v@2"), "w", ReceiveOptions{}), ErrNotFound, "v@1", guid("v@1"))
	refused("same again", receive(a.sent("v@1", "v@0"), "w", ReceiveOptions{}), ErrNotFound)
	b.must(receive(a.sent("v@0", "v@1"), "w", ReceiveOptions{}))
	refused("base that is not the newest", receive(a.sent("v@0", "v@2"), "w", ReceiveOptions{}), ErrExists, "w@zero", "w@1")
	refused("name that is taken", receive(a.sent("v@1", "v@2"), "w@zero", ReceiveOptions{}), ErrExists)

	w := b.volume("w")
	refused("open volume", receive(a.sent("v@1", "v@2"), "w", ReceiveOptions{}), ErrBusy)
	if _, err := w.WriteAt([]byte{1, 2, 3}, 100); err != nil {
		t.Fatal(err)
	}
	w.Close()
	refused("changed volume", receive(a.sent("v@1", "v@2"), "w", ReceiveOptions{}), ErrBusy, "w@1")
	b.must(receive(a.sent("v@1", "v@2"), "w", ReceiveOptions{Force: true}))
	b.must(receive(a.sent("v@0", "v@3"), "w", ReceiveOptions{Force: true}))
	for name, p := range map[string][]byte{"w": content[3], "w@zero": content[0], "w@1": content[1], "w@2": content[2], "w@3": content[3]} {
		if !bytes.Equal(b.content(name), p) {
			t.Errorf("%s differs", name)
		}
	}
	b.must(b.CreateVolume(ctx, "r", 4<<20, VolumeOptions{RecordSize: 64 << 10}))
	for what, name := range map[string]string{"volume": "v", "nothing": "v@9"} {
		if _, err := a.Send(ctx, io.Discard, name, SendOptions{}); err == nil {
			t.Errorf("a %s was sent", what)
		}
	}
	b.emptied()
}

func TestReceiveKeepsLimits(t *testing.T) {
	a := newBench(t, Config{}, 1, 256<<20)
	a.must(a.CreateVolume(ctx, "v", 200<<20, VolumeOptions{}))
	v := a.volume("v")
	for i, n := range []int{4 << 20, 8 << 20, 100 << 20} {
		if _, err := v.WriteAt(fill(n, uint64(i)), 0); err != nil {
			t.Fatal(err)
		}
		a.must(a.Snapshot(ctx, "v", fmt.Sprintf("v@%d", i)))
	}
	v.Close()
	b := newBench(t, Config{}, 1, 100<<20)
	receive := func(from, to string, o ReceiveOptions) error {
		_, err := b.Receive(ctx, bytes.NewReader(a.sent(from, to)), "w", o)
		return err
	}
	if err := receive("", "v@0", ReceiveOptions{Refquota: 2 << 20}); !errors.Is(err, ErrQuota) {
		t.Errorf("beyond refquota: %v", err)
	}
	b.must(b.AbortReceive(ctx, "w"))
	b.must(receive("", "v@0", ReceiveOptions{Quota: 5 << 20, Refquota: 10 << 20}))
	if err := receive("v@0", "v@1", ReceiveOptions{}); !errors.Is(err, ErrQuota) {
		t.Errorf("beyond quota: %v", err)
	}
	// More room is given, and the stream goes on.
	b.must(b.SetLimits(ctx, "w", 20<<20, -1, -1))
	token, err := b.ReceiveToken("w")
	b.must(err)
	if _, err := b.Receive(ctx, bytes.NewReader(a.sentSince(token)), "w", ReceiveOptions{}); err != nil {
		t.Fatal(err)
	}
	b.must(b.SetLimits(ctx, "w", 0, 0, -1))
	if err := receive("v@1", "v@2", ReceiveOptions{}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("beyond the pool: %v", err)
	}
	if !bytes.Equal(b.content("w"), a.content("v@1")) {
		t.Error("what does not fit has changed the volume")
	}
	b.emptied()
}
