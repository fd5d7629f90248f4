package raid

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// withShadow returns the chunk of a rig with a column that moves to a new
// device 50, and the chunk with the column moved.
func (r *rig) withShadow(t testing.TB, column int) (moving, moved *Chunk) {
	r.plug(t, 50)
	to := Place{Device: 50, Start: 8 * sector}
	m, d := *r.chunk, *r.chunk
	m.Columns = slices.Clone(r.chunk.Columns)
	m.Columns[column].Shadow = &to
	d.Columns = slices.Clone(r.chunk.Columns)
	d.Columns[column] = Column{Device: to.Device, Start: to.Start}
	return &m, &d
}

// TestAColumnMovesWhileItIsWritten copies a column under writes; what is
// written before, during and after is on the new device.
func TestAColumnMovesWhileItIsWritten(t *testing.T) {
	for _, c := range []struct {
		profile format.Profile
		width   int
	}{{format.Single, 1}, {format.Mirror, 2}} {
		r := newRig(t, c.profile, c.width)
		const n = 8192
		all := map[format.Addr][]byte{}
		for i := range 200 {
			at := format.Addr(chunkBase + i*20)
			all[at] = randomBytes(uint64(i), n)
			r.write(t, at, all[at])
		}
		moving, moved := r.withShadow(t, 0)
		var wg sync.WaitGroup
		var stop atomic.Bool
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, 1))
			for i := uint64(1000); !stop.Load(); i++ {
				at := format.Addr(chunkBase + rng.IntN(200)*20)
				data := randomBytes(i, n)
				if err := r.Write(moving, at, data); err != nil {
					t.Error(err)
				}
				all[at] = data
			}
		})
		last := int64(0)
		if err := r.Copy(context.Background(), moving, 0, func(done int64) { last = done }); err != nil {
			t.Fatal(err)
		}
		stop.Store(true)
		wg.Wait()
		if last != moving.ColumnBytes() {
			t.Errorf("%d bytes were copied", last)
		}
		r.sync(t)
		for i := range c.width {
			r.Remove(r.id(i))
		}
		r.chunk = moved
		for at, data := range all {
			r.mustRead(t, at, data)
		}
	}
}

func TestAMissingMirrorColumnIsCopiedFromAnother(t *testing.T) {
	r := newRig(t, format.Mirror, 2)
	data := randomBytes(1, 100000)
	r.write(t, chunkBase, data)
	moving, moved := r.withShadow(t, 0)
	r.Remove(10)
	if err := r.Copy(context.Background(), moving, 0, nil); err != nil {
		t.Fatal(err)
	}
	r.Remove(11)
	r.chunk = moved
	r.mustRead(t, chunkBase, data)
}

func TestCopySaysWhyItCannot(t *testing.T) {
	r := newRig(t, format.Mirror, 2)
	if err := r.Copy(context.Background(), r.chunk, 0, nil); err == nil {
		t.Error("copied to nowhere")
	}
	moving, _ := r.withShadow(t, 0)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Copy(ctx, moving, 0, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	r.host.Device("dev50").Inject(memdev.Fault{Ops: memdev.Writes, Err: unix.ENOSPC})
	if err := r.Copy(context.Background(), moving, 0, nil); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("full: %v", err)
	}
}

// TestAColumnIsRebuiltRecordByRecord replaces each column of each layout, with
// the old device there and with it gone.
func TestAColumnIsRebuiltRecordByRecord(t *testing.T) {
	redundant(func(profile format.Profile, width int) {
		for column := range width {
			for _, gone := range []bool{false, true} {
				r := newRig(t, profile, width)
				old, fresh := randomBytes(1, 100001), randomBytes(2, 100001)
				second := chunkBase + format.Addr(r.chunk.Need(100001))
				r.write(t, chunkBase, old)
				moving, moved := r.withShadow(t, column)
				if gone {
					r.Remove(r.id(column))
				}
				r.chunk = moving
				r.write(t, second, fresh) // goes to both
				r.mustRead(t, chunkBase, old)
				r.mustRead(t, second, fresh)
				if err := r.Rebuild(moving, chunkBase, len(old), is(old), column); err != nil {
					t.Fatal(err)
				}
				r.sync(t)
				r.Remove(r.id(column))
				r.chunk = moved
				for at, data := range map[format.Addr][]byte{chunkBase: old, second: fresh} {
					result, err := r.Scrub(moved, at, len(data), is(data))
					if err != nil || result.Total().Mended+result.Total().Unrecoverable > 0 {
						t.Fatalf("%v of %d, column %d, gone %v: %+v, %v", profile, width, column, gone, result, err)
					}
				}
			}
		}
	})
}

// TestAShadowCountsWhenItsColumnIsGone writes with the column missing: the
// shadow makes up for it, so that another device may fail as well.
func TestAShadowCountsWhenItsColumnIsGone(t *testing.T) {
	redundant(func(profile format.Profile, width int) {
		r := newRig(t, profile, width)
		data := randomBytes(2, 128<<10)
		moving, _ := r.withShadow(t, 0)
		r.chunk = moving
		r.Remove(10)
		for i := range r.tolerance() {
			r.Remove(r.id(1 + i))
		}
		r.write(t, chunkBase, data)
		r.sync(t)
		r.mustRead(t, chunkBase, data)
	})
}

// TestAGoodShadowSavesARecord has as many bad columns as may be and one more,
// which has a good shadow.
func TestAGoodShadowSavesARecord(t *testing.T) {
	redundant(func(profile format.Profile, width int) {
		r := newRig(t, profile, width)
		data := randomBytes(2, 128<<10)
		r.chunk, _ = r.withShadow(t, 0)
		r.write(t, chunkBase, data)
		for i := range r.tolerance() + 1 {
			r.damage(uint64(i), chunkBase, len(data), i)
		}
		r.mustRead(t, chunkBase, data)
	})
}

func TestNothingIsCopiedForWholeRecords(t *testing.T) {
	data := randomBytes(1, 3*sector)
	if padded, done := pad(data); &padded[0] != &data[0] {
		t.Error("whole sectors were copied")
	} else {
		done()
	}
	padded, done := pad(data[:sector+1])
	defer done()
	if len(padded) != 2*sector || !bytes.Equal(padded[sector+1:], make([]byte, sector-1)) {
		t.Error("the last sector is not continued by zeros")
	}
}

// TestDiscardHitsTheSectorsItNames writes three records and discards the middle
// one: it takes with it all of its sectors and none of the others'.
func TestDiscardHitsTheSectorsItNames(t *testing.T) {
	layouts(func(profile format.Profile, width int) {
		r := newRig(t, profile, width)
		const n = 50000
		need := r.chunk.Need(n)
		data := randomBytes(1, n)
		used := func() (sum int64) {
			for _, d := range r.devs {
				sum += d.Used()
			}
			return sum
		}
		mid := format.Addr(chunkBase + need)
		r.write(t, chunkBase, data)
		r.write(t, mid+format.Addr(need), data)
		before := used()
		r.write(t, mid, data)
		if err := r.Discard(r.chunk, mid, need); err != nil {
			t.Fatal(err)
		}
		if used() != before {
			t.Errorf("%v of %d: %d bytes are left of the record", profile, width, used()-before)
		}
		for _, at := range []format.Addr{chunkBase, mid + format.Addr(need)} {
			if result, err := r.Scrub(r.chunk, at, n, is(data)); err != nil || result.Total().Mended > 0 {
				t.Fatalf("%v of %d: a neighbour has suffered: %+v, %v", profile, width, result, err)
			}
		}
	})
	r := newRig(t, format.Single, 1)
	if err := r.Discard(r.chunk, chunkBase+chunkSize-1, 2); err == nil {
		t.Error("discarded beyond the chunk")
	}
}
