package main

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"
)

// A workload takes the time of something; what it needs before is not timed.
type workload struct {
	name      string
	reference string
	only      map[string]bool
	run       func(disk, options) (time.Duration, error)
}

func set(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

// disks are the subjects that are written and read.
var disks = set("bare", "pool", "pool-64K", "pool-fuse", "qcow2-fuse")

var workloads = []workload{
	{"sequential write + flush", "bare", disks, func(d disk, o options) (time.Duration, error) {
		return timed(func() error { return sequentialWrite(d, o.size) })
	}},
	{"sequential rewrite + flush", "bare", disks, filled(func(d disk, o options) error { return sequentialWrite(d, o.size) })},
	{"sequential read, cached", "bare", disks, filled(func(d disk, o options) error { return sequentialRead(d, o.size) })},
	{"random 4K read, cached", "bare", disks, filled(func(d disk, o options) error {
		return random(o.size, 8*o.ops, 1, func(_ int, off int64, p []byte) error { _, err := d.ReadAt(p, off); return err })
	})},
	{"random 4K write, flush at the end", "bare", disks, filled(func(d disk, o options) error {
		if err := random(o.size, 8*o.ops, 1, func(_ int, off int64, p []byte) error { _, err := d.WriteAt(p, off); return err }); err != nil {
			return err
		}
		return d.flush()
	})},
	{"random 4K write, flush each", "bare", disks, filled(func(d disk, o options) error { return writeFlush(d, o, 1) })},
	{"the same, 16 writers", "bare", disks, filled(func(d disk, o options) error { return writeFlush(d, o, 16) })},
	{"4K into shared records, flush each", "bare", set("bare", "pool", "pool-64K", "pool-fuse", "qcow2-fuse", "btrfs"), func(d disk, o options) (time.Duration, error) {
		if err := sequentialWrite(d, o.size); err != nil {
			return 0, err
		}
		if s, ok := d.(snapshotter); ok { // the bare file has no snapshots: a plain overwrite is its row
			if err := s.snapshot("before"); err != nil {
				return 0, err
			}
		}
		return timed(func() error { return writeFlush(d, o, 1) })
	}},
	{"snapshot", "bbolt", set("bbolt", "pool", "qcow2-fuse", "btrfs"), snapshots(10, false)},
	{"snapshot, 10,000 there", "bbolt", set("bbolt", "pool"), snapshots(10_000, false)},
	{"change and snapshot", "bbolt", set("bbolt", "pool", "qcow2-fuse", "btrfs"), snapshots(10, true)},
	{"read 4K under 1,000 snapshots", "pool", set("pool", "pool-deep"), filled(func(d disk, o options) error {
		return random(o.size, 8*o.ops, 1, func(_ int, off int64, p []byte) error { _, err := d.ReadAt(p, off); return err })
	})},
}

// timed takes the time of f.
func timed(f func() error) (time.Duration, error) {
	begin := time.Now()
	err := f()
	return time.Since(begin), err
}

// filled writes everything first, and lets f be timed.
func filled(f func(disk, options) error) func(disk, options) (time.Duration, error) {
	return func(d disk, o options) (time.Duration, error) {
		if err := sequentialWrite(d, o.size); err != nil {
			return 0, err
		}
		return timed(func() error { return f(d, o) })
	}
}

const transfer = 1 << 20

func sequentialWrite(d disk, size int64) error {
	p := content(transfer, 1)
	for off := int64(0); off < size; off += transfer {
		binary.LittleEndian.PutUint64(p, uint64(off))
		if _, err := d.WriteAt(p, off); err != nil {
			return err
		}
	}
	return d.flush()
}

func sequentialRead(d disk, size int64) error {
	p := make([]byte, transfer)
	for off := int64(0); off < size; off += transfer {
		if _, err := d.ReadAt(p, off); err != nil {
			return err
		}
	}
	return nil
}

func writeFlush(d disk, o options, writers int) error {
	return random(o.size, o.ops, writers, func(_ int, off int64, p []byte) error {
		if _, err := d.WriteAt(p, off); err != nil {
			return err
		}
		return d.flush()
	})
}

// random calls f n times with offsets of 4K blocks, from several goroutines.
func random(size int64, n, goroutines int, f func(i int, off int64, p []byte) error) error {
	var wg sync.WaitGroup
	errs := make([]error, goroutines)
	for w := range goroutines {
		wg.Go(func() {
			rng, p := rand.New(rand.NewPCG(uint64(w), 3)), content(4096, uint64(w))
			for i := w; i < n && errs[w] == nil; i += goroutines {
				errs[w] = f(i, rng.Int64N(size/4096)*4096, p)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// snapshots makes some snapshots first, and takes the time of 20 more, each after
// a change if that is wanted.
func snapshots(have int, change bool) func(disk, options) (time.Duration, error) {
	return func(d disk, o options) (time.Duration, error) {
		s := d.(snapshotter)
		if err := sequentialWrite(d, 16<<20); err != nil {
			return 0, err
		}
		if err := prepare(s, have); err != nil {
			return 0, err
		}
		const more = 20
		return timed(func() error {
			for i := range more {
				if change {
					if _, err := d.WriteAt(content(4096, uint64(i)), int64(i)<<20&(16<<20-1)); err != nil {
						return err
					}
				}
				if err := s.snapshot(snapshotName(have + i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// prepare makes n snapshots, many at a time where that helps.
func prepare(s snapshotter, n int) error {
	var wg sync.WaitGroup
	errs := make(chan error, n)
	limit := make(chan struct{}, 64)
	for i := range n {
		limit <- struct{}{}
		wg.Go(func() {
			errs <- s.snapshot(snapshotName(i))
			<-limit
		})
	}
	wg.Wait()
	for range n {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// content returns n bytes that do not compress.
func content(n int, seed uint64) []byte {
	p := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, 9))
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], rng.Uint64())
	}
	return p
}
