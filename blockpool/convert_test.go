package blockpool

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// converted demands that all chunks are as a pool of that profile makes them, and
// that everything is right on every copy.
func (b *bench) converted(profile Profile) {
	b.Helper()
	if st := b.ConvertStatus(); st.State != ConvertFinished || st.Done != st.Total || st.Error != "" || st.Lost != 0 {
		b.Errorf("the conversion is %+v", st)
	}
	logs := 0
	for _, c := range b.space.all() {
		switch {
		case c.Class == format.Data && c.Profile != profile:
			b.Errorf("chunk %d is %v", c.ID, c.Profile)
		case c.Class == format.Log:
			logs++
			if c.Profile != b.profile(format.Log) || len(c.Columns) != b.profileWidth(format.Log) {
				b.Errorf("the log is %v on %d devices", c.Profile, len(c.Columns))
			}
		case c.Class == format.Data && profile == Mirror && len(c.Columns) != 2:
			b.Errorf("chunk %d of a mirror lies on %d devices", c.ID, len(c.Columns))
		}
	}
	if logs != 1 {
		b.Errorf("there are %d logs", logs)
	}
	st, err := b.Scrub(ctx, ScrubOptions{})
	b.must(err)
	if st.Mended+st.Unrecoverable != 0 || st.LostRecords+st.LostNodes != 0 {
		b.Errorf("a scrub finds %+v", st)
	}
	b.must(recountAll(b.Pool, false))
}

// TestEveryProfileBecomesEveryOther converts a pool with snapshots and clones under
// load, and demands that nothing has changed but where it lies.
func TestEveryProfileBecomesEveryOther(t *testing.T) {
	profiles := []Profile{Single, Mirror, RaidZ1, RaidZ2}
	for _, from := range profiles {
		for _, to := range profiles {
			if from == to {
				continue
			}
			t.Run(fmt.Sprintf("%v to %v", from, to), func(t *testing.T) {
				b := newSmallBench(t, Config{DataProfile: from}, 4, memdev.NewUnrecorded())
				b.opts.Tunables.DirtyLimit = 1 << 20
				b.open()
				b.work(60, uint64(from)*10+uint64(to))
				b.must(b.CreateVolume(ctx, "load", 1<<20, VolumeOptions{RecordSize: 4 << 10}))
				b.must(b.Sync(ctx))
				want := b.contents()
				delete(want, "load")
				shared := b.referencedOnce()
				v := b.volume("load")
				var stop atomic.Bool
				done := make(chan []byte)
				go func() {
					data := make([]byte, 1<<20)
					for i := 0; !stop.Load(); i++ {
						p := noise(10_000, uint64(i))
						off := i * 7919 % (len(data) - len(p))
						if _, err := v.WriteAt(p, int64(off)); err != nil {
							t.Error(err)
						}
						copy(data[off:], p)
						time.Sleep(100 * time.Microsecond)
					}
					done <- data
				}()
				err := b.Convert(ctx, to, ConvertOptions{})
				stop.Store(true)
				want["load"] = <-done
				v.Close()
				b.must(err)
				b.converted(to)
				for _, again := range []bool{false, true} {
					for name, content := range want {
						if !bytes.Equal(b.content(name), content) {
							t.Errorf("%s has changed (opened again: %v)", name, again)
						}
					}
					b.crash()
				}
				b.must(b.Destroy(ctx, "load"))
				b.must(b.Sync(ctx))
				if now := b.referencedOnce(); now > shared {
					t.Errorf("records of %d bytes before, %d after: something is shared no more", shared, now)
				}
				b.clean(b.checked())
			})
		}
	}
}

// referencedOnce returns how many bytes of records there are, each counted once
// however many leaves name it, but for the volume called load.
func (b *bench) referencedOnce() (n int64) {
	b.Helper()
	load := uint64(0)
	if v := b.catalogue.find("load"); v != nil {
		load = v.id
	}
	e := b.epochs.hold()
	defer e.release()
	seen := map[format.Addr]bool{}
	b.must(e.view.Scan(meta.Nodes, nil, func(_, value []byte) error {
		node, err := btree.Parse(value)
		if err != nil || node.Level() > 0 {
			return err
		}
		for i := range node.Len() {
			if isItem(node.AppendKey(nil, i)) {
				break
			}
			rec, err := format.ParseRecord(node.Value(i))
			if err != nil {
				return err
			}
			if !seen[rec.Addr] && rec.Owner != load {
				seen[rec.Addr] = true
				n += stored(rec)
			}
		}
		return nil
	}))
	return n
}

// TestLeavesThatAreFullTakeLongerAddresses relocates what was written in a row, whose
// leaves are full, to addresses that take more bytes.
func TestLeavesThatAreFullTakeLongerAddresses(t *testing.T) {
	b := newSmallBench(t, Config{DataProfile: Single}, 3, memdev.NewUnrecorded())
	b.open()
	b.must(b.CreateVolume(ctx, "vol", 8<<20, VolumeOptions{RecordSize: 4 << 10}))
	v := b.volume("vol")
	want := noise(8<<20, 3)
	if _, err := v.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	b.must(b.Snapshot(ctx, "vol", "vol@snap"))
	// As in a pool that is much larger.
	b.must(b.do(ctx, &task{run: func(s *pass) error { s.state.nextAddr = 1 << 36; return nil }}))
	b.must(b.Convert(ctx, RaidZ1, ConvertOptions{}))
	b.converted(RaidZ1)
	wide := 0
	e := b.epochs.hold()
	b.must(e.view.Scan(meta.Nodes, nil, func(_, value []byte) error {
		if len(value) > btree.MaxNodeSize {
			wide++
		}
		return nil
	}))
	e.release()
	if wide == 0 {
		t.Error("no leaf is longer than others: this test tests nothing")
	}
	for i := range 400 { // leaves are split, and go on
		off := i * 20_011 % (len(want) - 5000)
		copy(want[off:], noise(5000, uint64(i)))
		if _, err := v.WriteAt(want[off:off+5000], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	v.Close()
	b.crash()
	if !bytes.Equal(b.content("vol"), want) || !bytes.Equal(b.content("vol@snap"), noise(8<<20, 3)) {
		t.Error("the content has changed")
	}
	b.clean(b.checked())
	b.must(b.Close())
	if p, err := b.repaired(RepairOptions{}); err != nil || p.Needed {
		t.Errorf("%v, %+v", err, p)
	}
}

func TestAConversionIsRefusedWithWhatItLacks(t *testing.T) {
	b := newSmallBench(t, Config{}, 2, memdev.NewUnrecorded())
	b.open()
	refused := func(profile Profile, cause error, word string) {
		t.Helper()
		err := b.Convert(ctx, profile, ConvertOptions{})
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), word) {
			t.Errorf("to %v: %v", profile, err)
		}
		if st := b.ConvertStatus(); st.State != ConvertNone || b.Config().DataProfile != Single {
			t.Errorf("it was refused, and is %+v", st)
		}
	}
	refused(RaidZ1, ErrNoSpace, "needs 3 devices, the pool has 2")
	refused(RaidZ2, ErrNoSpace, "needs 4 devices, the pool has 2")
	b.must(b.CreateVolume(ctx, "vol", 64<<20, VolumeOptions{}))
	v := b.volume("vol")
	for off := int64(0); off < 34<<20; off += 1 << 20 {
		if _, err := v.WriteAt(noise(1<<20, uint64(off)), off); err != nil {
			t.Fatal(err)
		}
	}
	v.Close()
	refused(Mirror, ErrNoSpace, "bytes as mirror")
	if err := b.Convert(ctx, Mirror, ConvertOptions{Resume: true}); !errors.Is(err, ErrNotFound) {
		t.Errorf("resumed what there is not: %v", err)
	}
	b.must(b.AddDevice(ctx, DeviceSpec{Path: "/more", Size: 3 * minDeviceSize}, false))
	b.must(b.Convert(ctx, Mirror, ConvertOptions{}))
	b.converted(Mirror)
	b.journal.Device("/more").Pull(0)
	b.array.Fault(3)
	b.faulted(3, "test", errPulled)
	if err := b.Convert(ctx, RaidZ1, ConvertOptions{}); !errors.Is(err, ErrIncomplete) {
		t.Errorf("converted while a device is away: %v", err)
	}
}

// TestAConversionPausesAndGoesOn pauses one by hand, by the end of its context and by
// that of the process; only the last goes on by itself.
func TestAConversionPausesAndGoesOn(t *testing.T) {
	for _, to := range []Profile{Mirror, RaidZ1} {
		t.Run(to.String(), func(t *testing.T) {
			b := newSmallBench(t, Config{}, 3, memdev.NewUnrecorded())
			b.open()
			b.must(b.CreateVolume(ctx, "vol", 16<<20, VolumeOptions{}))
			v := b.volume("vol")
			want := noise(16<<20, 1)
			if _, err := v.WriteAt(want, 0); err != nil {
				t.Fatal(err)
			}
			v.Close()
			errs := make(chan error, 1)
			begun := func() {
				t.Helper()
				for b.MoveStatus().Kind != MoveConvert || b.MoveStatus().Done == 0 {
					select {
					case err := <-errs:
						t.Fatalf("it ended too soon: %v", err)
					default:
						spin()
					}
				}
			}
			go func() { errs <- b.Convert(ctx, to, ConvertOptions{Rate: 4 << 20}) }()
			begun()
			if st := b.ConvertStatus(); st.State != ConvertRunning || st.Profile != to.String() || st.Total == 0 {
				t.Errorf("%+v", st)
			}
			b.PauseConvert()
			b.must(<-errs)
			if st := b.ConvertStatus(); st.State != ConvertPaused || st.Error != "" {
				t.Errorf("%+v", st)
			}
			b.crash()
			if st := b.ConvertStatus(); st.State != ConvertPaused || st.Rate != 4<<20 {
				t.Errorf("after a kill %+v", st)
			}
			go func() { errs <- b.Convert(ctx, 0, ConvertOptions{Resume: true, Rate: 4 << 20}) }()
			begun()
			b.crash()
			<-errs
			if !bytes.Equal(b.content("vol"), want) {
				t.Error("the content has changed on the way")
			}
			for b.converting() {
				spin()
			}
			b.converted(to)
			if !bytes.Equal(b.content("vol"), want) {
				t.Error("the content has changed")
			}
		})
	}
}

// TestWhatCannotBeReadStaysWhereItIs has a record damaged on the only copy.
func TestWhatCannotBeReadStaysWhereItIs(t *testing.T) {
	b := newSmallBench(t, Config{}, 3, memdev.NewUnrecorded())
	b.open()
	b.must(b.CreateVolume(ctx, "vol", 1<<20, VolumeOptions{RecordSize: 4 << 10}))
	v := b.volume("vol")
	want := noise(1<<20, 1)
	if _, err := v.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	v.Close()
	b.must(b.Sync(ctx))
	b.must(b.Close())
	b.scribbleRecord("vol", 1)
	b.open()
	if err := b.Convert(ctx, RaidZ1, ConvertOptions{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("nobody says that something was lost: %v", err)
	}
	if st := b.ConvertStatus(); st.State != ConvertPaused || st.Lost == 0 || st.Done == 0 || st.Done == st.Total {
		t.Errorf("%+v", st)
	}
	v = b.volume("vol")
	got := make([]byte, 4<<10)
	lost := 0
	for off := int64(0); off < 1<<20; off += 4 << 10 {
		if _, err := v.ReadAt(got, off); err != nil {
			lost++
			if _, err := v.WriteAt(want[off:off+4<<10], off); err != nil {
				t.Fatal(err)
			}
		} else if !bytes.Equal(got, want[off:off+4<<10]) {
			t.Errorf("the record at %d is wrong", off)
		}
	}
	v.Close()
	if lost != 1 {
		t.Errorf("%d records are lost", lost)
	}
	b.must(b.Convert(ctx, 0, ConvertOptions{Resume: true}))
	b.converted(RaidZ1)
}
