package raid

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/vdev"
)

// benchChunk is a chunk on sparse files, so that the speeds are those of system
// calls and of the page cache.
func benchChunk(b *testing.B, profile format.Profile, width int) (*Array, *Chunk) {
	a, c := New(Hooks{}), testChunk(profile, width)
	c.Base, c.Sectors = 0, 64<<20/sector
	for i := range c.Columns {
		d, err := vdev.Create(filepath.Join(b.TempDir(), fmt.Sprint("disk", i)), c.ColumnBytes()+1<<20)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { d.Close() })
		a.Add(c.Columns[i].Device, d)
		c.Columns[i].Start = 1 << 20
	}
	return a, c
}

func benchLayouts(b *testing.B, f func(b *testing.B, a *Array, c *Chunk, n int)) {
	for _, n := range []int{16 << 10, 128 << 10} {
		for _, l := range []struct {
			profile format.Profile
			width   int
		}{{format.Single, 1}, {format.Mirror, 2}, {format.RaidZ1, 4}, {format.RaidZ2, 6}} {
			b.Run(fmt.Sprintf("%v-%d/%dK", l.profile, l.width, n>>10), func(b *testing.B) {
				a, c := benchChunk(b, l.profile, l.width)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				f(b, a, c, n)
			})
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	benchLayouts(b, func(b *testing.B, a *Array, c *Chunk, n int) {
		data, at := randomBytes(1, n), format.Addr(0)
		for b.Loop() {
			if err := a.Write(c, at, data); err != nil {
				b.Fatal(err)
			}
			at = next(c, at, n)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	benchLayouts(b, func(b *testing.B, a *Array, c *Chunk, n int) {
		data, got, at := randomBytes(1, n), make([]byte, n), format.Addr(0)
		sum := xxhash.Sum64(data)
		for {
			if err := a.Write(c, at, data); err != nil {
				b.Fatal(err)
			}
			if at = next(c, at, n); at == 0 {
				break
			}
		}
		for b.Loop() {
			if err := a.Read(c, at, got, func(p []byte) bool { return xxhash.Sum64(p) == sum }); err != nil {
				b.Fatal(err)
			}
			at = next(c, at, n)
		}
	})
}

// BenchmarkDegradedRead reads with a device missing.
func BenchmarkDegradedRead(b *testing.B) {
	a, c := benchChunk(b, format.RaidZ1, 4)
	const n = 128 << 10
	data, got := randomBytes(1, n), make([]byte, n)
	sum := xxhash.Sum64(data)
	if err := a.Write(c, 0, data); err != nil {
		b.Fatal(err)
	}
	a.Remove(c.Columns[2].Device)
	b.SetBytes(n)
	b.ReportAllocs()
	for b.Loop() {
		if err := a.Read(c, 0, got, func(p []byte) bool { return xxhash.Sum64(p) == sum }); err != nil {
			b.Fatal(err)
		}
	}
}

// next returns the address after a record, 0 at the end of the chunk.
func next(c *Chunk, at format.Addr, n int) format.Addr {
	if at += format.Addr(c.Need(int64(n))); c.holds(at, n) != nil {
		return 0
	}
	return at
}
