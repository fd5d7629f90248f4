package blockpool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// benchPool makes a pool of files in LAMINA_BENCH_DIR, or in a temporary
// directory.
func benchPool(b *testing.B, record, size int64) (*Pool, *Volume) {
	b.Helper()
	dir, err := os.MkdirTemp(os.Getenv("LAMINA_BENCH_DIR"), "pool")
	if err != nil {
		b.Fatal(err)
	}
	err = Create(CreateOptions{
		Config:   Config{Name: "bench", RecordSize: record},
		Devices:  []DeviceSpec{{Path: filepath.Join(dir, "data-0.img"), Size: 4*size + 1<<30}},
		Metadata: []string{ReplicaName(dir, 0)},
	})
	if err != nil {
		b.Fatal(err)
	}
	p, err := Open(dir, OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		p.Close()
		os.RemoveAll(dir)
	})
	if err := p.CreateVolume(context.Background(), "v", size, VolumeOptions{}); err != nil {
		b.Fatal(err)
	}
	v, err := p.Open("v")
	if err != nil {
		b.Fatal(err)
	}
	return p, v
}

// benchFile makes the bare file that a pool is compared with.
func benchFile(b *testing.B) *os.File {
	b.Helper()
	f, err := os.CreateTemp(os.Getenv("LAMINA_BENCH_DIR"), "bare")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		f.Close()
		os.Remove(f.Name())
	})
	return f
}

const benchSize = 512 << 20

func BenchmarkSequentialWrite(b *testing.B) {
	buf := fill(1<<20, 1)
	run := func(b *testing.B, write func(p []byte, off int64) (int, error), flush func() error) {
		b.SetBytes(benchSize)
		for b.Loop() {
			for off := int64(0); off < benchSize; off += int64(len(buf)) {
				if _, err := write(buf, off); err != nil {
					b.Fatal(err)
				}
			}
			if err := flush(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("bare", func(b *testing.B) {
		f := benchFile(b)
		run(b, f.WriteAt, f.Sync)
	})
	for _, record := range []int64{16 << 10, 64 << 10, 128 << 10} {
		b.Run(fmt.Sprintf("pool-%dK", record>>10), func(b *testing.B) {
			_, v := benchPool(b, record, benchSize)
			run(b, v.WriteAt, func() error { return v.Flush(context.Background()) })
		})
	}
}

func BenchmarkSequentialRead(b *testing.B) {
	buf := fill(1<<20, 1)
	run := func(b *testing.B, write, read func(p []byte, off int64) (int, error)) {
		for off := int64(0); off < benchSize; off += int64(len(buf)) {
			if _, err := write(buf, off); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(benchSize)
		for b.Loop() {
			for off := int64(0); off < benchSize; off += int64(len(buf)) {
				if _, err := read(buf, off); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("bare", func(b *testing.B) {
		f := benchFile(b)
		run(b, f.WriteAt, f.ReadAt)
	})
	for _, record := range []int64{16 << 10, 64 << 10, 128 << 10} {
		b.Run(fmt.Sprintf("pool-%dK", record>>10), func(b *testing.B) {
			p, v := benchPool(b, record, benchSize)
			run(b, v.WriteAt, v.ReadAt)
			_ = p
		})
	}
}

func BenchmarkRandomWriteFlush(b *testing.B) {
	run := func(b *testing.B, writers int, write func(p []byte, off int64) (int, error), flush func() error) {
		buf := fill(1<<20, 1)
		for off := int64(0); off < benchSize; off += int64(len(buf)) {
			if _, err := write(buf, off); err != nil {
				b.Fatal(err)
			}
		}
		if err := flush(); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(w), 5))
				for i := w; i < b.N; i += writers {
					if _, err := write(buf[:4096], rng.Int64N(benchSize/4096)*4096); err != nil {
						b.Error(err)
						return
					}
					if err := flush(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprintf("bare-%d", writers), func(b *testing.B) {
			f := benchFile(b)
			run(b, writers, f.WriteAt, f.Sync)
		})
		for _, record := range []int64{4 << 10, 16 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("pool-%dK-%d", record>>10, writers), func(b *testing.B) {
				_, v := benchPool(b, record, benchSize)
				run(b, writers, v.WriteAt, func() error { return v.Flush(context.Background()) })
			})
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	for _, have := range []int{10, 10_000} {
		b.Run(fmt.Sprint(have), func(b *testing.B) {
			p, v := benchPool(b, 16<<10, 64<<20)
			if _, err := v.WriteAt(fill(16<<20, 1), 0); err != nil {
				b.Fatal(err)
			}
			var wg sync.WaitGroup
			for i := range have {
				wg.Go(func() {
					if err := p.Snapshot(context.Background(), "v", fmt.Sprintf("v@s%d", i)); err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
			b.ResetTimer()
			for i := range b.N {
				if err := p.Snapshot(context.Background(), "v", fmt.Sprintf("v@b%d", i)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
