package blockpool

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// A copy of a volume that skips its holes must have all of its data, also what was
// written a moment ago.
func TestAllocatedTellsDataFromHolesAsTheyAreNow(t *testing.T) {
	const size, record = 3<<20 + 1000, 4 << 10
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateVolume(ctx, "v", size, VolumeOptions{RecordSize: record}))
	v := b.volume("v")
	defer v.Close()
	allocated := make([]bool, recordsIn(size, record)) // the model
	rng := rand.New(rand.NewPCG(3, 4))
	for step := range 300 {
		off := rng.Int64N(size)
		n := 1 + rng.Int64N(min(size-off, 200<<10))
		if rng.IntN(3) == 0 {
			b.must(v.Discard(ctx, off, n))
			end := (off + n) / record
			if off+n == size {
				end = int64(len(allocated))
			}
			for i := (off + record - 1) / record; i < end; i++ {
				allocated[i] = false
			}
		} else {
			if _, err := v.WriteAt(bytes.Repeat([]byte{7}, int(n)), off); err != nil {
				t.Fatal(err)
			}
			for i := off / record; i <= (off+n-1)/record; i++ {
				allocated[i] = true
			}
		}
		if rng.IntN(10) == 0 {
			b.must(b.Sync(ctx))
		}
		from := rng.Int64N(size)
		for at := from; at < size; {
			n, hole, err := v.Allocated(at, size-at)
			if err != nil || n <= 0 || n > size-at {
				t.Fatalf("step %d: %d bytes at %d, %v", step, n, at, err)
			}
			for i := at / record; i <= (at+n-1)/record; i++ {
				if allocated[i] == hole {
					t.Fatalf("step %d: record %d in a run of %d bytes at %d: hole %v", step, i, n, at, hole)
				}
			}
			if end := at + n; end < size && end%record != 0 {
				t.Fatalf("step %d: the run at %d ends within a record, at %d", step, at, end)
			}
			at += n
		}
		if n, _, err := v.Allocated(from, 1); n != 1 || err != nil {
			t.Fatalf("one byte at %d: %d, %v", from, n, err)
		}
	}
	for _, bad := range [][2]int64{{-1, 1}, {size, 1}, {0, 0}, {0, -1}} {
		if _, _, err := v.Allocated(bad[0], bad[1]); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d bytes at %d: %v", bad[1], bad[0], err)
		}
	}
}

// A mostly empty volume of many terabytes is mapped in a few steps.
func TestAllocatedIsCheapOverLongRuns(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	const size = 1 << 45
	b.must(b.CreateVolume(ctx, "v", size, VolumeOptions{RecordSize: 4 << 10}))
	v := b.volume("v")
	defer v.Close()
	for _, off := range []int64{1 << 30, 1 << 40, size - 1} {
		if _, err := v.WriteAt([]byte{1}, off); err != nil {
			t.Fatal(err)
		}
	}
	b.must(b.Sync(ctx))
	if _, err := v.WriteAt([]byte{1}, 1<<42); err != nil {
		t.Fatal(err)
	}
	steps, data := 0, 0
	for at := int64(0); at < size; steps++ {
		n, hole, err := v.Allocated(at, size-at)
		if err != nil {
			t.Fatal(err)
		}
		if !hole {
			data++
		}
		at += n
	}
	if steps != 8 || data != 4 {
		t.Errorf("%d runs, %d of them data", steps, data)
	}
}

// A volume that is full takes many looks, and each covers something.
func TestLooksNeverCoverNothing(t *testing.T) {
	window := uint64(mapFirst)
	for range 200 {
		next := wider(window)
		if next < window {
			t.Fatalf("after %d records come %d", window, next)
		}
		window = next
	}
}
