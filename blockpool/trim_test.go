package blockpool

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
)

func TestTrimGivesBackZerosAndKeepsTheContent(t *testing.T) {
	for _, record := range []int64{4 << 10, 32 << 10} {
		b := newBench(t, Config{}, 1, 64<<20)
		b.must(b.CreateVolume(ctx, "v", 8<<20+100, VolumeOptions{RecordSize: record}))
		v := b.volume("v")
		defer v.Close()
		want := make([]byte, v.Size())
		// Zeros in parts of records too, so that a check finds them in any case.
		for i := range 200 {
			p := fill(5000, uint64(i))
			if _, err := v.WriteAt(p, int64(i)*40_000); err != nil {
				t.Fatal(err)
			}
			copy(want[i*40_000:], p)
		}
		for off := 100; off < len(want); off += 20_000 {
			end := min(off+20_000, len(want))
			if bytes.Equal(want[off:end], make([]byte, end-off)) || off%3 == 0 {
				clear(want[off:end])
				if _, err := v.WriteAt(want[off:end], int64(off)); err != nil {
					t.Fatal(err)
				}
			}
		}
		allocated := func() (n int64) {
			b.must(b.Sync(ctx))
			return v.Stat().Referenced
		}
		before := allocated()
		zeros := int64(0)
		for at := int64(0); at < v.Size(); at += record {
			if n, hole, err := v.Allocated(at, 1); n != 1 || err != nil {
				t.Fatal(n, err)
			} else if !hole && isZero(want[at:min(at+record, v.Size())]) {
				zeros += record
			}
		}
		freed, err := v.Trim(ctx)
		b.must(err)
		if got := before - allocated(); freed != zeros || got != zeros || zeros == 0 {
			t.Errorf("records of %d: freed %d, the volume has %d less, zeros were %d", record, freed, got, zeros)
		}
		if !bytes.Equal(b.content("v"), want) {
			t.Error("content has changed")
		}
		if freed, err := v.Trim(ctx); freed != 0 || err != nil {
			t.Errorf("once more: %d, %v", freed, err)
		}
		b.must(b.Snapshot(ctx, "v", "v@s"))
		s := b.volume("v@s")
		if _, err := s.Trim(ctx); !errors.Is(err, ErrReadOnly) {
			t.Errorf("trim of a snapshot: %v", err)
		}
		s.Close()
	}
}

// What is written while a trim runs is not taken for the zeros that were there.
func TestTrimLosesNoWriteThatComesMeanwhile(t *testing.T) {
	const records, size = 256, 4 << 10
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateVolume(ctx, "v", records*size, VolumeOptions{RecordSize: size}))
	v := b.volume("v")
	defer v.Close()
	for round := range 20 {
		for i := range int64(records) { // one by one: as whole runs they might not be stored
			if _, err := v.WriteAt([]byte{0}, i*size); err != nil {
				t.Fatal(err)
			}
		}
		want := make([]byte, records*size)
		rng := rand.New(rand.NewPCG(uint64(round), 1))
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := v.Trim(ctx); err != nil {
				t.Error(err)
			}
		})
		for range 200 {
			off := rng.IntN(records*size - 10)
			p := fill(10, rng.Uint64())
			copy(want[off:], p)
			if _, err := v.WriteAt(p, int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		if !bytes.Equal(b.content("v"), want) {
			t.Fatalf("round %d: a write is lost", round)
		}
		b.must(v.Discard(ctx, 0, v.Size()))
	}
}
