package blockpool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// told is what Delta has told of each record.
func (b *bench) told(from, to string) map[uint64]Change {
	b.Helper()
	told := map[uint64]Change{}
	var last change
	b.must(b.Delta(ctx, from, to, func(first, count uint64, c Change) error {
		switch {
		case count == 0 || last.count > 0 && first < last.first+last.count:
			b.Fatalf("%d records from %d after %d from %d", count, first, last.count, last.first)
		case c == last.Change && first == last.first+last.count:
			b.Fatalf("%d and %d records from %d on are one run", last.count, count, last.first)
		}
		last = change{Change: c, first: first, count: count}
		for i := range count {
			told[first+i] = c
		}
		return nil
	}))
	return told
}

func (b *bench) compareTold(step string, got, want map[uint64]Change) {
	b.Helper()
	for n, c := range want {
		if got[n] != c {
			b.Fatalf("%s: record %d is %v, told %v", step, n, c, got[n])
		}
	}
	if len(got) != len(want) {
		b.Fatalf("%s: %d records are told, %d differ", step, len(got), len(want))
	}
}

// What a backup copies by Delta is all that it lacks.
func TestDeltaTellsEveryRecordThatDiffers(t *testing.T) {
	const records, size = 40_000, 4 << 10
	b := newBench(t, Config{}, 1, 512<<20)
	b.must(b.CreateVolume(ctx, "v", records*size, VolumeOptions{RecordSize: size}))
	v := b.volume("v")
	defer v.Close()
	rng := rand.New(rand.NewPCG(5, 6))
	now := map[uint64]int{} // version of each record that is no hole
	version := 0
	var past []map[uint64]int
	for s := range 6 {
		for range 20 {
			first := rng.Uint64N(records)
			count := 1 + rng.Uint64N(min(records-first, 1000))
			if rng.IntN(3) == 0 {
				b.must(v.Discard(ctx, int64(first*size), int64(count*size)))
				for i := range count {
					delete(now, first+i)
				}
				continue
			}
			if _, err := v.WriteAt(make([]byte, count*size), int64(first*size)); err != nil {
				t.Fatal(err)
			}
			version++
			for i := range count {
				now[first+i] = version
			}
		}
		b.must(b.Snapshot(ctx, "v", fmt.Sprintf("v@%d", s)))
		was := map[uint64]int{}
		for n, v := range now {
			was[n] = v
		}
		past = append(past, was)
	}
	for x := range past {
		for y := range past {
			want := map[uint64]Change{}
			for n, v := range past[y] {
				if past[x][n] != v {
					want[n] = Written
				}
			}
			for n := range past[x] {
				if past[y][n] == 0 {
					want[n] = Hole
				}
			}
			b.compareTold(fmt.Sprintf("from %d to %d", x, y), b.told(fmt.Sprintf("v@%d", x), fmt.Sprintf("v@%d", y)), want)
		}
	}
	whole := map[uint64]Change{}
	for n := range past[3] {
		whole[n] = Written
	}
	b.compareTold("from nothing", b.told("", "v@3"), whole)
}

func TestDeltaSaysWhyNot(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateVolume(ctx, "a", 1<<20, VolumeOptions{RecordSize: 4 << 10}))
	b.must(b.CreateVolume(ctx, "b", 1<<20, VolumeOptions{RecordSize: 8 << 10}))
	none := func(uint64, uint64, Change) error { return nil }
	if err := b.Delta(ctx, "a", "b", none); !errors.Is(err, ErrInvalid) {
		t.Errorf("different record sizes: %v", err)
	}
	if err := b.Delta(ctx, "a", "c", none); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such volume: %v", err)
	}
	v := b.volume("a")
	defer v.Close()
	if _, err := v.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	b.must(b.Sync(ctx))
	enough := errors.New("enough of it")
	if err := b.Delta(ctx, "", "a", func(uint64, uint64, Change) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("an error of f: %v", err)
	}
	if got := b.Volumes(); len(got) != 2 || b.Destroy(context.Background(), "b") != nil {
		t.Error("a handle was kept")
	}
}
