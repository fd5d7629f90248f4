package blockpool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkRandomRead reads 4K at random of what the page cache holds: from a
// quarter of the volume, which a cache of records may hold too, and from all of it.
func BenchmarkRandomRead(b *testing.B) {
	const size = 128 << 20
	run := func(b *testing.B, size int64, read func(p []byte, off int64) (int, error)) {
		rng, p := rand.New(rand.NewPCG(1, 5)), make([]byte, 4096)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := read(p, rng.Int64N(size/4096)*4096); err != nil {
				b.Fatal(err)
			}
		}
	}
	write := func(b *testing.B, f func(p []byte, off int64) (int, error)) {
		for off := int64(0); off < size; off += 1 << 20 {
			if _, err := f(fill(1<<20, uint64(off)), off); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, part := range []int64{size / 4, size} {
		b.Run(fmt.Sprintf("bare-%dM", part>>20), func(b *testing.B) {
			f := benchFile(b)
			write(b, f.WriteAt)
			run(b, part, f.ReadAt)
		})
		for _, record := range []int64{4 << 10, 16 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("pool-%dK-%dM", record>>10, part>>20), func(b *testing.B) {
				p, v := benchPool(b, record, size)
				write(b, v.WriteAt)
				if err := p.Sync(context.Background()); err != nil {
					b.Fatal(err)
				}
				run(b, part, v.ReadAt)
			})
		}
	}
}
