package blockpool

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// dumpTree returns all that a dataset has: items, and the content of records.
func (b *bench) dumpTree(name string) string {
	b.Helper()
	t, err := b.OpenTree(name)
	b.must(err)
	defer t.Close()
	var out strings.Builder
	b.must(t.Items([]byte{ItemCounted}, nil, func(key, value []byte) error {
		fmt.Fprintf(&out, "%x=%x\n", key, value)
		return nil
	}))
	p := make([]byte, t.RecordSize())
	for object := uint64(1); object < 8; object++ {
		for at := uint64(0); ; {
			first, end, err := t.NextRecords(object, at)
			b.must(err)
			if first == end {
				break
			}
			for n := first; n < end; n++ {
				b.must(t.ReadObject(object, p, int64(n)*int64(len(p))))
				if !isZero(p) {
					fmt.Fprintf(&out, "%d/%d %x\n", object, n, sha256.Sum256(p))
				}
			}
			at = end
		}
	}
	fmt.Fprintf(&out, "%d objects", t.Objects())
	return out.String()
}

// scrawl changes a dataset at random.
func (b *bench) scrawl(name string, rng *rand.Rand, batches int) {
	b.Helper()
	t, err := b.OpenTree(name)
	b.must(err)
	defer t.Close()
	for range batches {
		var batch Batch
		n := rng.Uint64N(700)
		if rng.IntN(4) == 0 {
			batch.Delete(itemKey(n))
		} else {
			batch.Put(itemKey(n), bytes.Repeat([]byte{byte(n)}, rng.IntN(MaxItemValue)))
		}
		batch.Put(append([]byte{0xff}, fmt.Sprint(n)...), []byte{}) // a value of no bytes is one
		object := 1 + rng.Uint64N(7)
		if rng.IntN(4) == 0 {
			batch.Zero(object, rng.Int64N(1<<20), rng.Int64N(1<<18))
		} else {
			p := make([]byte, 1+rng.IntN(50000))
			for i := range p {
				p[i] = byte(i * int(n) / 999)
			}
			batch.Write(object, rng.Int64N(1<<20), p)
		}
		b.must(t.Apply(ctx, &batch))
	}
	b.must(b.Sync(ctx))
}

// What is received is what was sent, in full and by what has changed, packed or not.
func TestDatasetsAreSentWhole(t *testing.T) {
	for _, zip := range []int{0, 2} {
		a, b := newBench(t, Config{}, 1, 256<<20), newBench(t, Config{}, 1, 256<<20)
		rng := rand.New(rand.NewPCG(1, uint64(zip)))
		a.filesystem("home", "compression=zstd")
		b.must(b.SetProperties(ctx, "", map[string]string{"compression": "off"}))
		b.filesystem("backup")
		a.scrawl("home", rng, 120)
		last := ""
		for i := range 4 {
			snap := fmt.Sprintf("home@%d", i)
			a.must(a.Snapshot(ctx, "home", snap))
			var s bytes.Buffer
			_, err := a.Send(ctx, &s, snap, SendOptions{From: last, Compression: zip})
			a.must(err)
			info, err := b.Receive(ctx, &s, "backup/home", ReceiveOptions{})
			b.must(err)
			if info.Name != "backup/home"+snap[len("home"):] || !info.IsDataset() {
				t.Errorf("received %+v", info)
			}
			for _, name := range []string{info.Name, "backup/home"} {
				if a.dumpTree(snap) != b.dumpTree(name) {
					t.Fatalf("%s is not what %s is", name, snap)
				}
			}
			last = snap
			a.scrawl("home", rng, 40)
		}
		if got := b.prop("backup/home", "compression"); got != "off" {
			t.Errorf("compression of what was received: %s", got)
		}
		b.must(b.recount())
		b.reopen()
		if a.dumpTree(last) != b.dumpTree("backup/home") {
			t.Error("it is another one after opening anew")
		}
		b.must(b.recount())
		var s bytes.Buffer
		_, err := a.Send(ctx, &s, last, SendOptions{})
		a.must(err)
		b.must(b.CreateVolume(ctx, "disk", 1<<20, VolumeOptions{}))
		for name, want := range map[string]error{"backup/home": ErrExists, "no/where": ErrNotFound, "disk/x": ErrInvalid} {
			if _, err := b.Receive(ctx, bytes.NewReader(s.Bytes()), name, ReceiveOptions{}); !errors.Is(err, want) {
				t.Errorf("into %s: %v", name, err)
			}
		}
	}
}

// A stream that is cut off anywhere goes on, also among the items.
func TestDatasetReceiveGoesOnWhereItWasCutOff(t *testing.T) {
	a, b := newBench(t, Config{}, 1, 256<<20), newBench(t, Config{}, 1, 256<<20)
	rng := rand.New(rand.NewPCG(7, 7))
	a.filesystem("home")
	a.scrawl("home", rng, 150)
	a.must(a.Snapshot(ctx, "home", "home@s"))
	var whole bytes.Buffer
	_, err := a.Send(ctx, &whole, "home@s", SendOptions{})
	a.must(err)
	for _, part := range []float64{0.2, 0.6, 0.98, 0.999} {
		cut := int64(part * float64(whole.Len()))
		if _, err := b.Receive(ctx, io.LimitReader(bytes.NewReader(whole.Bytes()), cut), "got", ReceiveOptions{}); err == nil {
			t.Fatal("a part was taken for the whole")
		}
		b.crash()
		token, err := b.ReceiveToken("got")
		b.must(err)
		var rest bytes.Buffer
		_, err = a.SendResume(ctx, &rest, token, SendOptions{})
		a.must(err)
		_, err = b.Receive(ctx, &rest, "got", ReceiveOptions{})
		b.must(err)
		if a.dumpTree("home@s") != b.dumpTree("got@s") {
			t.Fatalf("cut off at %d of %d, it is not what was sent", cut, whole.Len())
		}
		_, err = b.DestroyAll(ctx, []string{"got"}, true)
		b.must(err)
		b.must(b.recount())
	}
}

// A clone is received as a clone of what it was made from: what it shares there it
// shares here, also when its stream is cut off and goes on.
func TestACloneIsReceivedAsAClone(t *testing.T) {
	a, b := newBench(t, Config{}, 1, 256<<20), newBench(t, Config{}, 1, 256<<20)
	rng := rand.New(rand.NewPCG(7, 7))
	a.filesystem("home")
	a.scrawl("home", rng, 100)
	a.must(a.Snapshot(ctx, "home", "home@1"))
	a.must(a.Clone(ctx, "home@1", "copy"))
	a.scrawl("copy", rng, 40)
	a.must(a.Snapshot(ctx, "copy", "copy@1"))
	receive := func(stream []byte, name string, o ReceiveOptions) error {
		_, err := b.Receive(ctx, bytes.NewReader(stream), name, o)
		return err
	}
	b.must(receive(a.sent("", "home@1"), "", ReceiveOptions{}))
	b.must(b.Snapshot(ctx, "home", "home@2"))
	stream := a.sent("home@1", "copy@1")
	for _, o := range []struct {
		name, origin string
		full         bool
		want         error
	}{
		{"copy", "home@9", false, ErrNotFound},
		{"copy", "home", false, ErrNotFound},
		{"copy", "home@2", false, ErrNotFound}, // another guid
		{"home", "home@1", false, ErrExists},
		{"copy", "home@1", true, ErrInvalid},
	} {
		s := stream
		if o.full {
			s = a.sent("", "copy@1")
		}
		if err := receive(s, o.name, ReceiveOptions{Origin: o.origin}); !errors.Is(err, o.want) {
			t.Errorf("%s of %s: %v", o.name, o.origin, err)
		}
	}
	if err := receive(stream[:len(stream)*2/3], "copy", ReceiveOptions{Origin: "home@1"}); err == nil {
		t.Fatal("half a stream was enough")
	}
	b.must(receive(stream, "copy", ReceiveOptions{Origin: "home@1"}))
	if got, want := b.dumpTree("copy"), a.dumpTree("copy"); got != want {
		t.Error("the clone has other content")
	}
	if i, err := b.Volume("copy"); err != nil || i.Origin != "home@1" {
		t.Errorf("it is a clone of %q, %v", i.Origin, err)
	}
	ours, err := b.UsageOf(ctx, "home", "home@1", "home@2", "copy", "copy@1")
	b.must(err)
	theirs, err := a.UsageOf(ctx, "home", "home@1", "copy", "copy@1")
	b.must(err)
	if ours.Bytes > theirs.Bytes*11/10 {
		t.Errorf("%d bytes are in use, at the sender's %d", ours.Bytes, theirs.Bytes)
	}
	_, err = b.DestroyAll(ctx, []string{"home"}, true)
	b.must(err)
	if got, want := b.dumpTree("copy"), a.dumpTree("copy"); got != want {
		t.Error("without its origin the clone has other content")
	}
	b.must(b.recount())
	b.clean(b.checked())
}

// The same stream can be received under several names, also beside what was sent.
func TestTheSameIsReceivedTwice(t *testing.T) {
	a := newBench(t, Config{}, 1, 256<<20)
	a.filesystem("home")
	a.scrawl("home", rand.New(rand.NewPCG(8, 8)), 20)
	a.must(a.Snapshot(ctx, "home", "home@1"))
	stream := a.sent("", "home@1")
	for _, name := range []string{"one", "two"} {
		_, err := a.Receive(ctx, bytes.NewReader(stream), name, ReceiveOptions{})
		a.must(err)
		if a.dumpTree(name) != a.dumpTree("home@1") {
			t.Errorf("%s is not what was sent", name)
		}
	}
	a.clean(a.checked())
}
