package blockpool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// cached returns record n as the tests below know it, and its content.
func cached(n, size int) (format.Record, []byte) {
	b := bytes.Repeat(binary.LittleEndian.AppendUint32(nil, uint32(n)), size/4+1)[:size]
	return format.Record{Addr: format.Addr(n * 32), Size: uint32(size), Sum: uint64(n), Birth: uint64(n%7) + 1}, b
}

func (c *readCache) has(n, size int) bool {
	r, b := cached(n, size)
	got := make([]byte, size)
	return c.copy(r, 0, got) && bytes.Equal(got, b)
}

func TestTheReadCacheNeverGivesAnotherRecord(t *testing.T) {
	c := newReadCache(2 << 20)
	defer c.close()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for range 5000 {
				n := rng.IntN(400)
				size := 4096 << (n % 4)
				if n%5 == 0 {
					size -= 100
				}
				r, b := cached(n, size)
				within := rng.IntN(size)
				got := make([]byte, 1+rng.IntN(size-within))
				if !c.copy(r, int64(within), got) {
					c.add(r, b)
				} else if !bytes.Equal(got, b[within:within+len(got)]) {
					t.Errorf("record %d, %d bytes at %d: other bytes", n, len(got), within)
					return
				}
				r.Birth++ // the same sectors, written anew
				if c.copy(r, 0, got[:1]) {
					t.Errorf("record %d was found under another birth", n)
				}
			}
		})
	}
	wg.Wait()
	for i := range c.shards {
		s := &c.shards[i]
		if total := s.limit / cachePage; s.in.pages+s.main.pages+len(s.free) != total || s.gone.pages > total {
			t.Errorf("shard %d of %d pages: %d on trial, %d kept, %d free, %d remembered", i, total, s.in.pages, s.main.pages, len(s.free), s.gone.pages)
		}
	}
}

func TestOnePassOverAVolumeDoesNotPushOutWhatIsReadAgainAndAgain(t *testing.T) {
	const size, hot, pass = 16 << 10, 60, 5000
	c := newReadCache(4 << 20) // 256 such records
	defer c.close()
	read := func(n int) bool {
		if c.has(n, size) {
			return true
		}
		r, b := cached(n, size)
		c.add(r, b)
		return false
	}
	for round := range 6 { // with others between, so that the hot ones leave and come back
		for n := range hot {
			read(n)
		}
		for n := range 300 {
			read(10_000 + round*300 + n)
		}
	}
	for n := range pass {
		for range 4 { // each record in small pieces
			read(100_000 + n)
		}
	}
	left := 0
	for n := range hot {
		if read(n) {
			left++
		}
	}
	if left < hot*9/10 {
		t.Errorf("%d of %d records that are read all the time are left after one pass over %d others", left, hot, pass)
	}
}

func TestAReadCacheOfNothingAndAClosedOneKeepNothing(t *testing.T) {
	none, closed := newReadCache(-1), newReadCache(1<<20)
	r, b := cached(1, 4096)
	closed.add(r, b)
	closed.close()
	closed.close()
	for _, c := range []*readCache{none, closed} {
		c.add(r, b)
		if c.has(1, 4096) {
			t.Error("a record was kept")
		}
	}
}

// TestSmallReadsComeFromMemoryAndAScrubLooksAtTheDevice damages what was read in
// part: that can still be read and changed, and the scrub finds it all the same.
func TestSmallReadsComeFromMemoryAndAScrubLooksAtTheDevice(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateVolume(ctx, "vol", 1<<20, VolumeOptions{RecordSize: 16 << 10}))
	v := b.volume("vol")
	want := fill(64<<10, 3)
	_, err := v.WriteAt(want, 0)
	b.must(err)
	all := b.records()
	read := func() {
		t.Helper()
		got := make([]byte, 100)
		for off := int64(0); off < 64<<10; off += 1000 {
			if _, err := v.ReadAt(got[:min(100, 64<<10-off)], off); err != nil || !bytes.Equal(got[:min(100, 64<<10-off)], want[off:min(off+100, 64<<10)]) {
				t.Fatalf("at %d: %v", off, err)
			}
		}
	}
	read()
	for _, rec := range all {
		path, off := b.place(rec, 0)
		b.journal.Device(path).FlipBits(1, off, format.SectorSize, 3)
	}
	read()
	st, err := b.Scrub(ctx, ScrubOptions{})
	b.must(err)
	if st.LostRecords != uint64(len(all)) {
		t.Errorf("%d of %d damaged records were found by a scrub", st.LostRecords, len(all))
	}
	copy(want[5000:], "changed")
	_, err = v.WriteAt([]byte("changed"), 5000)
	b.must(err)
	b.must(b.Sync(ctx))
	read()
	b.reopen()
	v = b.volume("vol")
	if _, err := v.ReadAt(make([]byte, 100), 20_000); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged record that is not in memory: %v", err)
	}
	if _, err := v.ReadAt(make([]byte, 100), 0); err != nil {
		t.Errorf("the record that was changed in memory: %v", err)
	}
}
