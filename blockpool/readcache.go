package blockpool

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// readCache keeps whole records that were read and fitted their checksum, so that
// the next small read of one copies a few bytes, where else all of it is read and
// summed again. An item is known by what the record is, and a record is never
// changed where it lies, so nothing ever has to be taken out.
//
// It is for those who use volumes. A scrub and a repair want to know what is on
// the devices, and do not ask it.
//
// Who comes in first is on trial ("in"), and leaves in that order; what is asked
// for again after that, while its key is still remembered ("gone"), has shown that
// it is worth keeping ("main"). It is 2Q, of Johnson and Shasha: one pass over a
// volume, in reads of any size, goes by what is read again and again.
//
//	read ──> in ──> gone ──> forgotten
//	                 │ read again
//	                 ▼
//	                main ──> forgotten
//
// The memory is mapped, not allocated: the collector would let the process grow to
// twice as much.
type readCache struct {
	shards [16]readShard
}

// maxCachedRead is the largest read of a whole record that is kept. Larger ones
// gain little: copying costs as much as the device's own cache.
const maxCachedRead = 4 << 10

// A cacheKey is what a record is. Two records with the same have the same content.
type cacheKey struct {
	addr       format.Addr
	sum, birth uint64
}

func keyOf(r format.Record) cacheKey { return cacheKey{r.Addr, r.Sum, r.Birth} }

// A readShard is a part of the cache, with pages of its own.
type readShard struct {
	mu     sync.Mutex
	limit  int    // bytes
	memory []byte // mapped with the first record; nil: none yet, or the pool is closed
	closed bool
	free   []uint32 // pages of memory
	items  map[cacheKey]*cachedRecord
	in     cacheQueue // on trial
	main   cacheQueue // worth keeping
	gone   cacheQueue // keys of those that left the trial: they have no pages
}

// cachePage is the unit of memory.
const cachePage = format.SectorSize

// A cachedRecord is a record, or the memory of one.
type cachedRecord struct {
	key        cacheKey
	queue      *cacheQueue
	count      int      // pages that it takes, or took
	pages      []uint32 // nil in gone
	used       bool     // in main, since it was last looked at for leaving
	next, prev *cachedRecord
}

// A cacheQueue is a list of records, those that came last in front.
type cacheQueue struct {
	root  cachedRecord
	pages int
}

func (q *cacheQueue) init() { q.root.next, q.root.prev = &q.root, &q.root }

func (q *cacheQueue) push(r *cachedRecord) {
	r.queue, r.prev, r.next = q, &q.root, q.root.next
	r.prev.next, r.next.prev = r, r
	q.pages += r.count
}

func (q *cacheQueue) remove(r *cachedRecord) {
	r.prev.next, r.next.prev = r.next, r.prev
	q.pages -= r.count
	r.queue = nil
}

// last returns the record that came first.
func (q *cacheQueue) last() *cachedRecord {
	if q.root.prev == &q.root {
		return nil
	}
	return q.root.prev
}

func newReadCache(bytes int) *readCache {
	c := &readCache{}
	for i := range c.shards {
		s := &c.shards[i]
		s.limit = max(bytes, 0) / len(c.shards) / cachePage * cachePage
		s.items = map[cacheKey]*cachedRecord{}
		s.in.init()
		s.main.init()
		s.gone.init()
	}
	return c
}

func (c *readCache) shard(k cacheKey) *readShard {
	return &c.shards[uint64(k.addr)*0x9E3779B97F4A7C15>>60]
}

// copy fills b from within bytes into the record, and tells whether it is there.
func (c *readCache) copy(r format.Record, within int64, b []byte) bool {
	k := keyOf(r)
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.items[k]
	if x == nil || x.pages == nil || within+int64(len(b)) > int64(x.count)*cachePage {
		return false
	}
	x.used = true
	for len(b) > 0 {
		page := s.page(x.pages[within/cachePage])
		n := copy(b, page[within%cachePage:])
		b, within = b[n:], within+int64(n)
	}
	return true
}

// add keeps the content of a record.
func (c *readCache) add(r format.Record, content []byte) {
	k := keyOf(r)
	s := c.shard(k)
	count := int(format.Sectors(int64(len(content))))
	s.mu.Lock()
	defer s.mu.Unlock()
	if count*cachePage > s.limit/4 || !s.ready() {
		return
	}
	to := &s.in
	if x := s.items[k]; x != nil {
		if x.pages != nil {
			return // two have read it at the same time
		}
		s.forget(x)
		to = &s.main
	}
	for len(s.free) < count {
		s.evict()
	}
	x := &cachedRecord{key: k, count: count}
	x.pages = append(x.pages, s.free[len(s.free)-count:]...)
	s.free = s.free[:len(s.free)-count]
	for i, page := range x.pages {
		copy(s.page(page), content[i*cachePage:])
	}
	s.items[k] = x
	to.push(x)
}

// page returns a page of the shard's memory. mu is held.
func (s *readShard) page(i uint32) []byte { return s.memory[int(i)*cachePage:][:cachePage] }

// ready maps the memory, if it is not yet there. mu is held.
func (s *readShard) ready() bool {
	if s.memory != nil || s.closed {
		return s.memory != nil
	}
	var err error
	if s.memory, err = unix.Mmap(-1, 0, s.limit, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON); err != nil {
		s.memory, s.closed = nil, true // a host without memory to spare: read as if there were no cache
		return false
	}
	for i := s.limit/cachePage - 1; i >= 0; i-- {
		s.free = append(s.free, uint32(i)) // the low ones are taken first
	}
	return true
}

// evict takes the pages of one record. mu is held.
func (s *readShard) evict() {
	total := s.limit / cachePage
	if x := s.in.last(); x != nil && (s.in.pages > total/4 || s.main.pages == 0) {
		s.in.remove(x)
		s.takePages(x)
		s.gone.push(x)
		for s.gone.pages > total {
			s.forget(s.gone.last())
		}
		return
	}
	for x := s.main.last(); ; x = s.main.last() {
		if !x.used {
			s.forget(x)
			return
		}
		x.used = false // one more round
		s.main.remove(x)
		s.main.push(x)
	}
}

// forget takes a record out. mu is held.
func (s *readShard) forget(x *cachedRecord) {
	x.queue.remove(x)
	s.takePages(x)
	delete(s.items, x.key)
}

func (s *readShard) takePages(x *cachedRecord) {
	s.free = append(s.free, x.pages...)
	x.pages = nil
}

// close gives the memory back. Who comes later finds nothing.
func (c *readCache) close() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		if s.memory != nil {
			unix.Munmap(s.memory) // of a mapping of our own: it cannot fail
		}
		s.memory, s.closed, s.free = nil, true, nil
		clear(s.items)
		s.mu.Unlock()
	}
}
