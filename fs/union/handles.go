package union

import (
	"io"
	"sync"
	"sync/atomic"
)

// A handle is an open object of a layer that several callers may use at once
// and that the cache may close when none does.
type handle[T io.Closer] struct {
	obj    T
	refs   atomic.Int32 // users; closedRefs once closed
	used   atomic.Bool  // since the clock hand passed
	doomed atomic.Bool  // no longer in its slot: close with the last user
}

const closedRefs = -1 << 30

func (h *handle[T]) hold() bool {
	for {
		r := h.refs.Load()
		if r < 0 {
			return false
		}
		if h.refs.CompareAndSwap(r, r+1) {
			if !h.used.Load() {
				h.used.Store(true)
			}
			return true
		}
	}
}

// release gives the handle back. The error of closing a descriptor that was
// synced when its user asked for it tells nothing that anyone could act on.
func (h *handle[T]) release() {
	if h.refs.Add(-1) == 0 && h.doomed.Load() {
		h.tryClose()
	}
}

func (h *handle[T]) tryClose() bool {
	if !h.refs.CompareAndSwap(0, closedRefs) {
		return false
	}
	h.obj.Close()
	return true
}

func (h *handle[T]) doom() {
	h.doomed.Store(true)
	h.tryClose()
}

// closed implements evictable.
func (h *handle[T]) closed() bool { return h.refs.Load() < 0 }

// evict implements evictable.
func (h *handle[T]) evict() bool {
	if h.used.Swap(false) {
		return h.closed()
	}
	return h.tryClose() || h.closed()
}

// A slot holds the handle of an object while it is open. The zero slot is
// empty.
type slot[T io.Closer] struct{ p atomic.Pointer[handle[T]] }

// acquire returns the open handle, held, or nil.
func (s *slot[T]) acquire() *handle[T] {
	if h := s.p.Load(); h != nil && h.hold() {
		return h
	}
	return nil
}

// put fills the slot with obj and returns its handle, held. When another
// caller was faster, obj is closed and the other's handle is returned.
func (s *slot[T]) put(c *handleCache, obj T) *handle[T] {
	n := &handle[T]{obj: obj}
	n.refs.Store(1)
	n.used.Store(true)
	for {
		old := s.p.Load()
		if old != nil && old.hold() {
			obj.Close()
			return old
		}
		if s.p.CompareAndSwap(old, n) {
			c.add(n)
			return n
		}
	}
}

// replace fills the slot with obj, whatever it held before.
func (s *slot[T]) replace(c *handleCache, obj T) *handle[T] {
	n := &handle[T]{obj: obj}
	n.refs.Store(1)
	n.used.Store(true)
	if old := s.p.Swap(n); old != nil {
		old.doom()
	}
	c.add(n)
	return n
}

// drop empties the slot; the object is closed when its last user is done.
func (s *slot[T]) drop() {
	if old := s.p.Swap(nil); old != nil {
		old.doom()
	}
}

type evictable interface {
	// closed reports whether the object is closed already.
	closed() bool
	// evict closes the object unless it is held or was used since the last
	// call, and reports whether it is closed now.
	evict() bool
}

// handleCache bounds the number of open handles. It is a clock: a hand goes
// round and closes what was not used since it last passed. Only opening takes
// its lock, using does not.
type handleCache struct {
	limit int

	mu   sync.Mutex
	ring []evictable
	hand int
}

func newHandleCache(limit int) *handleCache { return &handleCache{limit: max(limit, 16)} }

func (c *handleCache) add(h evictable) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ring) < c.limit {
		// Room is left: only take the place of what is closed anyway.
		if len(c.ring) > 0 && c.next().closed() {
			c.ring[c.hand] = h
			return
		}
		c.ring = append(c.ring, h)
		return
	}
	// Two rounds at most: the first takes away the marks of use. If all are
	// held even then, the ring grows: exceeding the bound beats failing.
	for range 2 * len(c.ring) {
		if c.next().evict() {
			c.ring[c.hand] = h
			return
		}
	}
	c.ring = append(c.ring, h)
}

// next moves the hand and returns what it points at.
func (c *handleCache) next() evictable {
	c.hand++
	if c.hand >= len(c.ring) {
		c.hand = 0
	}
	return c.ring[c.hand]
}

// shrink closes up to n idle handles, for when the process has run out of
// descriptors.
func (c *handleCache) shrink(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := 0; i < 2*len(c.ring) && n > 0; i++ {
		if e := c.next(); !e.closed() && e.evict() {
			n--
		}
	}
}

// close closes what is still open and not held.
func (c *handleCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.ring {
		if !e.evict() {
			e.evict() // the first time took away the mark of use
		}
	}
	c.ring = nil
}
