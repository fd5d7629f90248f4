package spacemap

import (
	"fmt"
	"math/bits"
	"sync"
)

// An Allocator gives out the units of one range, a chunk, and knows what must not
// be given out now. It is safe for concurrent use.
type Allocator struct {
	base, n uint64 // never change

	mu    sync.Mutex
	words []uint64 // bit set: not to be given out; bits past n are set
	free  uint64
	next  uint64 // where the search begins, from base
	// largest is an upper bound of the longest free run. It lets a full chunk
	// refuse without a search.
	largest uint64
}

// NewAllocator returns an allocator for the n units from base on, all of them
// free.
func NewAllocator(base, n uint64) *Allocator {
	a := &Allocator{base: base, n: n, words: make([]uint64, (n+63)/64), free: n, largest: n}
	if n%64 != 0 {
		a.words[len(a.words)-1] = ^uint64(0) << (n % 64)
	}
	return a
}

// Allocator returns an allocator for the n units from base on, in which all that
// the map counts is reserved.
func (m *Map) Allocator(base, n uint64) (*Allocator, error) {
	a := NewAllocator(base, n)
	for unit := base; unit < base+n; {
		seg := unit / SegmentUnits
		b, err := m.Bits(seg)
		if err != nil {
			return nil, err
		}
		for stop := min(base+n, (seg+1)*SegmentUnits); unit < stop; unit++ {
			if b.has(unit % SegmentUnits) {
				i := unit - base
				a.words[i/64] |= 1 << (i % 64)
				a.free--
			}
		}
	}
	a.largest = a.free
	return a, nil
}

// Allocate gives out n units in a row. Their distance from the allocator's base
// is a multiple of align, which is 1 or more. It begins to look where the last
// allocation ended, so that what is written together lies together. ok is false
// when there is no such run.
func (a *Allocator) Allocate(n, align uint64) (unit uint64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n == 0 || align == 0 || n > min(a.largest, a.free) {
		return 0, false
	}
	at, _, ok := a.search(a.next, n, align)
	if !ok {
		var largest uint64
		if at, largest, ok = a.search(0, n, align); !ok {
			a.largest = largest // every run was seen
			return 0, false
		}
	}
	a.fill(at, n)
	a.free -= n
	a.next = at + n
	return a.base + at, true
}

// search finds n free units from from on. When there are none, it returns the
// longest free run that it saw instead.
func (a *Allocator) search(from, n, align uint64) (at, largest uint64, ok bool) {
	for {
		begin := a.nextFree(from)
		if begin == a.n {
			return 0, largest, false
		}
		at = (begin + align - 1) / align * align
		want := at + n
		if at < begin || want < at || want > a.n {
			want = a.n + 1 // cannot be: only the run's length is of interest
		}
		end := a.nextUsed(begin, min(want, a.n))
		if end == want {
			return at, 0, true
		}
		largest = max(largest, end-begin)
		from = end
	}
}

// nextFree returns the first free unit from from on, a.n if there is none.
func (a *Allocator) nextFree(from uint64) uint64 {
	if from >= a.n {
		return a.n
	}
	w := ^a.words[from/64] & (^uint64(0) << (from % 64))
	for i := from / 64; ; w = ^a.words[i] {
		if w != 0 {
			return i*64 + uint64(bits.TrailingZeros64(w))
		}
		if i++; i == uint64(len(a.words)) {
			return a.n
		}
	}
}

// nextUsed returns the first unit from from on that is not free, limit if there
// is none before it. limit is a.n or less.
func (a *Allocator) nextUsed(from, limit uint64) uint64 {
	if from >= limit {
		return limit
	}
	w := a.words[from/64] & (^uint64(0) << (from % 64))
	for i := from / 64; ; w = a.words[i] {
		if w != 0 {
			return min(i*64+uint64(bits.TrailingZeros64(w)), limit)
		}
		if i++; i*64 >= limit {
			return limit
		}
	}
}

// lastUsed returns the end of the last unit before before that is not free, 0 if
// there is none.
func (a *Allocator) lastUsed(before uint64) uint64 {
	for i := before; i > 0; {
		word := (i - 1) / 64
		w := a.words[word] << (63 - (i-1)%64)
		if w != 0 {
			return i - uint64(bits.LeadingZeros64(w))
		}
		i = word * 64
	}
	return 0
}

// Reserve takes n units from unit on out of what may be given out. It fails with
// ErrInUse when one of them is not free, and has changed nothing then.
func (a *Allocator) Reserve(unit, n uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, err := a.within(unit, n)
	if err != nil {
		return err
	}
	if u := a.nextUsed(at, at+n); u < at+n {
		return fmt.Errorf("spacemap: reserve %d units from %d on: unit %d: %w", n, unit, a.base+u, ErrInUse)
	}
	a.fill(at, n)
	a.free -= n
	return nil
}

// Release lets n units from unit on be given out again. It fails with ErrNotInUse
// when one of them is free, and has changed nothing then.
func (a *Allocator) Release(unit, n uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, err := a.within(unit, n)
	if err != nil {
		return err
	}
	if u := a.nextFree(at); u < at+n {
		return fmt.Errorf("spacemap: release %d units from %d on: unit %d: %w", n, unit, a.base+u, ErrNotInUse)
	}
	a.empty(at, n)
	a.free += n
	if a.largest < a.free {
		a.largest = max(a.largest, a.nextUsed(at+n, a.n)-a.lastUsed(at))
	}
	return nil
}

// within returns the distance of unit from the base.
func (a *Allocator) within(unit, n uint64) (uint64, error) {
	if unit < a.base || n == 0 || n > a.n || unit-a.base > a.n-n {
		return 0, fmt.Errorf("spacemap: %d units from %d on are not in the %d from %d on", n, unit, a.n, a.base)
	}
	return unit - a.base, nil
}

func (a *Allocator) fill(at, n uint64) {
	masks(at, n, func(i, mask uint64) { a.words[i] |= mask })
}

func (a *Allocator) empty(at, n uint64) {
	masks(at, n, func(i, mask uint64) { a.words[i] &^= mask })
}

// masks calls f for each word that n bits from at on touch.
func masks(at, n uint64, f func(i, mask uint64)) {
	for end := at + n; at < end; {
		low, high := at%64, min(64, at%64+end-at)
		f(at/64, ^uint64(0)>>(64-(high-low))<<low)
		at += high - low
	}
}

// Free returns the number of units that may be given out.
func (a *Allocator) Free() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.free
}

// Largest returns an upper bound of what one Allocate can get.
func (a *Allocator) Largest() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return min(a.largest, a.free)
}

// Range returns the first unit of the allocator's range and the number of units.
func (a *Allocator) Range() (base, n uint64) { return a.base, a.n }
