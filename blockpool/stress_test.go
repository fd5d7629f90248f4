package blockpool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// stressRecord is a record that says of each of its words what it is part of, so
// that a mixed one gives itself away.
func stressRecord(b []byte, n int64, version uint64) {
	for i := 0; i < len(b); i += 16 {
		binary.LittleEndian.PutUint64(b[i:], uint64(n))
		binary.LittleEndian.PutUint64(b[i+8:], version)
	}
}

func checkStressRecord(b []byte, n int64) error {
	version := binary.LittleEndian.Uint64(b[8:])
	for i := 0; i < len(b); i += 16 {
		gotN, gotVersion := binary.LittleEndian.Uint64(b[i:]), binary.LittleEndian.Uint64(b[i+8:])
		if version == 0 && gotN == 0 && gotVersion == 0 {
			continue
		}
		if gotN != uint64(n) || gotVersion != version {
			return fmt.Errorf("record %d, version %d: word %d is of record %d, version %d", n, version, i, gotN, gotVersion)
		}
	}
	return nil
}

// TestManyAtOnceWhileADeviceFails has readers, writers, snapshots, clones,
// destroys, syncs and flushes at work on the same volumes, in a pool that is short
// of space, for LAMINA_STRESS_SECONDS, while one device of a mirror fails. It is
// for the race detector.
func TestManyAtOnceWhileADeviceFails(t *testing.T) {
	b := newSmallBench(t, Config{DataProfile: Mirror, MetadataProfile: Mirror}, 3, memdev.NewUnrecorded())
	b.opts.Tunables = Tunables{DirtyLimit: 256 << 10, NodeCache: 8 << 10, ReadCache: 4 << 20, TxgInterval: 5 * time.Millisecond, deadPerTxg: 10}
	b.open()
	const size, recordSize = 1 << 20, 16 << 10
	for i := range 2 {
		b.must(b.CreateVolume(ctx, fmt.Sprintf("v%d", i), size, VolumeOptions{RecordSize: recordSize}))
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	work := func(seed uint64, f func(rng *rand.Rand) error) {
		rng := rand.New(rand.NewPCG(seed, 31))
		wg.Go(func() {
			for !stop.Load() {
				if err := f(rng); err != nil && !errors.Is(err, ErrNoSpace) {
					errs <- err
					stop.Store(true)
				}
			}
		})
	}
	var version atomic.Uint64
	for i := range 2 {
		v := b.volume(fmt.Sprintf("v%d", i))
		defer v.Close()
		for w := range uint64(2) {
			work(w, func(rng *rand.Rand) error {
				n := rng.Int64N(size / recordSize)
				p := make([]byte, recordSize)
				switch rng.IntN(12) {
				case 0:
					return v.Discard(ctx, n*recordSize, recordSize)
				case 1:
					return v.Flush(ctx)
				}
				stressRecord(p, n, version.Add(1))
				_, err := v.WriteAt(p, n*recordSize)
				return err
			})
		}
		work(uint64(i), func(rng *rand.Rand) error { return readStress(v, rng) })
		work(uint64(10+i), func(rng *rand.Rand) error {
			name := fmt.Sprintf("v%d@%d", i, rng.Uint64())
			if err := b.Snapshot(ctx, fmt.Sprintf("v%d", i), name); err != nil {
				return err
			}
			s, err := b.Open(name)
			if err != nil {
				return err
			}
			for range 5 {
				if err := readStress(s, rng); err != nil {
					return err
				}
			}
			s.Close()
			return b.Destroy(ctx, name)
		})
	}
	b.stressDataset(work, &version)
	last := time.Duration(fromEnv("LAMINA_STRESS_SECONDS", 3)) * time.Second
	time.Sleep(last / 3)
	b.journal.Device("/disk1").Inject(memdev.Fault{Ops: memdev.Writes, Times: 1, Err: unix.EIO})
	time.Sleep(last / 3)
	b.Devices()
	time.Sleep(last / 3)
	stop.Store(true)
	wg.Wait()
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
	b.must(b.recount())
	if state := b.Devices()[1].State; state != "faulted" {
		t.Errorf("the device that failed is %s", state)
	}
}

// stressDataset has writers change items and objects of a dataset together, each those
// of its own, while snapshots are taken and read: in them, item and object agree.
func (b *bench) stressDataset(work func(seed uint64, f func(rng *rand.Rand) error), version *atomic.Uint64) {
	const writers, each, recordSize = 2, 8, 8 << 10
	b.must(b.CreateDataset(ctx, "set", DatasetOptions{RecordSize: recordSize, Compression: CompressionLZ4}))
	set := b.tree("set")
	for w := range uint64(writers) {
		work(20+w, func(rng *rand.Rand) error {
			n := 1 + w*each + rng.Uint64N(each)
			if rng.IntN(10) == 0 {
				return set.Flush(ctx)
			}
			batch := &Batch{Frees: rng.IntN(9) == 0}
			v, length := version.Add(1), 16*(1+rng.IntN(3*recordSize/16))
			p := make([]byte, (length+recordSize-1)/recordSize*recordSize) // whole records: each is changed once
			stressRecord(p[:length], int64(n), v)
			batch.Put(itemKey(n), binary.BigEndian.AppendUint64(nil, v))
			batch.Write(n, 0, p)
			batch.Zero(n, int64(len(p)), ToEnd)
			return set.Apply(ctx, batch)
		})
	}
	work(30, func(rng *rand.Rand) error {
		name := fmt.Sprintf("set@%d", rng.Uint64())
		if err := b.Snapshot(ctx, "set", name); err != nil {
			return err
		}
		t, err := b.OpenTree(name)
		if err != nil {
			return err
		}
		p := make([]byte, 3*recordSize)
		for n := uint64(1); n <= writers*each && err == nil; n++ {
			if err = t.ReadObject(n, p, 0); err == nil {
				err = agree(t, n, p)
			}
		}
		return errors.Join(err, t.Close(), b.Destroy(ctx, name))
	})
}

// agree compares an object with its item.
func agree(t *Tree, n uint64, p []byte) error {
	value, err := t.Item(itemKey(n))
	if err != nil {
		return err
	}
	want := uint64(0)
	if value != nil {
		want = binary.BigEndian.Uint64(value)
	}
	for i := 0; i < len(p); i += 16 {
		gotN, got := binary.LittleEndian.Uint64(p[i:]), binary.LittleEndian.Uint64(p[i+8:])
		if (gotN != n || got != want) && (gotN != 0 || got != 0 || i == 0 && want != 0) {
			return fmt.Errorf("%s: object %d has version %d at %d, and its item says %d", t.Name(), n, got, i, want)
		}
	}
	return nil
}

func readStress(v *Volume, rng *rand.Rand) error {
	size := int64(v.RecordSize())
	n := rng.Int64N(v.Size() / size)
	count := min(1+rng.Int64N(4), v.Size()/size-n)
	p := make([]byte, count*size)
	if _, err := v.ReadAt(p, n*size); err != nil {
		return err
	}
	for i := range count {
		if err := checkStressRecord(p[i*size:][:size], n+i); err != nil {
			return fmt.Errorf("%s: %w", v.Name(), err)
		}
	}
	return nil
}
