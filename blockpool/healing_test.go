package blockpool

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// damaged is a pool with some volumes whose content is known, and a way to
// damage it.
type damaged struct {
	*bench
	rng  *rand.Rand
	want map[string]*sum
}

func newDamaged(t testing.TB, profile Profile, devices int, metadata Profile) *damaged {
	d := &damaged{bench: newSmallBench(t, Config{DataProfile: profile, MetadataProfile: metadata}, devices, memdev.NewUnrecorded())}
	d.opts.Tunables.ReadCache = -1 // every read sees the devices
	d.rng = rand.New(rand.NewPCG(uint64(profile), 21))
	d.open()
	for i := range 4 {
		name := fmt.Sprintf("v%d", i)
		d.must(d.CreateVolume(ctx, name, 200_000, VolumeOptions{RecordSize: 4096 << (2 * i % 6)}))
		v := d.volume(name)
		_, err := v.WriteAt(noise(200_000, uint64(i)), 0)
		d.must(err)
		v.Close()
		d.must(d.Snapshot(ctx, name, name+"@s"))
	}
	d.must(d.recount())
	var err error
	d.want, err = observe(d.Pool)
	d.must(err)
	return d
}

// stored returns the records of all volumes.
func (d *damaged) stored() (all []format.Record) {
	view, err := d.meta.View()
	d.must(err)
	defer view.Close()
	c := &recounter{view: view, p: d.Pool, nodeRefs: map[uint64]uint64{}, extents: map[uint64]*tally{}, usedBy: map[uint64]int64{}}
	c.catalogue()
	d.must(errors.Join(c.wrong...))
	for _, x := range c.extents {
		all = append(all, x.rec)
	}
	return all
}

// hurt damages one sector of a record on one of its devices: flipped bits, zeros,
// or the bytes of another place, as a misdirected write leaves them. It returns
// what undoes it, and false if nothing has changed.
func (d *damaged) hurt(rec format.Record, column int) (undo func(), changed bool) {
	c, err := d.space.chunk(rec.Addr)
	d.must(err)
	col := c.Columns[column]
	dev := d.journal.Device(d.devices.get(uint32(col.Device)).state.Load().path)
	width := int64(1)
	if c.Profile.Parity() > 0 {
		width = int64(len(c.Columns))
	}
	// Some row of the record; on raidz another record may be hit as well.
	row := (int64(rec.Addr-c.Base) + d.rng.Int64N(c.Need(int64(rec.Size)))) / width
	off := col.Start + row*4096
	old := dev.Peek(off, 4096)
	switch d.rng.IntN(3) {
	case 0:
		b := bytes.Clone(old)
		for range 1 + d.rng.IntN(4) {
			b[d.rng.IntN(len(b))] ^= 1 << d.rng.IntN(8)
		}
		dev.Poke(off, b)
	case 1:
		dev.Zero(off, 4096)
	case 2:
		dev.Poke(off, dev.Peek(col.Start+d.rng.Int64N(c.ColumnBytes()/4096)*4096, 4096))
	}
	return func() { dev.Poke(off, old) }, !bytes.Equal(old, dev.Peek(off, 4096))
}

// same reads everything and compares it with what was written.
func (d *damaged) same() error {
	seen, err := observe(d.Pool)
	if err == nil && !maps.EqualFunc(seen, d.want, (*sum).equal) {
		err = errors.New("wrong bytes were returned")
	}
	return err
}

// TestDamageIsHealedWhereThereIsRedundancy damages as many devices as a profile
// stands, reads and scrubs, and damages others then: what had not been healed
// would be lost.
func TestDamageIsHealedWhereThereIsRedundancy(t *testing.T) {
	for _, profile := range []struct {
		Profile
		devices, bad int
	}{{Mirror, 2, 1}, {RaidZ1, 3, 1}, {RaidZ2, 5, 2}} {
		t.Run(profile.String(), func(t *testing.T) {
			d := newDamaged(t, profile.Profile, profile.devices, Single)
			records := d.stored()
			const perRound = 25
			for range fromEnv("LAMINA_DAMAGES", 1000) / perRound {
				columns := d.rng.Perm(profile.devices)[:profile.bad]
				hit := map[format.Addr]bool{}
				for range perRound {
					rec := records[d.rng.IntN(len(records))]
					d.hurt(rec, columns[d.rng.IntN(len(columns))])
					hit[rec.Addr] = true
				}
				d.must(d.same())
				if d.rng.IntN(2) == 0 && profile.Profile == Mirror {
					d.spare(records, columns[0])
				}
				for _, rec := range records {
					c, err := d.space.chunk(rec.Addr)
					d.must(err)
					_, err = d.array.Scrub(&c.Chunk, rec.Addr, int(rec.Size), fits(rec))
					d.must(err)
				}
				d.must(d.same())
			}
		})
	}
}

// spare reads each record once more, whichever copy is asked, with the other copy
// gone: what was read before must have mended this one.
func (d *damaged) spare(records []format.Record, column int) {
	for _, rec := range records {
		c, err := d.space.chunk(rec.Addr)
		d.must(err)
		b := make([]byte, rec.Size)
		// The copy that was asked first is mended at once; the other one when it
		// is asked. Scrub asks for all.
		if _, err := d.array.Scrub(&c.Chunk, rec.Addr, len(b), fits(rec)); err != nil {
			d.Fatal(err)
		}
		n, err := d.array.ReadRaw(&c.Chunk, column, int64(rec.Addr-c.Base)*4096, b)
		if err != nil || n != len(b) || !fits(rec)(b) {
			d.Fatalf("the copy at %d of column %d is not mended: %v", rec.Addr, column, err)
		}
	}
}

// TestDamageIsDetectedWhereThereIsNone damages the only copy.
func TestDamageIsDetectedWhereThereIsNone(t *testing.T) {
	d := newDamaged(t, Single, 1, Single)
	records := d.stored()
	for i := range fromEnv("LAMINA_DAMAGES", 1000) {
		undo, changed := d.hurt(records[d.rng.IntN(len(records))], 0)
		err := d.same()
		if changed != errors.Is(err, ErrDamaged) || !changed && err != nil {
			t.Fatalf("damage %d (changed: %v): %v", i, changed, err)
		}
		undo()
	}
	d.must(d.same())
}

// TestDamagedMetadataIsHealedOrRefused damages a replica of a closed pool: two of
// them make up for each other, and of one nothing wrong is ever shown.
func TestDamagedMetadataIsHealedOrRefused(t *testing.T) {
	for _, metadata := range []Profile{Mirror, Single} {
		t.Run(metadata.String(), func(t *testing.T) {
			d := newDamaged(t, Mirror, 2, metadata)
			d.must(d.Close())
			files := paths(d.dir, 1+int(metadata))
			var whole []boltFile
			for _, path := range files {
				f, err := readBolt(path)
				d.must(err)
				whole = append(whole, f)
			}
			refused, partly := 0, 0
			for i := range fromEnv("LAMINA_METADATA_DAMAGES", 500) {
				hit := d.rng.IntN(len(files))
				for k := range files {
					d.must(whole[k].write(files[k]))
				}
				broken := boltFile{bytes.Clone(whole[hit].pages), whole[hit].size}
				d.scramble(broken.pages)
				d.must(broken.write(files[hit]))
				p, err := Open(d.dir, d.opts)
				if err != nil {
					if metadata == Mirror || !errors.Is(err, ErrDamaged) {
						t.Fatalf("damage %d of replica %d: %v", i, hit, err)
					}
					refused++
					continue
				}
				d.Pool = p
				err = d.same()
				switch {
				case metadata == Single && errors.Is(err, ErrDamaged):
					partly++
				case err != nil:
					t.Fatalf("damage %d of replica %d: %v", i, hit, err)
				}
				p.Abandon()
				d.Pool = nil
			}
			t.Logf("%d times refused, %d times read in part", refused, partly)
		})
	}
}

// scramble damages pages: bits, a sector of zeros, or one page over another.
func (d *damaged) scramble(pages []byte) {
	at := d.rng.IntN(len(pages))
	switch d.rng.IntN(4) {
	case 0:
		pages[at] ^= 1 << d.rng.IntN(8)
	case 1:
		clear(pages[at/512*512:][:512])
	case 2:
		from, to := d.rng.IntN(len(pages)/4096)*4096, at/4096*4096
		copy(pages[to:to+4096], pages[from:])
	case 3:
		clear(pages[at/4096*4096:])
	}
}

// TestEachReplicaIsThePoolByItself takes all replicas but one away.
func TestEachReplicaIsThePoolByItself(t *testing.T) {
	for keep := range 2 {
		d := newDamaged(t, Mirror, 2, Mirror)
		d.must(d.Close())
		d.Pool = nil
		d.must(os.Remove(ReplicaName(d.dir, 1-keep)))
		d.open()
		d.must(d.same())
		d.must(d.recount())
	}
}

// TestAReplicaThatFellBehindIsNotTakenForThePool loses a replica while the pool
// is in use, and has only that one later, as it was then.
func TestAReplicaThatFellBehindIsNotTakenForThePool(t *testing.T) {
	d := newDamaged(t, Mirror, 2, Mirror)
	d.must(d.Close())
	old, err := readBolt(ReplicaName(d.dir, 0))
	d.must(err)
	d.opts.Tunables.NodeCache = 1
	d.open()
	f, err := os.OpenFile(ReplicaName(d.dir, 0), os.O_RDWR, 0)
	d.must(err)
	defer f.Close()
	_, err = f.WriteAt(noise(int64(len(old.pages))-8192, 1), 8192)
	d.must(err)
	d.must(d.same())
	v := d.volume("v0")
	_, err = v.WriteAt(noise(100, 5), 0)
	d.must(err)
	v.Close()
	d.must(d.Sync(ctx))
	if len(d.meta.Failed()) != 1 {
		t.Fatal("no replica has failed")
	}
	d.must(d.Close())
	d.Pool = nil
	d.must(os.Remove(ReplicaName(d.dir, 1)))
	d.must(old.write(ReplicaName(d.dir, 0)))
	p, err := Open(d.dir, d.opts)
	if err == nil {
		p.Abandon()
	}
	if !errors.Is(err, ErrIncomplete) {
		t.Errorf("a pool as it was some time ago was opened: %v", err)
	}
}

// TestWhatIsBeingReadIsNotUsedAgain has a reader wait on a slow device for a
// record that is freed meanwhile, in a pool that needs the space at once.
func TestWhatIsBeingReadIsNotUsedAgain(t *testing.T) {
	b := newSmallBench(t, Config{}, 1, memdev.NewUnrecorded())
	b.open()
	b.must(b.CreateVolume(ctx, "v", 64<<10, VolumeOptions{RecordSize: 64 << 10}))
	b.ballast(256) // three records more than what is kept
	v := b.volume("v")
	defer v.Close()
	for i := range 8 {
		want := noise(64<<10, uint64(i))
		_, err := v.WriteAt(want, 0)
		b.must(err)
		b.must(b.Sync(ctx))
		disarm := b.journal.Inject(memdev.Fault{Ops: memdev.Reads, Times: 1, Delay: 100 * time.Millisecond})
		got, done := make([]byte, 64<<10), make(chan error)
		go func() {
			_, err := v.ReadAt(got, 0)
			done <- err
		}()
		for b.epochs.readers() == 0 {
			time.Sleep(100 * time.Microsecond)
		}
		for k := range 16 { // once around
			if _, err := v.WriteAt(noise(64<<10, uint64(100+k)), 0); err != nil && !errors.Is(err, ErrNoSpace) {
				t.Fatal(err)
			}
			b.must(b.Sync(ctx))
		}
		if err := <-done; err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d: a record was changed while it was read: %v", i, err)
		}
		disarm()
	}
}

// readers returns how many look at some state.
func (s *epochs) readers() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.list {
		n += e.readers
	}
	return n
}
