package blockpool

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// discards gives freed sectors back to files and devices, beside everything else.
// They come here when no state on disk names them and nobody looks at them any
// more, and are free for others when the devices have been told.
//
// Crash with some of them on their way: they are free, and not given back.
type discards struct {
	mu      sync.Mutex
	queue   []extent
	running bool
}

// discardRun bounds what is discarded at once, in sectors.
const discardRun = 64 << 20 / format.SectorSize

// pending reports whether sectors are on their way.
func (d *discards) pending() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.running
}

// releaseFreed takes back sectors that nobody can look at any more.
func (p *Pool) releaseFreed(extents []extent) {
	if len(extents) == 0 {
		return
	}
	if !p.Config().Discard || p.readOnly() != nil {
		p.release(extents)
		return
	}
	p.discards.mu.Lock()
	p.discards.queue = append(p.discards.queue, extents...)
	begin := !p.discards.running
	p.discards.running = true
	p.discards.mu.Unlock()
	if begin {
		if _, done, err := p.jobs.begin(context.Background()); err != nil {
			p.discards.stop(p) // the pool is closing
		} else {
			go func() {
				defer done()
				p.discards.run(p)
			}()
		}
	}
}

func (p *Pool) release(extents []extent) {
	if err := p.space.release(extents...); err != nil {
		p.alarm(err)
	}
}

// run discards until the queue is empty.
func (d *discards) run(p *Pool) {
	for {
		d.mu.Lock()
		queue := d.queue
		d.queue = nil
		d.running = len(queue) > 0
		d.mu.Unlock()
		if len(queue) == 0 {
			return
		}
		for _, x := range coalesce(queue) {
			if p.readOnly() == nil {
				p.discard(x)
			}
		}
		p.release(queue)
	}
}

// stop gives the queue back without discarding it.
func (d *discards) stop(p *Pool) {
	d.mu.Lock()
	queue := d.queue
	d.queue, d.running = nil, false
	d.mu.Unlock()
	p.release(queue)
}

// coalesce returns extents in order, with those in a row as one.
func coalesce(extents []extent) (runs []extent) {
	sorted := slices.SortedFunc(slices.Values(extents), func(a, b extent) int { return cmp.Compare(a.at, b.at) })
	for _, x := range sorted {
		if n := len(runs); n > 0 && runs[n-1].at+format.Addr(runs[n-1].n) == x.at {
			runs[n-1].n += x.n
		} else {
			runs = append(runs, x)
		}
	}
	return runs
}

// discard tells the devices that sectors hold nothing, chunk by chunk. What a
// device answers is an event at most: nothing is lost.
func (p *Pool) discard(x extent) {
	for x.n > 0 {
		e := p.epochs.hold() // the chunk stays where it is meanwhile
		c, err := p.space.chunk(x.at)
		if err != nil {
			e.release()
			return // it was removed
		}
		n := min(x.n, int64(c.end()-x.at), discardRun)
		_ = p.array.Discard(&c.Chunk, x.at, n) // the array has told of it
		e.release()
		x.at, x.n = x.at+format.Addr(n), x.n-n
	}
}

// Trim gives all that is free in chunks back to files and devices, a bounded piece
// at a time, which nobody can write to meanwhile. progress, if it is not nil, is
// called with the bytes that were done after each piece. It returns how many
// bytes were given back, copies not counted.
func (p *Pool) Trim(ctx context.Context, progress func(done, total int64)) (trimmed int64, err error) {
	if err := p.readOnly(); err != nil {
		return 0, fmt.Errorf("trim: %w", err)
	}
	ctx, done, err := p.jobs.begin(ctx)
	if err != nil {
		return 0, fmt.Errorf("trim: %w", err)
	}
	defer done()
	const piece = 8 << 20 / format.SectorSize
	chunks, total := p.space.all(), int64(0)
	for _, c := range chunks {
		total += int64(c.free.Free()) * format.SectorSize
	}
	for _, c := range chunks {
		if c.Class == format.Log {
			continue
		}
		for at := c.Base; ; {
			if err := context.Cause(ctx); err != nil {
				return trimmed, fmt.Errorf("trim: %w", err)
			}
			x, ok := p.space.take(at, piece)
			if !ok {
				break
			}
			p.discard(x)
			p.release([]extent{x})
			at = x.at + format.Addr(x.n)
			trimmed += x.n * format.SectorSize
			if progress != nil {
				progress(trimmed, max(total, trimmed))
			}
		}
	}
	return trimmed, nil
}

// take allocates the next free sectors of the chunk at an address, at most so
// many.
func (s *space) take(at format.Addr, most int64) (extent, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.chunkLocked(at)
	if err != nil || c.frozen {
		return extent{}, false
	}
	unit, n, ok := c.free.Take(uint64(at), uint64(most))
	if ok {
		s.free[c.Class] -= int64(n)
	}
	return extent{format.Addr(unit), int64(n)}, ok
}
