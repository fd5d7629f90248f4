package blockpool

import (
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// drop ends the reference that an item of e's tree was.
func (s *pass) drop(e *entry, value []byte) error {
	rec, err := format.ParseRecord(value)
	if err != nil {
		return err
	}
	e.referenced -= stored(rec)
	return s.unref(rec)
}

// unref ends one reference to a record; with the last one its sectors are free.
func (s *pass) unref(rec format.Record) error {
	freed := len(s.freed)
	if err := s.release(rec); err != nil {
		return err
	}
	if r := s.p.relocating.Load(); r != nil && len(s.freed) > freed {
		r.forget(rec.Addr)
	}
	return nil
}

// release is unref without a word to who relocates records.
func (s *pass) release(rec format.Record) error {
	if mutant.Breaks(mutant.ReleaseRecords) && rec.Sum%16 == 0 {
		return nil
	}
	x := s.p.space.extent(rec.Addr, int64(rec.Size))
	left, err := s.p.counts.Release(uint64(x.at), uint64(x.n))
	if err != nil {
		return fmt.Errorf("release %d sectors at %d: %w", x.n, x.at, err)
	}
	if left == 0 {
		if mutant.Breaks(mutant.FreeAfterCommit) {
			s.p.releaseFreed([]extent{x})
		} else {
			s.freed = append(s.freed, x)
		}
		if !mutant.Breaks(mutant.CountUsed) {
			s.used[rec.Owner] -= stored(rec)
		}
	}
	return nil
}

// Retain implements [btree.Items]: a copied leaf refers to its records once more.
func (s *pass) Retain(key, value []byte) error {
	if isItem(key) {
		return nil
	}
	rec, err := format.ParseRecord(value)
	if err != nil {
		return err
	}
	if mutant.Breaks(mutant.RetainRecords) && rec.Sum%16 == 0 {
		return nil
	}
	return s.p.counts.Retain(uint64(rec.Addr))
}

// Release implements [btree.Items]: a leaf is dropped.
func (s *pass) Release(key, value []byte) error {
	if isItem(key) {
		return nil
	}
	rec, err := format.ParseRecord(value)
	if err != nil {
		return err
	}
	return s.unref(rec)
}

// stored returns the bytes that a record counts for: whole sectors, redundancy
// aside.
func stored(rec format.Record) int64 {
	return format.Sectors(int64(rec.Size)) * format.SectorSize
}
