package blockpool

import (
	"encoding/binary"
	"testing"
	"time"
)

// BenchmarkBatches applies what the creation of a file is: three items and, in every
// other one, 3,000 bytes of data.
func BenchmarkBatches(b *testing.B) {
	for name, size := range map[string]int{"items": 0, "items and 3000 bytes": 3000, "items and 20000 bytes": 20000} {
		b.Run(name, func(b *testing.B) {
			p := newBench(b, Config{}, 1, 4<<30)
			p.reopenWith(Tunables{TxgInterval: 5 * time.Second})
			p.must(p.CreateDataset(ctx, "set", DatasetOptions{RecordSize: 64 << 10}))
			t := p.tree("set")
			data := fill(size, 1)
			b.ResetTimer()
			for i := range b.N {
				object := uint64(i + 2)
				batch := &Batch{}
				batch.Put(itemKey(object), fill(110, object))
				batch.Put(binary.BigEndian.AppendUint64([]byte{0x81, 0, 0, 0, 0, 0, 0, 0, 1}, object*0x9E3779B97F4A7C15), fill(30, object))
				batch.Put(itemKey(1), fill(110, object))
				if size > 0 {
					batch.Write(object, 0, data)
				}
				if err := t.Apply(ctx, batch); err != nil {
					b.Fatal(err)
				}
			}
			p.must(p.Sync(ctx))
		})
	}
}

// BenchmarkItem reads items at random from what is committed.
func BenchmarkItem(b *testing.B) {
	p := newBench(b, Config{}, 1, 1<<30)
	p.must(p.CreateDataset(ctx, "set", DatasetOptions{}))
	t := p.tree("set")
	const n = 100_000
	for i := uint64(0); i < n; {
		batch := &Batch{}
		for range 1000 {
			batch.Put(itemKey(i), fill(110, i))
			i++
		}
		p.must(t.Apply(ctx, batch))
	}
	p.must(p.Sync(ctx))
	b.ResetTimer()
	for i := range b.N {
		if v, err := t.Item(itemKey(uint64(i) * 7919 % n)); err != nil || v == nil {
			b.Fatal(v, err)
		}
	}
}
