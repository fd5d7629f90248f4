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
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/vdev"
	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// redundant are layouts that survive the loss of a device.
func redundant(f func(profile format.Profile, width int)) {
	f(format.Mirror, 2)
	f(format.Mirror, 3)
	f(format.RaidZ1, 3)
	f(format.RaidZ1, 5)
	f(format.RaidZ2, 4)
	f(format.RaidZ2, 6)
}

// TestWritesGoOnWithoutADeviceAndItCatchesUp is the life of a pulled disk.
func TestWritesGoOnWithoutADeviceAndItCatchesUp(t *testing.T) {
	redundant(func(profile format.Profile, width int) {
		for column := range width {
			r := newRig(t, profile, width)
			const n, at = 60000, chunkBase + 2
			r.write(t, at, randomBytes(1, n)) // what was there, and will be stale
			r.sync(t)
			dev := r.Remove(r.id(column))
			data := randomBytes(2, n)
			r.write(t, at, data)
			r.sync(t)
			r.mustRead(t, at, data)
			r.Add(r.id(column), dev)
			r.mustRead(t, at, data)
			if err := r.Rebuild(r.chunk, at, n, is(data), column); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Scrub(r.chunk, at, n, is(data)); err != nil {
				t.Fatal(err)
			}
			r.sync(t)
			// Now it counts: the others may go, as many as may.
			gone := 0
			for other := range width {
				if other != column && gone < r.tolerance() {
					r.Remove(r.id(other))
					gone++
				}
			}
			r.mustRead(t, at, data)
		}
	})
}

func TestADeviceThatMissesAWriteIsFaulted(t *testing.T) {
	redundant(func(profile format.Profile, width int) {
		r := newRig(t, profile, width)
		const n = 128 << 10
		old, data := randomBytes(1, n), randomBytes(2, n)
		r.write(t, chunkBase, old)
		disarm := r.devs[1].Inject(memdev.Fault{Ops: memdev.Writes, Err: unix.EIO})
		at := format.Addr(chunkBase) + format.Addr(r.chunk.Need(n))
		r.write(t, at, data)
		if r.State(r.id(1)) != Faulted || !slices.Equal(r.faults, []string{"write 11"}) {
			t.Fatalf("%v of %d: it is %v, faults %v", profile, width, r.State(r.id(1)), r.faults)
		}
		r.sync(t)
		r.mustRead(t, at, data)
		// What it has from before is the last resort.
		for i := range r.tolerance() {
			r.Remove(r.id((2 + i) % width))
		}
		r.mustRead(t, chunkBase, old)
		// Another failure now is one too many, and faults nobody.
		disarm()
		before := r.Status()
		if err := r.Write(r.chunk, at, data); err == nil {
			t.Fatalf("%v of %d: a write succeeded with a device too few", profile, width)
		}
		if after := r.Status(); !slices.Equal(after, before) {
			t.Errorf("a write that failed has changed devices: %+v, before %+v", after, before)
		}
	})
}

func TestAFullFilesystemCostsNoRedundancy(t *testing.T) {
	layouts(func(profile format.Profile, width int) {
		r := newRig(t, profile, width)
		defer r.host.Inject(memdev.Fault{Ops: memdev.Writes, Err: unix.ENOSPC})()
		if err := r.Write(r.chunk, chunkBase, make([]byte, 65536)); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("%v of %d: %v", profile, width, err)
		}
		for i := range width {
			if r.State(r.id(i)) != Online {
				t.Errorf("%v of %d: device %d is %v", profile, width, i, r.State(r.id(i)))
			}
		}
	})
}

// TestTwoWritesNeverFaultEachOthersOnlyCopies races failing writes.
func TestTwoWritesNeverFaultEachOthersOnlyCopies(t *testing.T) {
	for seed := range uint64(200) {
		r := newRig(t, format.Mirror, 2)
		r.devs[0].Inject(memdev.Fault{Ops: memdev.Writes, Skip: int(seed % 3), Err: unix.EIO})
		r.devs[1].Inject(memdev.Fault{Ops: memdev.Writes, Skip: int(seed / 3 % 3), Err: unix.EIO})
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() { r.Write(r.chunk, chunkBase+format.Addr(i), make([]byte, 4096)) })
		}
		wg.Wait()
		if r.State(10) != Online && r.State(11) != Online {
			t.Fatalf("seed %d: both devices are faulted", seed)
		}
	}
}

func TestASyncTellsWhetherEveryWriteIsKept(t *testing.T) {
	ctx := context.Background()
	layouts(func(profile format.Profile, width int) {
		for count := 0; count <= min(profile.Parity()+1, width); count++ {
			subsets(width, count, func(columns []int) {
				r := newRig(t, profile, width)
				r.write(t, chunkBase, make([]byte, 128<<10))
				for _, c := range columns {
					r.devs[c].Inject(memdev.Fault{Ops: memdev.Syncs, Times: 1, Err: unix.EIO})
				}
				err := r.SyncTouched(ctx)
				if (err == nil) != (count <= r.tolerance()) {
					t.Fatalf("%v of %d, columns %v: %v", profile, width, columns, err)
				}
				for _, c := range columns {
					if r.State(r.id(c)) != Faulted {
						t.Errorf("device %d is %v", c, r.State(r.id(c)))
					}
				}
				if err == nil {
					return
				}
				if !errors.Is(err, vdev.ErrSyncFailed) || !errors.Is(err, unix.EIO) {
					t.Errorf("the error does not tell why: %v", err)
				}
				if err := r.SyncTouched(ctx); err == nil {
					t.Fatal("the second sync forgot what the first had lost")
				}
			})
		}
	})
}

// TestADeviceThatCameBackHasNotWhatItNeverSynced replaces a device between a
// write and its sync: the new handle's sync says nothing about the old writes.
func TestADeviceThatCameBackHasNotWhatItNeverSynced(t *testing.T) {
	r := newRig(t, format.Single, 1)
	r.write(t, chunkBase, make([]byte, 4096))
	r.Add(10, r.Remove(10))
	if err := r.SyncTouched(context.Background()); err == nil {
		t.Error("single: the sync succeeded")
	}
	r = newRig(t, format.Mirror, 2)
	r.write(t, chunkBase, make([]byte, 4096))
	r.Add(10, r.Remove(10))
	r.sync(t) // the other has it
	r.write(t, chunkBase, make([]byte, 4096))
	r.Add(10, r.Remove(10))
	r.Add(11, r.Remove(11))
	if err := r.SyncTouched(context.Background()); err == nil {
		t.Error("mirror: the sync succeeded though both were away")
	}
}

func TestOnlyTouchedDevicesAreSynced(t *testing.T) {
	r := newRig(t, format.RaidZ1, 5)
	r.write(t, chunkBase+1, make([]byte, 4096)) // parity on column 1, data on 2
	if got := r.Touched(); !slices.Equal(got, []DeviceID{11, 12}) {
		t.Errorf("touched are %v", got)
	}
	r.sync(t)
	if n := r.host.Ops(memdev.Syncs); n != 2 || len(r.Touched()) != 0 {
		t.Errorf("%d syncs, %v touched", n, r.Touched())
	}
	r.sync(t)
	if n := r.host.Ops(memdev.Syncs); n != 2 {
		t.Errorf("%d syncs", n)
	}
	if err := r.Sync(context.Background(), 13); err != nil || r.devs[3].Ops(memdev.Syncs) != 1 {
		t.Errorf("sync of one: %v", err)
	}
}

func TestACancelledSyncForgetsNothing(t *testing.T) {
	r := newRig(t, format.Mirror, 2)
	r.write(t, chunkBase, make([]byte, 4096))
	r.host.Inject(memdev.Fault{Ops: memdev.Syncs, Times: 2, Delay: time.Second})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := r.SyncTouched(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if len(r.Touched()) != 2 {
		t.Errorf("touched are %v", r.Touched())
	}
	r.sync(t)
}

// TestADevicePulledDuringParallelIO has readers and writers see no error and no
// wrong byte while devices go and come back, stale, one after the other.
func TestADevicePulledDuringParallelIO(t *testing.T) {
	redundant(func(profile format.Profile, width int) {
		r := newRig(t, profile, width)
		const n, slots = 20000, 16
		var stop atomic.Bool
		var ops atomic.Int64
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(g), 1))
				held := map[format.Addr][]byte{}
				for ; !stop.Load(); ops.Add(1) {
					at := chunkBase + format.Addr(g*slots+rng.IntN(slots))*format.Addr(r.chunk.Need(n))
					var err error
					if data, ok := held[at]; ok && rng.IntN(3) > 0 {
						err = r.Read(r.chunk, at, make([]byte, n), is(data))
					} else {
						held[at] = randomBytes(rng.Uint64(), n)
						err = r.Write(r.chunk, at, held[at])
					}
					if err != nil {
						t.Errorf("%v of %d: %v", profile, width, err)
						return
					}
				}
			})
		}
		for column := range r.tolerance() {
			d := r.devs[column]
			d.Pull(0)
			for deadline := time.Now().Add(30 * time.Second); r.State(r.id(column)) == Online && !t.Failed(); {
				if time.Now().After(deadline) {
					t.Error("writes go on and nobody notices that a device is gone")
				}
				time.Sleep(time.Millisecond)
			}
			d.Return()
			d.Close()
			again, err := r.host.Open(d.Path())
			if err != nil {
				t.Fatal(err)
			}
			r.Add(r.id(column), again)
			for until := ops.Load() + 100; ops.Load() < until && !t.Failed(); {
				time.Sleep(time.Millisecond)
			}
		}
		stop.Store(true)
		wg.Wait()
		r.sync(t)
	})
}

func TestCountersSayWhatHappened(t *testing.T) {
	r := newRig(t, format.Mirror, 2)
	data := randomBytes(1, 4096)
	r.write(t, chunkBase, data)
	r.damage(1, chunkBase, 4096, 0)
	r.mustRead(t, chunkBase, data)
	r.devs[0].Inject(memdev.Fault{Ops: memdev.Reads, Times: 1, Err: unix.EIO})
	r.mustRead(t, chunkBase, data)
	r.devs[0].Inject(memdev.Fault{Ops: memdev.Writes, Times: 1, Err: unix.EIO})
	r.write(t, chunkBase, data)
	want := []Status{
		{ID: 10, Path: "dev10", State: Faulted, ReadErrors: 1, WriteErrors: 1, ChecksumErrors: 1},
		{ID: 11, Path: "dev11", State: Online},
	}
	if got := r.Status(); !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
	if want := []string{"verify 10", "read 10", "write 10"}; !slices.Equal(r.faults, want) {
		t.Errorf("faults %v", r.faults)
	}
}

// TestAfterAPowerFailureSyncedRecordsAreWhole builds crash states, in which
// records that were not synced are torn on any columns, and checks that synced
// ones are there, and others there, or damaged, but never wrong.
func TestAfterAPowerFailureSyncedRecordsAreWhole(t *testing.T) {
	layouts(func(profile format.Profile, width int) {
		if width > 5 {
			return
		}
		r := newRigOn(t, memdev.NewJournal(), profile, width)
		at, all := format.Addr(chunkBase), map[format.Addr][]byte{}
		for i := range 20 {
			data := randomBytes(uint64(i), sizes[i%len(sizes)])
			r.write(t, at, data)
			all[at] = data
			if i%5 == 4 {
				r.sync(t)
				r.host.Mark(at)
			}
			at += format.Addr(r.chunk.Need(int64(len(data))))
		}
		states, torn := 0, 0
		for s := range r.host.CrashStates(uint64(width)) {
			torn += checkCrash(t, r.chunk, s, all)
			if states++; states == 60 {
				break
			}
		}
		if torn == 0 {
			t.Errorf("%v of %d: no state has a torn record", profile, width)
		}
	})
}

// checkCrash returns how many records are damaged.
func checkCrash(t *testing.T, c *Chunk, s *memdev.State, all map[format.Addr][]byte) (damaged int) {
	a, synced := New(Hooks{}), format.Addr(0)
	for i := range c.Columns {
		if d, err := s.Journal.Open("dev" + string([]byte{'1', byte('0' + i)})); err == nil {
			a.Add(c.Columns[i].Device, d)
		}
	}
	if marks := s.Marks(); len(marks) > 0 {
		synced = marks[len(marks)-1].(format.Addr)
	}
	for at, data := range all {
		got := make([]byte, len(data))
		err := a.Read(c, at, got, is(data))
		switch {
		case err == nil && !bytes.Equal(got, data):
			t.Fatalf("%v: wrong bytes at %d", s, at)
		case err != nil && at <= synced:
			t.Fatalf("%v: the record at %d was synced: %v", s, at, err)
		case err != nil && !errors.Is(err, format.ErrDamaged):
			t.Fatalf("%v: %v", s, err)
		case err != nil:
			damaged++
		}
	}
	return damaged
}
