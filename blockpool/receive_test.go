package blockpool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/stream"
)

// Whatever a stream is, as long as it is not whole it shows nothing and leaves
// nothing.
func TestBadStreamsPublishNothingAndLeakNothing(t *testing.T) {
	a, b := newBench(t, Config{}, 1, 64<<20), newBench(t, Config{}, 1, 64<<20)
	rng := rand.New(rand.NewPCG(2, 2))
	a.must(a.CreateVolume(ctx, "v", 1<<20, VolumeOptions{RecordSize: 4 << 10}))
	for i := range 2 {
		v := a.volume("v")
		for range 5 {
			if _, err := v.WriteAt(fill(4<<10, rng.Uint64()), rng.Int64N(256)<<12); err != nil {
				t.Fatal(err)
			}
		}
		a.must(v.Discard(ctx, rng.Int64N(250)<<12, 6<<12))
		v.Close()
		a.must(a.Snapshot(ctx, "v", fmt.Sprintf("v@%d", i)))
	}
	full, part := a.sent("", "v@0"), a.sent("v@0", "v@1")
	if _, err := b.Receive(ctx, bytes.NewReader(full), "base", ReceiveOptions{}); err != nil {
		t.Fatal(err)
	}
	before := b.Volumes()
	check := func(what string, err error, volume string) {
		t.Helper()
		if !errors.Is(err, ErrDamaged) {
			t.Fatalf("%s: %v", what, err)
		}
		if err := b.AbortReceive(ctx, volume); err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatalf("%s: %v", what, err)
		}
		if now := b.Volumes(); !reflect.DeepEqual(now, before) {
			t.Fatalf("%s: %+v became %+v", what, before, now)
		}
	}
	for _, s := range []struct {
		stream []byte
		volume string
	}{{full, "new"}, {part, "base"}} {
		for at := 0; at < len(s.stream); at += 1 + rng.IntN(200) {
			_, err := b.Receive(ctx, bytes.NewReader(s.stream[:at]), s.volume, ReceiveOptions{})
			check(fmt.Sprintf("cut at byte %d", at), err, s.volume)
			bad := bytes.Clone(s.stream)
			bad[at] ^= 1 << rng.IntN(8)
			_, err = b.Receive(ctx, bytes.NewReader(bad), s.volume, ReceiveOptions{})
			if at >= 8 && at < 10 && errors.Is(err, ErrNewer) {
				continue // the version
			}
			check(fmt.Sprintf("byte %d is wrong", at), err, s.volume)
		}
	}
	b.emptied()
}

// forged returns a stream whose checks are right.
func forged(t *testing.T, h stream.Header, write func(w *stream.Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := stream.NewWriter(&b, h, stream.Options{})
	if err == nil {
		err = write(w)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestStreamsOfOtherSendersAreTakenOrRefusedWithAReason(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	good := stream.Header{Pool: stream.ID{1}, Volume: stream.ID{2}, To: stream.ID{3}, Name: "v@s", Size: 10<<12 + 100, RecordSize: 4 << 10}
	nothing := func(*stream.Writer) error { return nil }
	for name, c := range map[string]struct {
		spoil func(h *stream.Header)
		write func(w *stream.Writer) error
		want  error
	}{
		"no bytes":        {func(h *stream.Header) { h.Size = 0 }, nothing, ErrInvalid},
		"too many bytes":  {func(h *stream.Header) { h.Size = math.MaxInt64 }, nothing, ErrInvalid},
		"bad name":        {func(h *stream.Header) { h.Name = "../v@s" }, nothing, ErrInvalid},
		"no snapshot":     {func(h *stream.Header) { h.Name = "v" }, nothing, ErrDamaged},
		"rest of another": {func(h *stream.Header) { h.Resume = 3 }, nothing, ErrNotFound},
		"another base":    {func(h *stream.Header) { h.From = stream.ID{7} }, nothing, ErrNotFound},
		"codec": {func(*stream.Header) {}, func(w *stream.Writer) error {
			return w.Write(1, format.Zstd, []byte("compressed"))
		}, ErrNewer},
		"feature": {func(h *stream.Header) { h.Features = []string{"encryption"} }, nothing, ErrNewer},
	} {
		h := good
		c.spoil(&h)
		if _, err := b.Receive(ctx, bytes.NewReader(forged(t, h, c.write)), "", ReceiveOptions{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if len(b.Volumes()) != 0 {
			t.Fatalf("%s: made %+v", name, b.Volumes())
		}
	}
	short := forged(t, good, func(w *stream.Writer) error {
		return errors.Join(w.Property("colour", []byte("blue")), w.Write(1, format.Plain, fill(4<<10, 1)), w.Hole(4, 5),
			w.Checkpoint(9), w.Write(10, format.Plain, fill(100, 2)))
	})
	if _, err := b.Receive(ctx, bytes.NewReader(short), "", ReceiveOptions{}); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, good.Size)
	copy(want[4<<10:], fill(4<<10, 1))
	copy(want[10<<12:], fill(100, 2))
	if !bytes.Equal(b.content("v"), want) || !bytes.Equal(b.content("v@s"), want) {
		t.Error("content differs")
	}
	b.emptied()
}

// One stream at a time, and nobody looks at what has not arrived.
func TestWhatIsBeingReceivedIsLeftAlone(t *testing.T) {
	a, b := newBench(t, Config{}, 1, 64<<20), newBench(t, Config{}, 1, 64<<20)
	a.must(a.CreateVolume(ctx, "v", 8<<20, VolumeOptions{}))
	a.scribble("v", rand.New(rand.NewPCG(3, 3)))
	a.must(a.Snapshot(ctx, "v", "v@1"))
	s := a.sent("", "v@1")
	hidden := "v" + receivingSuffix
	half := io.MultiReader(bytes.NewReader(s[:len(s)/2]), readerFunc(func() error {
		if _, err := b.Open(hidden); !errors.Is(err, ErrBusy) {
			t.Errorf("open: %v", err)
		}
		if err := b.AbortReceive(ctx, "v"); !errors.Is(err, ErrBusy) {
			t.Errorf("abort: %v", err)
		}
		if err := b.Destroy(ctx, hidden); !errors.Is(err, ErrBusy) {
			t.Errorf("destroy: %v", err)
		}
		if err := b.Clone(ctx, hidden, "w"); !errors.Is(err, ErrBusy) {
			t.Errorf("clone: %v", err)
		}
		if _, err := b.Receive(ctx, bytes.NewReader(s), "v", ReceiveOptions{}); !errors.Is(err, ErrBusy) {
			t.Errorf("second stream: %v", err)
		}
		return io.EOF
	}))
	if _, err := b.Receive(ctx, half, "v", ReceiveOptions{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a stream: %v", err)
	}
	a.must(a.CreateVolume(ctx, "u", 8<<20, VolumeOptions{}))
	a.must(a.Snapshot(ctx, "u", "u@1"))
	if _, err := b.Receive(ctx, bytes.NewReader(a.sent("", "u@1")), "v", ReceiveOptions{}); !errors.Is(err, ErrBusy) {
		t.Errorf("another stream in between: %v", err)
	}
	// The whole stream once more will do as well as the rest.
	if _, err := b.Receive(ctx, bytes.NewReader(s), "v", ReceiveOptions{}); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(b.content("v@1"), a.content("v@1")) {
		t.Error("content differs")
	}
	if err := b.AbortReceive(ctx, "v"); !errors.Is(err, ErrNotFound) {
		t.Errorf("abort when all is there: %v", err)
	}
	b.emptied()
}

func FuzzUnpackReceiving(f *testing.F) {
	h := stream.Header{Pool: stream.ID{1}, Volume: stream.ID{2}, To: stream.ID{3}, Size: 1 << 20, RecordSize: 4 << 10}
	f.Add(receiving{token: h.Token(7), target: 9, snapshot: "s", force: true}.pack())
	set := stream.Header{Pool: stream.ID{1}, Volume: stream.ID{2}, To: stream.ID{3}, Dataset: true, RecordSize: 4 << 10}
	f.Add(receiving{token: set.Token(1 << 63), snapshot: "s"}.pack())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := unpackReceiving(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%v does not blame the bytes", err)
			}
			return
		}
		if again, err := unpackReceiving(r.pack()); err != nil || again != r {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}
