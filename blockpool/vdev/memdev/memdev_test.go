package memdev

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/vdev"
)

const mib = 1 << 20

func device(t testing.TB, j *Journal, path string, size int64) *Device {
	t.Helper()
	d, err := j.Create(path, size)
	if err != nil {
		t.Fatal(err)
	}
	return d.(*Device)
}

func write(t testing.TB, d *Device, off int64, data []byte) {
	t.Helper()
	if n, err := d.WriteAt(data, off); err != nil || n != len(data) {
		t.Fatalf("wrote %d bytes: %v", n, err)
	}
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// TestADeviceIsLikeBytes compares random operations, and states of all
// positions, with slices of bytes.
func TestADeviceIsLikeBytes(t *testing.T) {
	for seed := range uint64(4) {
		rng, j := newRand(seed, 0), NewJournal()
		const size = leafSize + 3*pageSize + 1234 // two leaves
		d := device(t, j, "a", size)
		model := make([]byte, size)
		models := [][]byte{{}, bytes.Clone(model)} // by position
		for range 60 {
			off := leafSize - 4*pageSize + rng.Int64N(7*pageSize)
			n := min(1+rng.Int64N(3*pageSize), size-off)
			switch rng.IntN(4) {
			case 0:
				off, n = off/pageSize*pageSize, min(pageSize, size-off/pageSize*pageSize)
				fallthrough
			case 1:
				data := fill(byte(rng.Uint32()), int(n))
				copy(model[off:], data)
				write(t, d, off, data)
				clear(data) // the device has its own copy
			case 2:
				if err := d.Discard(off, n); err != nil {
					t.Fatal(err)
				}
				clear(model[off : off+n])
			case 3:
				if err := d.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			models = append(models, bytes.Clone(model))
		}
		for s := range j.Prefixes() {
			if s.At == 0 {
				continue
			}
			if got := s.Journal.Device("a").Peek(0, size); !bytes.Equal(got, models[s.At]) {
				t.Fatalf("seed %d: %v differs", seed, s)
			}
		}
	}
}

// TestACrashKeepsWhatWasSyncedAndMixesTheRest also makes sure that every kind
// of loss is found.
func TestACrashKeepsWhatWasSyncedAndMixesTheRest(t *testing.T) {
	j := NewJournal()
	d := device(t, j, "a", mib)
	write(t, d, 0, fill(1, 4*pageSize))
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	j.Mark("synced")
	at := j.Len()
	write(t, d, 0, fill(2, 2*pageSize))
	write(t, d, 2*pageSize, fill(3, pageSize))
	seen := map[string]int{}
	for seed := range uint64(1000) {
		s := j.State(j.Len(), seed+1)
		got := s.Journal.Device("a").Peek(0, 4*pageSize)
		for i := 0; i < len(got); i += 512 {
			if !bytes.Equal(got[i:i+512], fill(got[i], 512)) {
				t.Fatalf("%v: a unit of 512 bytes is mixed", s)
			}
		}
		first, second := distinct(got[:2*pageSize]), distinct(got[2*pageSize:3*pageSize])
		if !bytes.Equal(got[3*pageSize:], fill(1, pageSize)) {
			t.Fatalf("%v: what was synced is gone", s)
		}
		seen[fmt.Sprint(first, second)]++
	}
	for _, want := range []string{"[1] [1]", "[2] [3]", "[1] [3]", "[2] [1]", "[1 2] [1]", "[2] [1 3]"} {
		if seen[want] == 0 {
			t.Errorf("no state has %s", want)
		}
	}
	for seed := range uint64(100) {
		s := j.State(at, seed)
		if got := s.Journal.Device("a").Peek(0, 4*pageSize); !bytes.Equal(got, fill(1, 4*pageSize)) {
			t.Fatalf("%v: what was synced has changed", s)
		}
	}
}

func distinct(b []byte) []byte {
	c := slices.Clone(b)
	slices.Sort(c)
	return slices.Compact(c)
}

func TestStatesAreTheSameInEveryRun(t *testing.T) {
	j := NewJournal()
	d := device(t, j, "a", mib)
	for i := range 100 {
		write(t, d, int64(i)*5000, fill(byte(i), 6000))
	}
	n := 0
	for s := range j.CrashStates(7) {
		again := j.State(s.At, s.Seed)
		if s.At > 0 && !bytes.Equal(s.Journal.Device("a").Peek(0, mib), again.Journal.Device("a").Peek(0, mib)) {
			t.Fatalf("%v differs from itself", s)
		}
		if n++; n == 50 {
			break
		}
	}
}

func TestMarksAndForeignEntriesKeepTheirPlace(t *testing.T) {
	j := NewJournal()
	d := device(t, j, "a", mib)
	write(t, d, 0, fill(1, 10))
	j.Mark("one")
	j.Add(10)
	j.Mark("two")
	for _, c := range []struct {
		at             int
		marks, foreign []any
	}{
		{2, nil, nil},
		{3, []any{"one"}, nil},
		{4, []any{"one"}, []any{10}},
		{5, []any{"one", "two"}, []any{10}},
	} {
		if s := j.State(c.at, 1); !slices.Equal(s.Marks(), c.marks) || !slices.Equal(s.Foreign(), c.foreign) {
			t.Errorf("%v has %v and %v", s, s.Marks(), s.Foreign())
		}
	}
}

// TestAStateRecordsToo crashes during the recovery from a crash.
func TestAStateRecordsToo(t *testing.T) {
	j := NewJournal()
	d := device(t, j, "a", mib)
	write(t, d, 0, fill(1, pageSize))
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	s := j.State(j.Len(), 5)
	opened, err := s.Journal.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	write(t, opened.(*Device), pageSize, fill(2, pageSize))
	lost, kept := 0, 0
	for seed := uint64(1); seed < 200; seed++ {
		got := s.Journal.State(s.Journal.Len(), seed).Journal.Device("a").Peek(0, 2*pageSize)
		if !bytes.Equal(got[:pageSize], fill(1, pageSize)) {
			t.Fatal("the second crash has changed what the first left")
		}
		if got[pageSize] == 2 {
			kept++
		} else {
			lost++
		}
	}
	if lost == 0 || kept == 0 {
		t.Errorf("%d lost, %d kept", lost, kept)
	}
	if d.Peek(pageSize, 1)[0] != 0 {
		t.Error("the journal's own device has changed")
	}
}

func TestALyingSyncMakesNothingDurable(t *testing.T) {
	j := NewJournal()
	d := device(t, j, "a", mib)
	d.Inject(Fault{Ops: Syncs, Drop: true, Times: 1})
	write(t, d, 0, fill(1, 1))
	for want := range 2 { // the first lies
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		lost := 0
		for seed := uint64(1); seed < 100; seed++ {
			if j.State(j.Len(), seed).Journal.Device("a").Peek(0, 1)[0] == 0 {
				lost++
			}
		}
		if (lost == 0) != (want == 1) {
			t.Errorf("after Sync %d the write is lost in %d states", want+1, lost)
		}
	}
}

func TestGrowIsDurableAfterSync(t *testing.T) {
	j := NewJournal()
	d := device(t, j, "a", pageSize)
	if err := d.Grow(2 * pageSize); err != nil {
		t.Fatal(err)
	}
	write(t, d, pageSize, fill(1, pageSize))
	sizes := map[int64]bool{}
	for seed := range uint64(100) {
		sizes[j.State(j.Len(), seed).Journal.Device("a").Size()] = true
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if len(sizes) != 2 || j.State(j.Len(), 3).Journal.Device("a").Size() != 2*pageSize {
		t.Errorf("sizes before the sync %v, after it %d", sizes, j.State(j.Len(), 3).Journal.Device("a").Size())
	}
	if err := d.Grow(1); err == nil {
		t.Error("shrunk")
	}
}

func TestFaultsHitTheOperationsTheyName(t *testing.T) {
	j := NewJournal()
	a, b := device(t, j, "a", mib), device(t, j, "b", mib)
	j.Inject(Fault{Ops: Writes, Skip: 2, Times: 1, Err: unix.ENOSPC})
	for i, d := range []*Device{a, b, a, b} {
		if _, err := d.WriteAt([]byte{1}, 0); errors.Is(err, unix.ENOSPC) != (i == 2) {
			t.Errorf("write %d: %v", i, err)
		}
	}
	a.Inject(Fault{Ops: Writes, Times: 1, Drop: true})
	write(t, a, 100, []byte{9})
	if a.Peek(100, 1)[0] != 0 {
		t.Error("a dropped write is there")
	}
	a.Inject(Fault{Ops: Writes, Times: 1, Shift: 1000})
	write(t, a, 100, []byte{9})
	if a.Peek(100, 1)[0] != 0 || a.Peek(1100, 1)[0] != 9 {
		t.Error("a misdirected write is elsewhere")
	}
	a.Inject(Fault{Ops: Writes, Times: 1, Err: unix.EIO, Short: 2})
	if n, err := a.WriteAt([]byte{1, 2, 3}, 200); n != 2 || !errors.Is(err, unix.EIO) || !bytes.Equal(a.Peek(200, 3), []byte{1, 2, 0}) {
		t.Errorf("broken off: %d, %v", n, err)
	}
	b.Inject(Fault{Ops: Reads, Times: 1, Shift: 4})
	write(t, b, 0, []byte{1, 2, 3, 4, 5})
	got := make([]byte, 1)
	if _, err := b.ReadAt(got, 0); err != nil || got[0] != 5 {
		t.Errorf("misdirected read: %v, %v", got, err)
	}
	start := time.Now()
	b.Inject(Fault{Ops: Discards, Times: 1, Delay: 20 * time.Millisecond})
	if err := b.Discard(0, 1); err != nil || time.Since(start) < 20*time.Millisecond {
		t.Errorf("delay: %v", err)
	}
	disarm := b.Inject(Fault{Err: unix.EIO})
	if _, err := b.ReadAt(got, 0); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
	disarm()
	if _, err := b.ReadAt(got, 0); err != nil {
		t.Errorf("after disarming: %v", err)
	}
	if n := j.Ops(Writes); n != 8 || a.Ops(Writes|Reads) != 5 {
		t.Errorf("%d writes, %d operations of a", n, a.Ops(Writes|Reads))
	}
}

func TestAFailedSyncFailsUntilReopened(t *testing.T) {
	j := NewJournal()
	d := device(t, j, "a", mib)
	d.Inject(Fault{Ops: Syncs, Times: 1, Err: unix.EIO})
	for range 2 {
		if err := d.Sync(); !errors.Is(err, vdev.ErrSyncFailed) || !errors.Is(err, unix.EIO) {
			t.Fatalf("got %v", err)
		}
	}
	d.Close()
	if _, err := j.Open("a"); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Errorf("after reopening: %v", err)
	}
}

func TestAPulledDeviceMayLoseWhatWasNotSynced(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		j := NewJournal()
		d := device(t, j, "a", mib)
		write(t, d, 0, fill(1, 1))
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		write(t, d, 1, fill(2, 1))
		d.Pull(seed)
		if _, err := d.ReadAt(make([]byte, 1), 0); !errors.Is(err, unix.EIO) {
			t.Fatalf("read: %v", err)
		}
		if err := d.Sync(); !errors.Is(err, vdev.ErrSyncFailed) {
			t.Fatalf("sync: %v", err)
		}
		d.Close()
		if _, err := j.Open("a"); !errors.Is(err, unix.ENXIO) {
			t.Fatalf("open: %v", err)
		}
		d.Return()
		if _, err := j.Open("a"); err != nil {
			t.Fatal(err)
		}
		got := d.Peek(0, 2)
		if got[0] != 1 || seed == 0 && got[1] != 2 {
			t.Fatalf("seed %d: %v", seed, got)
		}
		if got[1] == 0 {
			lost++
		}
		for s := range uint64(5) {
			if after := j.State(j.Len(), s).Journal.Device("a").Peek(0, 1); after[0] != 1 {
				t.Fatal("a crash after the pull has lost what was synced")
			}
		}
		if after := j.State(j.Len(), 0).Journal.Device("a").Peek(0, 2); !bytes.Equal(after, got) {
			t.Fatalf("replayed as %v, not %v", after, got)
		}
	}
	if lost == 0 || lost == 50 {
		t.Errorf("lost in %d of 50", lost)
	}
}

func TestDamageAtRestIsWhereItWasPut(t *testing.T) {
	j := NewJournal()
	d := device(t, j, "a", mib)
	write(t, d, 0, fill(0xff, 3*pageSize))
	d.Zero(10, 5)
	d.FlipBits(1, pageSize, pageSize, 3)
	d.Scribble(1, 2*pageSize, 64)
	got := d.Peek(0, 3*pageSize)
	if !bytes.Equal(got[9:16], []byte{0xff, 0, 0, 0, 0, 0, 0xff}) {
		t.Error("zeroed elsewhere")
	}
	flipped := 0
	for _, b := range got[pageSize : 2*pageSize] {
		for ; b != 0xff; b |= b + 1 {
			flipped++
		}
	}
	if flipped != 3 {
		t.Errorf("%d bits have flipped", flipped)
	}
	if len(distinct(got[2*pageSize:2*pageSize+64])) < 10 || len(distinct(got[2*pageSize+64:])) != 1 {
		t.Error("scribbled elsewhere")
	}
	if s := j.State(j.Len(), 0); !bytes.Equal(s.Journal.Device("a").Peek(0, 3*pageSize), got) {
		t.Error("a state has not the same damage")
	}
}

func TestDevicesRefuseWhatFilesRefuse(t *testing.T) {
	d := New("a", pageSize)
	if n, err := d.ReadAt(make([]byte, 10), pageSize-4); n != 4 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := d.WriteAt(make([]byte, 10), pageSize-4); !errors.Is(err, vdev.ErrBeyondEnd) {
		t.Error(err)
	}
	if err := d.Discard(-1, 4); !errors.Is(err, vdev.ErrBeyondEnd) {
		t.Error(err)
	}
	if _, err := d.journal.Open("a"); !errors.Is(err, vdev.ErrInUse) {
		t.Error(err)
	}
	if _, err := d.journal.Create("a", 1); err == nil {
		t.Error("created twice")
	}
}

func TestParallelUse(t *testing.T) {
	j := NewJournal()
	d := device(t, j, "a", mib)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 0))
			for range 100 {
				off := int64(g)*(mib/8) + rng.Int64N(mib/8-pageSize)
				data := fill(byte(g+1), 1+rng.IntN(pageSize))
				got := make([]byte, len(data))
				d.WriteAt(data, off)
				d.ReadAt(got, off)
				if !bytes.Equal(got, data) {
					t.Error("another goroutine's bytes")
				}
				d.Sync()
				j.State(rng.IntN(j.Len()+1), rng.Uint64()).Journal.Devices()
			}
		})
	}
	wg.Wait()
}

// pool is a journal like that of a small pool: four devices, records of 16 KiB,
// a sync of all every 16 writes.
func pool(b testing.TB) *Journal {
	j := NewJournal()
	var devices []*Device
	for i := range 4 {
		devices = append(devices, device(b, j, fmt.Sprint(i), 4*mib))
	}
	rng := newRand(1, 1)
	for i := range 2000 {
		write(b, devices[rng.IntN(4)], rng.Int64N(255)*16384, fill(byte(i), 16384))
		if i%16 == 0 {
			for _, d := range devices {
				if err := d.Sync(); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	return j
}

func BenchmarkState(b *testing.B) {
	j := pool(b)
	next, seed := 0, uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		seed++
		next = (next + 37) % j.Len()
		j.State(next, seed)
	}
}
