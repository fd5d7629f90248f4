package raid

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

const (
	sector    = format.SectorSize
	chunkBase = 1000 // an address that no width divides
	chunkSize = 4096 // sectors
)

// A rig is an array of devices in memory, with one chunk over all of them.
type rig struct {
	*Array
	chunk *Chunk
	host  *memdev.Journal
	devs  []*memdev.Device // by column; device ids are 10 + column

	mu     sync.Mutex
	faults []string // "op id"
	healed []string // "id off n"
}

func (r *rig) id(column int) DeviceID { return DeviceID(10 + column) }

func newRig(t testing.TB, profile format.Profile, width int) *rig {
	t.Helper()
	return newRigOn(t, memdev.NewUnrecorded(), profile, width)
}

func newRigOn(t testing.TB, host *memdev.Journal, profile format.Profile, width int) *rig {
	t.Helper()
	r := &rig{host: host}
	r.Array = New(Hooks{
		Fault: func(id DeviceID, op string, err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.faults = append(r.faults, fmt.Sprint(op, " ", id))
		},
		Heal: func(id DeviceID, off, n int64) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.healed = append(r.healed, fmt.Sprint(id, off, n))
		},
	})
	r.chunk = testChunk(profile, width)
	for i := range r.chunk.Columns {
		r.devs = append(r.devs, r.plug(t, r.id(i)))
	}
	if err := r.chunk.Check(); err != nil {
		t.Fatal(err)
	}
	return r
}

func testChunk(profile format.Profile, width int) *Chunk {
	c := &Chunk{ID: 7, Base: chunkBase, Sectors: chunkSize, Profile: profile}
	for i := range width {
		c.Columns = append(c.Columns, Column{Device: DeviceID(10 + i), Start: int64(i+1) * 64 * sector})
	}
	return c
}

// plug makes a device and adds it.
func (r *rig) plug(t testing.TB, id DeviceID) *memdev.Device {
	t.Helper()
	d, err := r.host.Create(fmt.Sprint("dev", id), 24<<20)
	if err != nil {
		t.Fatal(err)
	}
	r.Add(id, d)
	return d.(*memdev.Device)
}

func (r *rig) tolerance() int { return r.chunk.tolerance() }

// layouts are all profiles with all widths up to 8.
func layouts(f func(profile format.Profile, width int)) {
	f(format.Single, 1)
	for _, p := range []format.Profile{format.Mirror, format.RaidZ1, format.RaidZ2} {
		for width := p.MinDevices(); width <= 8; width++ {
			if p == format.Mirror && width > 4 {
				break
			}
			f(p, width)
		}
	}
}

// sizes are record sizes: whole and odd ones, and those around a sector.
var sizes = []int{1, 511, 4095, 4096, 4097, 8192, 10000, 12288, 16384, 20480, 33333, 65536, 65537, 99999, 128<<10 - 1, 128 << 10}

func randomBytes(seed uint64, n int) []byte {
	rng, b := rand.New(rand.NewPCG(seed, 77)), make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		v := rng.Uint64()
		for k := range 8 {
			b[i+k] = byte(v >> (8 * k))
		}
	}
	return b[:n]
}

func is(want []byte) func([]byte) bool {
	return func(got []byte) bool { return bytes.Equal(got, want) }
}

func (r *rig) write(t testing.TB, at format.Addr, data []byte) {
	t.Helper()
	if err := r.Write(r.chunk, at, data); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) sync(t testing.TB) {
	t.Helper()
	if err := r.SyncTouched(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// mustRead reads a record that must be there.
func (r *rig) mustRead(t testing.TB, at format.Addr, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if err := r.Read(r.chunk, at, got, is(want)); err != nil {
		t.Fatalf("%v of %d: %d bytes at %d: %v", r.chunk.Profile, len(r.chunk.Columns), len(want), at, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%v of %d: %d bytes at %d: wrong bytes", r.chunk.Profile, len(r.chunk.Columns), len(want), at)
	}
}

// subsets yields all subsets of n columns with so many elements.
func subsets(n, count int, f func([]int)) {
	var pick func(from int, chosen []int)
	pick = func(from int, chosen []int) {
		if len(chosen) == count {
			f(chosen)
			return
		}
		for i := from; i < n; i++ {
			pick(i+1, append(chosen[:len(chosen):len(chosen)], i))
		}
	}
	pick(0, nil)
}

// damage scribbles over all that a record has on a column, and tells whether
// that is anything.
func (r *rig) damage(seed uint64, at format.Addr, n, column int) bool {
	s := r.chunk.stripe(at, n)
	for i := range s.pieces() {
		if p := &s.all[i]; p.column == column {
			r.devs[column].Scribble(seed, p.off(r.chunk.Columns[column].Start), p.bytes())
			return true
		}
	}
	return false
}
