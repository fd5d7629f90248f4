package intent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var testGUID = [16]byte{9, 8, 7}

func mustOpen(t testing.TB, a Area, committed uint64) *Log {
	t.Helper()
	l, err := Open(a, testGUID, committed)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustAppend(t testing.TB, l *Log, txg uint64, payload string) {
	t.Helper()
	if _, err := l.Append(txg, Write, []byte(payload)); err != nil {
		t.Fatal(err)
	}
}

// replay returns what is replayed as "txg:payload".
func replay(t testing.TB, a Area, committed uint64) (got []string, last uint64) {
	t.Helper()
	last, err := Replay(a, testGUID, committed, func(txg uint64, kind Kind, payload []byte) error {
		got = append(got, fmt.Sprintf("%d:%s", txg, payload))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got, last
}

// A history is a pool's life: it appends, flushes, commits, crashes and goes on,
// and knows what must be replayed.
type history struct {
	t         testing.TB
	rng       *rand.Rand
	area      *memArea
	log       *Log
	committed uint64
	txg       uint64   // open
	appended  []string // in groups behind committed
	txgs      []uint64 // of each
	flushed   int      // how many of them are durable
	serial    int
}

func (h *history) step() {
	switch h.rng.IntN(12) {
	case 0, 1:
		if err := h.log.Flush(context.Background()); err != nil {
			h.t.Fatal(err)
		}
		h.flushed = len(h.appended)
	case 2: // close the group, or commit the one that is closed
		if h.txg == h.committed+2 || h.rng.IntN(3) == 0 {
			h.commit(h.txg - 1)
		}
		h.txg = max(h.txg, h.committed+1)
		if h.txg < h.committed+2 {
			h.txg++
		}
	default:
		h.serial++
		payload := fmt.Sprintf("%d", h.serial) + string(bytes.Repeat([]byte{'.'}, h.rng.IntN(1500)))
		_, err := h.log.Append(h.txg, Write, []byte(payload))
		if errors.Is(err, ErrFull) {
			return
		}
		if err != nil {
			h.t.Fatal(err)
		}
		h.appended = append(h.appended, fmt.Sprintf("%d:%s", h.txg, payload))
		h.txgs = append(h.txgs, h.txg)
	}
}

func (h *history) commit(txg uint64) {
	if txg <= h.committed {
		return
	}
	h.committed = txg
	h.log.Release(txg)
	gone := 0
	for gone < len(h.txgs) && h.txgs[gone] <= txg {
		gone++
	}
	h.appended, h.txgs = h.appended[gone:], h.txgs[gone:]
	h.flushed = max(0, h.flushed-gone)
}

// check looks at one state that a crash now could leave.
func (h *history) check(disk *memArea) (last uint64) {
	h.t.Helper()
	got, last := replay(h.t, disk, h.committed)
	if len(got) < h.flushed || len(got) > len(h.appended) {
		h.t.Fatalf("%d records replayed, of %d appended and %d flushed", len(got), len(h.appended), h.flushed)
	}
	for i := range got {
		if got[i] != h.appended[i] {
			h.t.Fatalf("record %d is %.20q, not %.20q", i, got[i], h.appended[i])
		}
	}
	if len(got) > 0 && last < h.txgs[len(got)-1] {
		h.t.Fatalf("last txg %d, and one of %d was replayed", last, h.txgs[len(got)-1])
	}
	return last
}

// TestFlushedWritesSurviveEveryCrash lets a pool crash in many states, and go on
// from some of them, over and over in the same area.
func TestFlushedWritesSurviveEveryCrash(t *testing.T) {
	states := 0
	for seed := range uint64(20 / slower) {
		h := &history{t: t, rng: rand.New(rand.NewPCG(seed, 1)), area: newArea(3*10*blockSize + int64(seed%2)*700), txg: 1}
		h.log = mustOpen(t, h.area, 0)
		for range 600 {
			h.step()
			for range 2 {
				h.check(h.area.crash(h.rng))
				states++
			}
			if h.rng.IntN(60) == 0 { // this crash happens
				h.area = h.area.crash(h.rng)
				last := h.check(h.area)
				h.commit(max(last, h.txg) + 1)
				h.log, h.txg = mustOpen(t, h.area, h.committed), h.committed+1
			}
		}
	}
	t.Logf("%d crash states", states)
}

func TestKilledProcessLosesNothingAppended(t *testing.T) {
	a := newArea(1 << 20)
	l := mustOpen(t, a, 4)
	mustAppend(t, l, 5, "a")
	mustAppend(t, l, 6, "b")
	mustAppend(t, l, 6, "")
	if got, last := replay(t, a, 4); fmt.Sprint(got) != "[5:a 6:b 6:]" || last != 6 {
		t.Errorf("%q, last %d", got, last)
	}
	if got, _ := replay(t, a, 5); fmt.Sprint(got) != "[6:b 6:]" {
		t.Errorf("%q", got)
	}
}

func TestGroupWithoutItsEndStopsReplay(t *testing.T) {
	a := newArea(1 << 20)
	l := mustOpen(t, a, 0)
	mustAppend(t, l, 1, "a")
	mustAppend(t, l, 1, "b")
	mustAppend(t, l, 2, "c")
	clear(a.now[segmentOf(1, l.segment)+2*recordSize(1):][:headerSize])
	if got, last := replay(t, a, 0); fmt.Sprint(got) != "[1:a 1:b]" || last != 2 {
		t.Errorf("%q, last %d: records of a group were replayed behind a gap", got, last)
	}
}

func TestGroupWithoutRecordsDoesNotStopReplay(t *testing.T) {
	a := newArea(1 << 20)
	l := mustOpen(t, a, 7)
	mustAppend(t, l, 9, "a")
	if got, _ := replay(t, a, 7); fmt.Sprint(got) != "[9:a]" {
		t.Errorf("%q", got)
	}
}

func TestStaleRecordsAreNeverReplayed(t *testing.T) {
	a := newArea(3 * 8 * blockSize)
	l := mustOpen(t, a, 0)
	rng := rand.New(rand.NewPCG(3, 3))
	for txg := uint64(1); txg < 2000/slower; txg++ {
		n := rng.IntN(40)
		for i := range n {
			mustAppend(t, l, txg, fmt.Sprintf("%d/%d", txg, i))
		}
		got, _ := replay(t, a, txg-1)
		if len(got) != n {
			t.Fatalf("txg %d: %d records, not %d", txg, len(got), n)
		}
		l.Release(txg)
		if got, _ := replay(t, a, txg); len(got) != 0 {
			t.Fatalf("txg %d is committed: %q", txg, got)
		}
	}
}

func TestUncommittedGroupIsNotOverwritten(t *testing.T) {
	a := newArea(1 << 20)
	l := mustOpen(t, a, 0)
	for txg := uint64(1); txg <= 3; txg++ {
		mustAppend(t, l, txg, "x")
	}
	if _, err := l.Append(4, Write, []byte("y")); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	l.Release(1)
	mustAppend(t, l, 4, "y")
	for _, txg := range []uint64{1, 3} {
		if _, err := l.Append(txg, Write, nil); err == nil {
			t.Errorf("append to txg %d was taken", txg)
		}
	}
	if got, _ := replay(t, a, 1); fmt.Sprint(got) != "[2:x 3:x 4:y]" {
		t.Errorf("%q", got)
	}
}

func TestFullSegmentLeavesRoomForTheNextGroup(t *testing.T) {
	a := newArea(3 * 4 * blockSize)
	l := mustOpen(t, a, 0)
	if _, err := l.Append(1, Write, make([]byte, 4*blockSize)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	n := 0
	for ; ; n++ {
		_, err := l.Append(1, Write, make([]byte, 900))
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if n == 0 || l.Room() != 0 {
		t.Errorf("%d records, room for %d bytes", n, l.Room())
	}
	mustAppend(t, l, 2, "next")
	if got, _ := replay(t, a, 0); len(got) != n+1 || got[n] != "2:next" {
		t.Errorf("%d of %d records", len(got), n+1)
	}
}

func TestFailedSyncFailsEveryLaterFlush(t *testing.T) {
	a := newArea(1 << 20)
	l := mustOpen(t, a, 0)
	mustAppend(t, l, 1, "a")
	a.syncErr = errors.New("the disk is gone")
	if err := l.Flush(context.Background()); !errors.Is(err, a.syncErr) {
		t.Errorf("got %v", err)
	}
	broken := a.syncErr
	a.syncErr = nil
	if err := l.Flush(context.Background()); !errors.Is(err, broken) {
		t.Errorf("a flush after a failed one: %v", err)
	}
	if _, err := l.Append(1, Write, nil); !errors.Is(err, broken) {
		t.Errorf("an append after a failed flush: %v", err)
	}
}

func TestFailedWriteFailsEveryLaterFlush(t *testing.T) {
	a := newArea(1 << 20)
	l := mustOpen(t, a, 0)
	a.writeErr = errors.New("no copy took it")
	if _, err := l.Append(1, Write, nil); !errors.Is(err, a.writeErr) {
		t.Errorf("got %v", err)
	}
	if err := l.Flush(context.Background()); !errors.Is(err, a.writeErr) {
		t.Errorf("got %v", err)
	}
}

func TestCancelEndsTheWaitingAndNotTheSync(t *testing.T) {
	a := newArea(1 << 20)
	l := mustOpen(t, a, 0)
	begun, go_on := make(chan struct{}), make(chan struct{})
	a.onSync = func() { close(begun); <-go_on }
	mustAppend(t, l, 1, "a")
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-begun; cancel() }()
	if err := l.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	a.onSync = nil
	close(go_on)
	if err := l.Flush(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestFlushesShareSyncs: of 16 writers, at least 8 are served by each sync of a
// millisecond. A writer that is alone gets one for each flush. On a busy machine
// writers come late, so the best of some runs counts.
func TestFlushesShareSyncs(t *testing.T) {
	perSync := func(writers int) float64 {
		a := newArea(64 << 20)
		var syncs, flushes atomic.Int64
		a.onSync = func() { syncs.Add(1); time.Sleep(time.Millisecond) }
		l := mustOpen(t, a, 0)
		var wg sync.WaitGroup
		until := time.Now().Add(200 * time.Millisecond)
		for range writers {
			wg.Go(func() {
				for time.Now().Before(until) {
					if _, err := l.Append(1, Write, []byte("x")); err != nil {
						t.Error(err)
						return
					}
					if err := l.Flush(context.Background()); err != nil {
						t.Error(err)
						return
					}
					flushes.Add(1)
				}
			})
		}
		wg.Wait()
		return float64(flushes.Load()) / float64(syncs.Load())
	}
	if one := perSync(1); one != 1 {
		t.Errorf("a writer alone gets %.1f flushes for a sync", one)
	}
	best := 0.0
	for range 5 {
		if best = max(best, perSync(16)); best >= 8 {
			break
		}
	}
	t.Logf("16 writers: %.1f flushes for each sync", best)
	if best < 8 {
		t.Errorf("16 writers get %.1f flushes for each sync, less than 8", best)
	}
}

// A mirror is an area with two copies, the first of which is read.
type mirror struct {
	*memArea
	other *memArea
}

func (m mirror) Copies() int { return 2 }

func (m mirror) ReadCopyAt(copy int, p []byte, off int64) (int, error) {
	if copy == 0 {
		return m.ReadAt(p, off)
	}
	return m.other.ReadAt(p, off)
}

func TestDamagedRecordComesFromTheOtherCopy(t *testing.T) {
	a := newArea(1 << 20)
	l := mustOpen(t, a, 0)
	for i := range 5 {
		mustAppend(t, l, 1, fmt.Sprint(i))
	}
	other := newArea(1 << 20)
	copy(other.now, a.now)
	at := segmentOf(1, l.segment) + 2*recordSize(1)
	a.now[at+headerSize] ^= 1
	other.now[at+2*recordSize(1)] ^= 1
	if got, _ := replay(t, mirror{a, other}, 0); len(got) != 5 {
		t.Errorf("%q", got)
	}
}

func TestLogOfAnotherPoolIsEmpty(t *testing.T) {
	a := newArea(1 << 20)
	mustAppend(t, mustOpen(t, a, 0), 1, "a")
	last, err := Replay(a, [16]byte{1}, 0, func(uint64, Kind, []byte) error { return errors.New("replayed") })
	if err != nil || last != 0 {
		t.Errorf("last %d, %v", last, err)
	}
}

func TestUnreadableLogIsAnError(t *testing.T) {
	_, err := Replay(failingArea{newArea(1 << 20)}, testGUID, 0, func(uint64, Kind, []byte) error { return nil })
	if !errors.Is(err, errRead) {
		t.Errorf("got %v", err)
	}
}

var errRead = errors.New("cannot be read")

type failingArea struct{ *memArea }

func (failingArea) ReadAt([]byte, int64) (int, error) { return 0, errRead }

func TestFormatLeavesNothing(t *testing.T) {
	a := newArea(3*blockSize*4 + 100)
	mustAppend(t, mustOpen(t, a, 0), 1, "a")
	if err := Format(context.Background(), a); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.durable, make([]byte, a.Size())) {
		t.Error("the area is not durably zero")
	}
	if err := Format(context.Background(), newArea(1000)); err == nil {
		t.Error("an area of 1000 bytes was taken")
	}
}
