package intent

import (
	"context"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// A fileArea is an area in a real file.
type fileArea struct {
	*os.File
	size int64
}

func (a fileArea) Size() int64 { return a.size }

func (a fileArea) Sync(context.Context) error { return unix.Fdatasync(int(a.Fd())) }

func benchLog(b *testing.B) *benchmark {
	b.Helper()
	f, err := os.CreateTemp("/var/tmp", "lamina-intent-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close(); os.Remove(f.Name()) })
	a := fileArea{f, 3 * 32 << 20}
	if err := Format(context.Background(), a); err != nil {
		b.Fatal(err)
	}
	l, err := Open(a, testGUID, 0)
	if err != nil {
		b.Fatal(err)
	}
	bl := &benchmark{Log: l}
	bl.txg.Store(1)
	return bl
}

// A benchmark commits at once when a segment is full.
type benchmark struct {
	*Log
	txg atomic.Uint64
}

func (l *benchmark) append(b *testing.B, payload []byte) {
	for {
		txg := l.txg.Load()
		_, err := l.Append(txg, Write, payload)
		if err == nil {
			return
		}
		if l.Room() > int64(len(payload))+100 && txg == l.txg.Load() {
			b.Error(err)
			return
		}
		if l.txg.CompareAndSwap(txg, txg+1) {
			l.Release(txg)
		}
	}
}

func BenchmarkAppend4K(b *testing.B) {
	l, data := benchLog(b), make([]byte, 4096)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		l.append(b, data)
	}
}

// BenchmarkFlush is one writer that appends 4K and flushes.
func BenchmarkFlush(b *testing.B) {
	l, data := benchLog(b), make([]byte, 4096)
	for b.Loop() {
		l.append(b, data)
		if err := l.Flush(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFlush16 is 16 writers.
func BenchmarkFlush16(b *testing.B) {
	l, data := benchLog(b), make([]byte, 4096)
	b.SetParallelism(8) // times 2 processors
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.append(b, data)
			if err := l.Flush(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkBareFile is what Flush is to be compared with: 4K written and synced
// in a file, no log.
func BenchmarkBareFile(b *testing.B) {
	l, data := benchLog(b), make([]byte, 4096)
	a := l.area.(fileArea)
	i := int64(0)
	for b.Loop() {
		if _, err := a.WriteAt(data, i%(a.size/4096)*4096); err != nil {
			b.Fatal(err)
		}
		if err := a.Sync(context.Background()); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
