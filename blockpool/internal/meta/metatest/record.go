// Package metatest makes the states that a crash could leave of a bbolt file.
//
// bbolt's writes cannot be intercepted: it wants a file of the host, which it
// maps. But what a commit writes, and in what order, is known (Tx.Commit):
//
//	grow the file, fsync
//	write changed pages in free places, fdatasync    first barrier
//	write one of the two meta pages, fdatasync       second barrier
//
// so a commit can be recorded by comparing the file before and after. A page
// that was written with the bytes that it had does not show, and need not.
package metatest

import (
	"bytes"
	"math/rand/v2"
	"os"
	"slices"
)

const (
	// PageSize is that of the files that are recorded.
	PageSize   = 4096
	sectorSize = 512
	metaPages  = 2
	// metaEnd is where a meta page's checksum ends.
	metaEnd = 16 + 64
)

// A Page is one page that a commit wrote.
type Page struct {
	Off  int64
	Data []byte
}

// A Commit is what one commit of bbolt did to a file.
type Commit struct {
	Before []byte // the file before, grown to its size after
	Data   []Page // written before the first barrier, ascending
	Meta   []Page // written before the second: one page, if the commit was made
}

// Record runs a commit and returns what it wrote to the file at path.
func Record(path string, commit func() error) (*Commit, error) {
	before, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := commit(); err != nil {
		return nil, err
	}
	after, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &Commit{Before: append(before, make([]byte, max(0, len(after)-len(before)))...)}
	for off := 0; off < len(after); off += PageSize {
		end := min(off+PageSize, len(after))
		if bytes.Equal(c.Before[off:end], after[off:end]) {
			continue
		}
		p := Page{int64(off), after[off:end]}
		if off < metaPages*PageSize {
			c.Meta = append(c.Meta, p)
		} else {
			c.Data = append(c.Data, p)
		}
	}
	return c, nil
}

// A Stage says how far a commit came.
type Stage int

// The stages. Only at Committed the commit must be seen, only up to Data it
// must not.
const (
	Data      Stage = iota // any part of the pages, none of the meta page
	Meta                   // all pages, a part of the meta page
	Committed              // everything
)

// Crash returns what may be on disk when power fails during a stage.
func (c *Commit) Crash(rng *rand.Rand, stage Stage) []byte {
	disk := slices.Clone(c.Before)
	if stage == Data {
		most := rng.IntN(4) // of four pages, so many are written
		for _, p := range c.Data {
			switch {
			case rng.IntN(4) > most:
			case rng.IntN(3) == 0:
				tear(rng, disk[p.Off:], p.Data)
			default:
				copy(disk[p.Off:], p.Data)
			}
		}
		return disk
	}
	for _, p := range c.Data {
		copy(disk[p.Off:], p.Data)
	}
	for _, p := range c.Meta {
		n := len(p.Data)
		if stage == Meta {
			n = rng.IntN(metaEnd + 1)
		}
		copy(disk[p.Off:], p.Data[:n])
	}
	return disk
}

// tear writes some of a page's sectors.
func tear(rng *rand.Rand, disk, page []byte) {
	for off := 0; off < len(page); off += sectorSize {
		if rng.IntN(2) == 0 {
			copy(disk[off:], page[off:off+sectorSize])
		}
	}
}

// Flip damages a file at a random place in a page that is not empty: one bit, one byte, a few bytes, or a
// sector that reads as zeros. It returns the damaged copy and where it differs.
func Flip(rng *rand.Rand, file []byte) (damaged []byte, off int) {
	for {
		off = rng.IntN(len(file))
		if page := off / PageSize * PageSize; !slices.ContainsFunc(file[page:min(page+PageSize, len(file))], func(b byte) bool { return b != 0 }) {
			continue
		}
		damaged = slices.Clone(file)
		switch rng.IntN(4) {
		case 0:
			damaged[off] ^= 1 << rng.IntN(8)
		case 1:
			damaged[off] = byte(rng.Uint32())
		case 2:
			for i := off; i < min(off+8, len(file)); i++ {
				damaged[i] = byte(rng.Uint32())
			}
		case 3:
			off = off / sectorSize * sectorSize
			clear(damaged[off:min(off+sectorSize, len(file))])
		}
		if !bytes.Equal(damaged, file) {
			return damaged, off
		}
	}
}
