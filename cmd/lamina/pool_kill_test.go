package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/poolserver"
)

// The server of a pool is killed under load, again and again, and the next one must
// have everything that was acknowledged: each write, which is flushed, and each
// snapshot, exact to the byte. A write that was under way is there or not, record by
// record.
//
// LAMINA_KILLS is how often; a long run has 5000.
func TestKilledServerLosesNothingAcknowledged(t *testing.T) {
	kills := 30
	if n, err := strconv.Atoi(os.Getenv("LAMINA_KILLS")); err == nil {
		kills = n
	}
	s := newPoolStage(t)
	place := s.pool()
	var writers []*writer
	for i := range 4 {
		w := newWriter(t, place, fmt.Sprintf("vol%d", i), uint64(i))
		writers = append(writers, w)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	began := time.Now()
	for kill := range kills {
		ended := make(chan error, len(writers))
		connected := make(chan struct{}, len(writers))
		for _, w := range writers {
			go func() { ended <- w.work(connected) }()
		}
		c, err := place.Connect(ctx, serveCommand(place))
		if err != nil {
			t.Fatal(err)
		}
		for range writers { // who came after the kill would start another server
			<-connected
		}
		time.Sleep(time.Duration(20+rng.IntN(130)) * time.Millisecond)
		if err := unix.Kill(c.Greeting.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		c.Close()
		for range writers {
			if err := <-ended; !errors.Is(err, poolserver.ErrServerGone) {
				t.Fatalf("kill %d: a writer ended with: %v", kill, err)
			}
		}
		for _, w := range writers {
			if err := w.check(); err != nil {
				t.Fatalf("kill %d: %v", kill, err)
			}
		}
	}
	writes, snapshots := 0, 0
	for _, w := range writers {
		writes, snapshots = writes+w.writes, snapshots+w.taken
	}
	t.Logf("%d kills, %d acknowledged writes and %d snapshots in %v", kills, writes, snapshots, time.Since(began).Round(time.Second))
	if writes < kills {
		t.Errorf("%d writes between %d kills show nothing", writes, kills)
	}
}

var ctx = context.Background()

const (
	slotSize = 16 << 10 // a record
	slots    = 256
)

// A writer has a volume, and knows what must be in it.
type writer struct {
	place poolserver.Place
	name  string
	rng   *rand.Rand
	memfd *os.File // what is written comes from here, and what is read goes here

	now       [slots]uint64 // number of the write that each slot is of; 0: none
	doing     map[int]uint64
	next      uint64
	snapshots map[string][slots]uint64
	asked     string   // name of a snapshot that was asked for
	doomed    []string // snapshots that are to go, and may be gone
	writes    int
	taken     int
}

func newWriter(t *testing.T, place poolserver.Place, name string, seed uint64) *writer {
	t.Helper()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{place: place, name: name, rng: rand.New(rand.NewPCG(seed, 3)), memfd: os.NewFile(uintptr(fd), name), snapshots: map[string][slots]uint64{}}
	t.Cleanup(func() { w.memfd.Close() })
	c, err := place.Connect(ctx, serveCommand(place))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := poolserver.VolumeCreate.Call(ctx, c, poolserver.CreateVolume{Name: name, Size: slots * slotSize}); err != nil {
		t.Fatal(err)
	}
	return w
}

// work changes the volume until the server is gone.
func (w *writer) work(connected chan<- struct{}) error {
	c, err := w.place.Connect(ctx, serveCommand(w.place))
	connected <- struct{}{}
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		if w.rng.IntN(20) == 0 {
			if err := w.snapshot(c); err != nil {
				return err
			}
			continue
		}
		if err := w.write(c); err != nil {
			return err
		}
	}
}

// write changes one to eight slots in a row.
func (w *writer) write(c *poolserver.Client) error {
	n := 1 + w.rng.IntN(8)
	first := w.rng.IntN(slots - n)
	w.doing = map[int]uint64{}
	data := make([]byte, 0, n*slotSize)
	for i := range n {
		w.next++
		w.doing[first+i] = w.next
		data = append(data, content(w.next)...)
	}
	if err := errors.Join(w.memfd.Truncate(0), second(w.memfd.WriteAt(data, 0)), second(w.memfd.Seek(0, 0))); err != nil {
		return err
	}
	if _, err := poolserver.VolumeWrite.Call(ctx, c, poolserver.WriteVolume{Name: w.name, Offset: int64(first) * slotSize}, w.memfd); err != nil {
		return err
	}
	for slot, number := range w.doing {
		w.now[slot] = number
	}
	w.doing = nil
	w.writes++
	return nil
}

func second[R any](_ R, err error) error { return err }

// snapshot takes one, and removes one when there are many.
func (w *writer) snapshot(c *poolserver.Client) error {
	for name := range w.snapshots {
		if len(w.snapshots) < 4 {
			break
		}
		delete(w.snapshots, name)
		w.doomed = append(w.doomed, name) // from here on it may be there or not
	}
	for len(w.doomed) > 0 {
		if _, err := poolserver.VolumeDestroy.Call(ctx, c, poolserver.Name{Name: w.doomed[0]}); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		w.doomed = w.doomed[1:]
	}
	w.next++
	w.asked = fmt.Sprintf("%s@%d", w.name, w.next)
	if _, err := poolserver.VolumeSnapshot.Call(ctx, c, poolserver.FromTo{From: w.name, To: w.asked}); err != nil {
		return err
	}
	w.snapshots[w.asked] = w.now
	w.asked = ""
	w.taken++
	return nil
}

// content is what write number n has put into a slot.
func content(n uint64) []byte {
	b := make([]byte, slotSize)
	if n == 0 {
		return b
	}
	rng := rand.New(rand.NewPCG(n, 4))
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
	}
	binary.LittleEndian.PutUint64(b, n)
	return b
}

// check compares the volume and its snapshots with what they must have.
func (w *writer) check() error {
	c, err := w.place.Connect(ctx, serveCommand(w.place))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := w.compare(c, w.name, &w.now, w.doing); err != nil {
		return err
	}
	w.doing = nil
	list, err := poolserver.VolumeList.Call(ctx, c, poolserver.None{})
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, v := range list {
		there[v.Name] = true
	}
	if there[w.asked] {
		w.snapshots[w.asked] = w.now // asked for, made, and not acknowledged
	}
	for name, want := range w.snapshots {
		if !there[name] {
			return fmt.Errorf("snapshot %s is gone", name)
		}
		if err := w.compare(c, name, &want, nil); err != nil {
			return err
		}
	}
	w.asked = ""
	return nil
}

// compare reads a volume. Slots in maybe may have that content instead; what they
// turn out to have is what they must have from then on.
func (w *writer) compare(c *poolserver.Client, name string, want *[slots]uint64, maybe map[int]uint64) error {
	if err := errors.Join(w.memfd.Truncate(0), second(w.memfd.Seek(0, 0))); err != nil {
		return err
	}
	if _, err := poolserver.VolumeRead.Call(ctx, c, poolserver.Range{Name: name}, w.memfd); err != nil {
		return err
	}
	data := make([]byte, slots*slotSize)
	if _, err := w.memfd.ReadAt(data, 0); err != nil {
		return err
	}
	for slot := range want {
		got := data[slot*slotSize:][:slotSize]
		if string(got) == string(content(want[slot])) {
			continue
		}
		if n, under := maybe[slot]; under && string(got) == string(content(n)) {
			want[slot] = n
			continue
		}
		return fmt.Errorf("%s: slot %d has write %d, not %d: what was acknowledged is lost, or mixed", name, slot, binary.LittleEndian.Uint64(got), want[slot])
	}
	return nil
}
