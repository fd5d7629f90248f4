package blockpool

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/vdev"
	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// A scratched storage has devices that cannot be read in some places.
type scratched struct {
	Storage
	path    string
	from, n int64
}

type scratchedDevice struct {
	vdev.Device
	s *scratched
}

func (s *scratched) Open(path string) (vdev.Device, error) {
	dev, err := s.Storage.Open(path)
	if err != nil || path != s.path {
		return dev, err
	}
	return scratchedDevice{dev, s}, nil
}

func (d scratchedDevice) ReadAt(p []byte, off int64) (int, error) {
	if off < d.s.from+d.s.n && d.s.from < off+int64(len(p)) {
		return 0, unix.EIO
	}
	return d.Device.ReadAt(p, off)
}

// logApart moves the intent log of a pool to its second device, where nothing else
// is then, and returns its chunk.
func (b *bench) logApart() *chunk {
	b.Helper()
	from, to := b.devices.get(1), b.devices.get(2)
	var shifts []shift
	b.must(b.do(ctx, &task{run: func(s *pass) (err error) {
		logs := slices.DeleteFunc(b.space.all(), func(c *chunk) bool { return c.Class != format.Log })
		shifts, err = planMoves(from, []*device{to}, logs, s.allChunks(), 1)
		for _, sh := range shifts {
			s.moveChunk(sh.chunk)
		}
		return err
	}}))
	_, err := b.shift(ctx, shifts, true, &pace{})
	b.must(err)
	return b.logArea.chunk.Load()
}

// aLostLogIs says how a log is lost: it damages a pool that was ended as kill -9
// would, and returns the storage from then on.
var aLostLogIs = []struct {
	name string
	lose func(b *bench, log *chunk) Storage
}{
	{"its device is gone", func(b *bench, log *chunk) Storage {
		b.journal.Device("/log").Pull(0)
		return b.journal
	}},
	{"it cannot be read", func(b *bench, log *chunk) Storage {
		return &scratched{Storage: b.journal, path: "/log", from: log.Columns[0].Start + 8192, n: 512}
	}},
	{"nothing says where it was", func(b *bench, log *chunk) Storage {
		b.vandalize(func(v *vandal) { v.batch.Put(meta.Chunks, key64(uint64(log.Base)), []byte{7}) })
		return b.journal
	}},
	{"it lies beyond its device", func(b *bench, log *chunk) Storage {
		b.vandalize(func(v *vandal) {
			c := log.Chunk
			c.Columns = slices.Clone(c.Columns)
			c.Columns[0].Start = 1 << 40
			v.setChunk(c.Base, &c)
		})
		return b.journal
	}},
}

// withLostLog makes a pool with something committed and something that only the
// log has, and loses the log. It returns what is committed of volume vol.
func withLostLog(t *testing.T, j *memdev.Journal, lose func(b *bench, log *chunk) Storage) (*bench, []byte) {
	b := newSmallBench(t, Config{}, 1, j)
	b.open()
	b.must(b.CreateVolume(ctx, "vol", 1<<20, VolumeOptions{}))
	b.must(b.AddDevice(ctx, DeviceSpec{Path: "/log", Size: minDeviceSize}, false))
	log := b.logApart()
	v := b.volume("vol")
	want := noise(1<<20, 5)
	if _, err := v.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	b.must(b.Snapshot(ctx, "vol", "vol@snap"))
	if _, err := v.WriteAt(noise(200_000, 6), 1000); err != nil {
		t.Fatal(err)
	}
	b.must(v.Flush(ctx))
	b.Abandon()
	b.opts.Storage = lose(b, log)
	return b, want
}

// repairLog plans and does a repair in the storage of the bench.
func (b *bench) repairLog(newLog bool) (*RepairPlan, error) {
	p, err := PlanRepair(ctx, b.dir, RepairOptions{Storage: b.opts.Storage, NewLog: newLog, Source: RepairNewest})
	if err == nil {
		_, err = p.Do(ctx)
	}
	return p, err
}

func TestALostLogCostsWhatItHeldAndNothingElse(t *testing.T) {
	for _, lost := range aLostLogIs {
		t.Run(lost.name, func(t *testing.T) {
			b, want := withLostLog(t, memdev.NewUnrecorded(), lost.lose)
			if p, err := Open(b.dir, b.opts); err == nil {
				p.Abandon()
				t.Fatal("the pool opens as if nothing were lost")
			} else if !errors.Is(err, ErrDamaged) && !strings.Contains(err.Error(), "repair") {
				t.Errorf("it does not say what to do: %v", err)
			}
			before := b.replicas()
			p, err := b.repairLog(false)
			if !errors.Is(err, ErrIncomplete) || !p.NewLog {
				t.Fatalf("the log was given up without being told to: %v", err)
			}
			if !slices.ContainsFunc(p.Losses, func(l string) bool {
				return strings.Contains(l, "intent log") && strings.Contains(l, "at most")
			}) {
				t.Errorf("nobody says what the log held: %q", p.Losses)
			}
			if !bytes.Equal(b.replicas(), before) {
				t.Error("the refused repair has changed the metadata")
			}
			if p, err = b.repairLog(true); err != nil {
				t.Fatalf("%v\n%+v", err, p)
			}
			b.open()
			for _, name := range []string{"vol", "vol@snap"} {
				if !bytes.Equal(b.content(name), want) {
					t.Errorf("%s is not what was committed", name)
				}
			}
			// The new log does what a log is for.
			v := b.volume("vol")
			if _, err := v.WriteAt(noise(50_000, 8), 70_000); err != nil {
				t.Fatal(err)
			}
			b.must(v.Flush(ctx))
			copy(want[70_000:], noise(50_000, 8))
			b.crash()
			if !bytes.Equal(b.content("vol"), want) {
				t.Error("what was flushed to the new log did not come back")
			}
			b.must(recountAll(b.Pool, false))
		})
	}
}

// replicas returns the bytes of the metadata.
func (b *bench) replicas() []byte {
	b.Helper()
	found, err := filepath.Glob(filepath.Join(b.dir, "meta-*.db"))
	b.must(err)
	var all []byte
	for _, path := range found {
		p, err := os.ReadFile(path)
		b.must(err)
		all = append(all, p...)
	}
	return all
}

// TestACrashWhileANewLogIsMadeLeavesTheOldPoolOrTheNew enumerates what devices may
// have when the machine ends anywhere in the repair: with the old metadata it can be
// repaired again, with the new it opens.
func TestACrashWhileANewLogIsMadeLeavesTheOldPoolOrTheNew(t *testing.T) {
	j := memdev.NewJournal()
	b, want := withLostLog(t, j, aLostLogIs[2].lose)
	old, err := readBolt(b.replica(0))
	b.must(err)
	begin := j.Len()
	if _, err := b.repairLog(true); err != nil {
		t.Fatal(err)
	}
	now, err := readBolt(b.replica(0))
	b.must(err)
	synced := begin + slices.IndexFunc(j.Entries()[begin:], func(e memdev.Entry) bool { return e.Kind == memdev.Sync })
	try := func(at int, seed uint64, file boltFile, repair bool) error {
		c := &bench{TB: t, journal: j.State(at, seed).Journal, dir: tempDir(t)}
		c.opts = b.opts
		c.opts.Storage = c.journal
		b.must(writeBolt(c.dir, []boltFile{file}))
		if repair {
			if _, err := c.repairLog(true); err != nil {
				return err
			}
		}
		c.open()
		defer c.Abandon()
		if !bytes.Equal(c.content("vol"), want) {
			return errors.New("vol is not what was committed")
		}
		return recountAll(c.Pool, false)
	}
	for k := range uint64(60) {
		at := begin + int(k)*(j.Len()-begin)/59
		if err := try(at, k, old, true); err != nil {
			t.Fatalf("%d of %d with the old metadata: %v", at-begin, j.Len()-begin, err)
		}
		if at > synced {
			if err := try(at, k, now, false); err != nil {
				t.Fatalf("%d of %d with the new metadata: %v", at-begin, j.Len()-begin, err)
			}
		}
	}
	if synced >= j.Len() {
		t.Error("nothing came after the new log was synced")
	}
}

// TestANewLogTakesThePlaceOfChunksThatHoldNothing has no other place for it: the
// devices are cut into chunks whole.
func TestANewLogTakesThePlaceOfChunksThatHoldNothing(t *testing.T) {
	b, want := withLostLog(t, memdev.NewUnrecorded(), func(b *bench, log *chunk) Storage {
		for _, g := range b.devices.get(1).gaps(b.space.all()) {
			t.Fatalf("%d bytes are free", g.n)
		}
		b.journal.Device("/log").Pull(0)
		return b.journal
	})
	if _, err := b.repairLog(true); err != nil {
		t.Fatal(err)
	}
	b.open()
	if !bytes.Equal(b.content("vol"), want) {
		t.Error("vol is not what was committed")
	}
	b.must(recountAll(b.Pool, false))
}
