package blockpool

import (
	"bytes"
	"io"
	"testing"
)

// bigVolume makes a volume of a million records of 4 KiB, of which all are
// written, with a snapshot; then 10 records change.
func bigVolume(b *testing.B) *bench {
	const records = 1 << 20
	t := newBench(b, Config{}, 1, 16<<30)
	t.must(t.CreateVolume(ctx, "v", records<<12, VolumeOptions{RecordSize: 4 << 10}))
	v := t.volume("v")
	defer v.Close()
	p := fill(1<<20, 1)
	for off := int64(0); off < records<<12; off += int64(len(p)) {
		if _, err := v.WriteAt(p, off); err != nil {
			b.Fatal(err)
		}
	}
	t.must(t.Snapshot(ctx, "v", "v@1"))
	for i := range int64(10) {
		if _, err := v.WriteAt([]byte{1}, i*records/10<<12); err != nil {
			b.Fatal(err)
		}
	}
	t.must(t.Snapshot(ctx, "v", "v@2"))
	return t
}

func BenchmarkToolsOnAMillionRecords(b *testing.B) {
	t := bigVolume(b)
	b.Run("delta-of-10", func(b *testing.B) {
		for b.Loop() {
			n := uint64(0)
			err := t.Delta(ctx, "v@1", "v@2", func(_, count uint64, _ Change) error { n += count; return nil })
			if err != nil || n != 10 {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("usage-of-one-that-shares", func(b *testing.B) {
		for b.Loop() {
			if u, err := t.Usage(ctx, "v@1"); err != nil || u.Records != 10 {
				b.Fatal(u, err)
			}
		}
	})
	b.Run("usage-of-all", func(b *testing.B) {
		for b.Loop() {
			if u, err := t.UsageOf(ctx, "v", "v@1", "v@2"); err != nil || u.Records != 1<<20+10 {
				b.Fatal(u, err)
			}
		}
	})
	b.Run("rmap-of-all", func(b *testing.B) {
		for b.Loop() {
			if err := t.Rmap(ctx, 0, 1000, func(Mapping) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("map-of-all", func(b *testing.B) {
		v := t.volume("v")
		defer v.Close()
		for b.Loop() {
			if n, hole, err := v.Allocated(0, v.Size()); err != nil || hole || n != v.Size() {
				b.Fatal(n, hole, err)
			}
		}
	})
}

func BenchmarkSend(b *testing.B) {
	p, v := benchPool(b, 16<<10, benchSize)
	buf := fill(1<<20, 1)
	for off := int64(0); off < benchSize; off += int64(len(buf)) {
		if _, err := v.WriteAt(buf, off); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Snapshot(ctx, "v", "v@1"); err != nil {
		b.Fatal(err)
	}
	b.Run("send", func(b *testing.B) {
		b.SetBytes(benchSize)
		for b.Loop() {
			if _, err := p.Send(ctx, io.Discard, "v@1", SendOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	var s bytes.Buffer
	if _, err := p.Send(ctx, &s, "v@1", SendOptions{}); err != nil {
		b.Fatal(err)
	}
	b.Run("receive", func(b *testing.B) {
		b.SetBytes(benchSize)
		for b.Loop() {
			if _, err := p.Receive(ctx, bytes.NewReader(s.Bytes()), "w", ReceiveOptions{}); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			for _, name := range []string{"w", "w@1"} {
				if err := p.Destroy(ctx, name); err != nil {
					b.Fatal(err)
				}
			}
			b.StartTimer()
		}
	})
}
