package blockpool

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// records returns all that the committed trees name, by address.
func (b *bench) records() map[format.Addr]format.Record {
	b.Helper()
	b.must(b.Sync(ctx))
	all := map[format.Addr]format.Record{}
	w := b.startTour(&tour{upto: 1 << 62}, nil)
	defer w.stop()
	for done := false; !done; {
		var err error
		done, err = w.step(ctx, 1<<20, func(rec format.Record) error {
			if _, twice := all[rec.Addr]; twice {
				b.Errorf("record at %d was visited twice", rec.Addr)
			}
			all[rec.Addr] = rec
			return nil
		})
		b.must(err)
	}
	return all
}

// place returns where a column of a record's first sector lies.
func (b *bench) place(rec format.Record, column int) (path string, off int64) {
	c, err := b.space.chunk(rec.Addr)
	b.must(err)
	row := int64(rec.Addr - c.Base)
	if c.Profile.Parity() > 0 {
		width := int64(len(c.Columns))
		raw := row + int64(column) // piece number column of the record
		column, row = int(raw%width), raw/width
	}
	col := c.Columns[column]
	return b.devices.get(uint32(col.Device)).state.Load().path, col.Start + row*format.SectorSize
}

var allProfiles = []struct {
	Profile
	devices int
}{{Single, 1}, {Mirror, 2}, {Mirror, 3}, {RaidZ1, 4}, {RaidZ2, 5}}

func TestScrubMendsWhatIsWrongAndCountsIt(t *testing.T) {
	for _, profile := range allProfiles {
		t.Run(fmt.Sprintf("%v-%d", profile.Profile, profile.devices), func(t *testing.T) {
			b := newBench(t, Config{DataProfile: profile.Profile}, profile.devices, 64<<20)
			b.must(b.CreateVolume(ctx, "vol", 8<<20, VolumeOptions{RecordSize: 16 << 10}))
			v := b.volume("vol")
			want := fill(4<<20, 1)
			if _, err := v.WriteAt(want, 0); err != nil {
				t.Fatal(err)
			}
			v.Close()
			b.must(b.Snapshot(ctx, "vol", "vol@s"))
			all := b.records()
			if len(all) != 256 {
				t.Fatalf("%d records, not 256", len(all))
			}
			st, err := b.Scrub(ctx, ScrubOptions{})
			b.must(err)
			if st.State != ScrubFinished || st.Records != 256 || st.Mended != 0 || st.Unrecoverable != 0 || st.LostRecords != 0 {
				t.Fatalf("a sound pool: %+v", st)
			}
			// One piece of each of ten records: data, parity, another copy.
			damaged := 0
			for _, rec := range all {
				if damaged++; damaged > 10 {
					break
				}
				columns := 1
				if profile.Profile == Mirror {
					columns = 2
				} else if profile.Parity() > 0 {
					columns = 3
				}
				path, off := b.place(rec, damaged%columns)
				b.journal.Device(path).FlipBits(uint64(damaged), off, format.SectorSize, 3)
			}
			st, err = b.Scrub(ctx, ScrubOptions{})
			b.must(err)
			if profile.Profile == Single {
				if st.LostRecords != 10 || st.Mended != 0 || st.Unrecoverable != 10*16<<10 {
					t.Fatalf("single: %+v", st)
				}
				return
			}
			if st.LostRecords != 0 || st.Mended == 0 || st.Unrecoverable != 0 {
				t.Fatalf("%+v", st)
			}
			if profile.Profile == Mirror && st.Mended != 10*16<<10 {
				t.Errorf("%d bytes mended, not ten records", st.Mended)
			}
			st, err = b.Scrub(ctx, ScrubOptions{})
			b.must(err)
			if st.Mended != 0 {
				t.Errorf("%d bytes are mended again", st.Mended)
			}
			if got := b.content("vol"); !bytes.Equal(got[:len(want)], want) {
				t.Error("the content has changed")
			}
		})
	}
}

// A tour must not miss a record that is moved about in its tree, nor mend what
// was given to another record meanwhile.
func TestScrubUnderWritersVisitsWhatWasThere(t *testing.T) {
	b := newBench(t, Config{DataProfile: Mirror}, 2, 256<<20)
	b.must(b.CreateVolume(ctx, "vol", 64<<20, VolumeOptions{RecordSize: 4 << 10}))
	v := b.volume("vol")
	defer v.Close()
	for i := range 16 {
		if _, err := v.WriteAt(fill(1<<20, uint64(i)), int64(i)<<21); err != nil {
			t.Fatal(err)
		}
	}
	b.must(b.Snapshot(ctx, "vol", "vol@keep"))
	keep := b.content("vol@keep")
	stays := b.records() // of the snapshot: nothing frees them
	stop, wg := make(chan struct{}), sync.WaitGroup{}
	defer wg.Wait()
	defer close(stop)
	for g := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				off := int64(rng.IntN(16<<10)) << 12
				if rng.IntN(3) == 0 {
					if err := v.Zero(ctx, off, min(int64(1+rng.IntN(64))<<12, 64<<20-off)); err != nil {
						t.Error(err)
						return
					}
				} else if _, err := v.WriteAt(fill(4<<10, rng.Uint64()), off); err != nil {
					t.Error(err)
					return
				}
				if rng.IntN(50) == 0 {
					b.Sync(ctx)
				}
			}
		})
	}
	txg, err := b.syncTo(ctx)
	b.must(err)
	w := b.startTour(&tour{upto: txg}, nil)
	defer w.stop()
	seen := map[format.Addr]bool{}
	for done := false; !done; {
		done, err = w.step(ctx, 32<<10, func(rec format.Record) error {
			seen[rec.Addr] = true
			return nil
		})
		b.must(err)
	}
	for at := range stays {
		if !seen[at] {
			t.Fatalf("the record at %d was missed", at)
		}
	}
	for range 3 {
		st, err := b.Scrub(ctx, ScrubOptions{})
		b.must(err)
		if st.State != ScrubFinished || st.Mended != 0 || st.LostRecords != 0 {
			t.Fatalf("%+v", st)
		}
	}
	if !bytes.Equal(b.content("vol@keep"), keep) {
		t.Error("the snapshot has changed")
	}
}

func TestScrubGoesOnWhereItWasAfterAPauseAndAKill(t *testing.T) {
	b := newBench(t, Config{DataProfile: Mirror}, 2, 128<<20)
	b.must(b.CreateVolume(ctx, "vol", 32<<20, VolumeOptions{RecordSize: 4 << 10}))
	v := b.volume("vol")
	if _, err := v.WriteAt(fill(16<<20, 1), 0); err != nil {
		t.Fatal(err)
	}
	v.Close()
	until := func(n int64) {
		for b.ScrubStatus().Done < n && b.ScrubStatus().State == ScrubRunning {
			time.Sleep(time.Millisecond)
		}
	}
	run := func(o ScrubOptions) {
		go b.Pool.Scrub(context.Background(), o)
		for b.ScrubStatus().State != ScrubRunning {
			time.Sleep(time.Millisecond)
		}
	}
	run(ScrubOptions{Rate: 20 << 20})
	if _, err := b.Scrub(ctx, ScrubOptions{}); err == nil {
		t.Error("two scrubs at a time")
	}
	until(5 << 20)
	b.PauseScrub()
	paused := b.ScrubStatus()
	if paused.State != ScrubPaused || paused.Records == 0 || paused.Records == 4096 {
		t.Fatalf("paused: %+v", paused)
	}
	b.reopen()
	if st := b.ScrubStatus(); st.State != ScrubPaused || st.Records != paused.Records {
		t.Fatalf("after opening: %+v, was %+v", st, paused)
	}
	run(ScrubOptions{Rate: 40 << 20, Resume: true})
	until(paused.Done + 17<<20) // two steps and more
	b.must(b.Sync(ctx))         // commits the position
	at := b.ScrubStatus()
	b.crash()
	if st := b.ScrubStatus(); st.State != ScrubRunning {
		t.Fatalf("after the kill: %+v", st)
	}
	b.PauseScrub()
	if st := b.ScrubStatus(); st.Records <= paused.Records || st.Left < 0 || st.Records > at.Records+2048 || st.Txg != paused.Txg {
		t.Fatalf("it began anew: %+v, was %+v", st, at)
	}
	st, err := b.Scrub(ctx, ScrubOptions{Resume: true})
	b.must(err)
	// What was done since the last committed position is done twice and counted once.
	if st.State != ScrubFinished || st.Records != 4096 {
		t.Fatalf("at the end: %+v", st)
	}
	b.reopen()
	if st := b.ScrubStatus(); st.State != ScrubFinished || st.Records < 4096 {
		t.Fatalf("the result is lost: %+v", st)
	}
}

func TestScrubKeepsToItsRate(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateVolume(ctx, "vol", 32<<20, VolumeOptions{}))
	v := b.volume("vol")
	if _, err := v.WriteAt(fill(4<<20, 1), 0); err != nil {
		t.Fatal(err)
	}
	v.Close()
	b.must(b.Sync(ctx))
	begin := time.Now()
	st, err := b.Scrub(ctx, ScrubOptions{Rate: 8 << 20})
	b.must(err)
	if took := time.Since(begin); took < 400*time.Millisecond || st.Done != 4<<20 {
		t.Errorf("%d bytes in %v at 8 MiB a second", st.Done, took)
	}
}

func TestScrubWritesADamagedReplicaAnew(t *testing.T) {
	b := newBench(t, Config{DataProfile: Mirror, MetadataProfile: Mirror}, 2, 64<<20)
	b.must(b.CreateVolume(ctx, "vol", 8<<20, VolumeOptions{RecordSize: 4 << 10}))
	v := b.volume("vol")
	if _, err := v.WriteAt(fill(8<<20, 1), 0); err != nil {
		t.Fatal(err)
	}
	v.Close()
	b.must(b.Sync(ctx))
	damageValues(t, ReplicaName(b.dir, 1), meta.Nodes, 40)
	st, err := b.Scrub(ctx, ScrubOptions{})
	b.must(err)
	if st.RepairedReplica != 1 || st.LostNodes != 0 || st.Records != 2048 {
		t.Fatalf("%+v", st)
	}
	if bad, err := b.meta.Verify(); err != nil || len(bad) > 0 {
		t.Fatalf("still damaged: %v, %v", bad, err)
	}
}

func TestScrubPassesOverNodesThatAreLost(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateVolume(ctx, "vol", 8<<20, VolumeOptions{RecordSize: 4 << 10}))
	v := b.volume("vol")
	if _, err := v.WriteAt(fill(8<<20, 1), 0); err != nil {
		t.Fatal(err)
	}
	v.Close()
	b.must(b.Sync(ctx))
	damageValues(t, ReplicaName(b.dir, 0), meta.Nodes, 5)
	st, err := b.Scrub(ctx, ScrubOptions{})
	b.must(err)
	if st.State != ScrubFinished || st.LostNodes == 0 || st.Records == 0 || st.Records >= 2048 {
		t.Fatalf("%+v", st)
	}
}

func FuzzScrubState(f *testing.F) {
	s := ScrubStatus{State: ScrubPaused, Progress: Progress{Began: time.Unix(1, 0), Done: 2, Total: 3}, Txg: 4, LastError: "no"}
	f.Add(s.pack(5, []btree.NodeID{6, 7}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var one, two ScrubStatus
		cursor, again, err := one.unpack(b)
		if err != nil {
			return
		}
		c, a, err := two.unpack(one.pack(cursor, again))
		if err != nil || c != cursor || !slices.Equal(a, again) || !two.Began.Equal(one.Began) || two.Records != one.Records {
			t.Fatalf("%+v, then %+v, %v", one, two, err)
		}
	})
}
