package intent

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
)

// A memArea is an area in memory that keeps its writes, to make the states that
// a crash could leave.
type memArea struct {
	mu       sync.Mutex
	now      []byte
	durable  []byte     // as of the last sync
	unsynced []memWrite // since then
	syncErr  error
	writeErr error
	onSync   func()
}

type memWrite struct {
	off  int64
	data []byte
}

func newArea(size int64) *memArea {
	return &memArea{now: make([]byte, size), durable: make([]byte, size)}
}

func (a *memArea) Size() int64 { return int64(len(a.now)) }

func (a *memArea) ReadAt(p []byte, off int64) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return copy(p, a.now[off:]), nil
}

func (a *memArea) WriteAt(p []byte, off int64) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.writeErr != nil {
		return 0, a.writeErr
	}
	a.unsynced = append(a.unsynced, memWrite{off, slices.Clone(p)})
	return copy(a.now[off:], p), nil
}

func (a *memArea) Sync(context.Context) error {
	if a.onSync != nil {
		a.onSync()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.syncErr != nil {
		return a.syncErr
	}
	for _, w := range a.unsynced {
		copy(a.durable[w.off:], w.data)
	}
	a.unsynced = nil
	return nil
}

// crash returns what may be on disk after a loss of power now. Each unsynced
// write is there, not there, there in some sectors of 512 bytes, or cut off
// while a block was being written, which is then garbage from end to end.
func (a *memArea) crash(rng *rand.Rand) *memArea {
	disk := slices.Clone(a.durable)
	keep := rng.IntN(4) // all, a prefix, a random half, few
	for i, w := range a.unsynced {
		switch {
		case keep == 1 && i >= len(a.unsynced)/2, keep == 2 && rng.IntN(2) == 0, keep == 3 && rng.IntN(4) != 0:
			continue
		}
		switch rng.IntN(6) {
		case 0:
			for s := w.off / 512; s <= (w.off+int64(len(w.data))-1)/512; s++ {
				if rng.IntN(2) == 0 {
					from, to := max(s*512, w.off), min((s+1)*512, w.off+int64(len(w.data)))
					copy(disk[from:to], w.data[from-w.off:])
				}
			}
		case 1:
			first, last := w.off/blockSize, (w.off+int64(len(w.data))-1)/blockSize
			block := first + rng.Int64N(last-first+1)
			copy(disk[w.off:max(w.off, block*blockSize)], w.data)
			for j := block * blockSize; j < (block+1)*blockSize; j++ {
				disk[j] = byte(rng.Uint32())
			}
		default:
			copy(disk[w.off:], w.data)
		}
	}
	return &memArea{now: disk, durable: slices.Clone(disk)}
}
