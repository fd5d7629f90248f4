package fusefs

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// crew is the goroutines that serve a connection.
//
// One of them leads: it reads a request, handles it, replies and reads the next
// one, so that a client that asks one thing after another is always served by
// the same thread. With several readers the kernel would wake another one for
// every request, which costs more than to answer most of them.
//
//	        ┌────────── reply ──────────┐
//	leader: read ── short request ── handle
//	          └──── long request ── promote another ── handle ── reply ── stand by
//
// What may take long (see takesLong) is handled after another worker was
// promoted. A request that was taken for a short one and is not, because a disk
// must be waited for, is noticed by the watch within two of its periods: it
// promotes another worker then. Requests that arrive faster than one worker can
// answer get a second leader, and so on.
type crew struct {
	conn *conn
	done sync.WaitGroup

	mu      sync.Mutex
	all     []*worker // for the watch
	standby []*worker
	leaders int
	wanted  int // leaders there should be
	closed  bool

	tooMany atomic.Bool // leaders > wanted

	asleep atomic.Bool   // the watch waits on alarm
	alarm  chan struct{} // buffered
}

// watchPeriod bounds how long a request that waits for something keeps others
// from being read.
const watchPeriod = time.Millisecond

// narrowAfter is how many periods a further leader stays.
const narrowAfter = 16

// A worker reads and handles requests, one at a time.
type worker struct {
	conn *conn
	in   []byte // a request
	out  []byte // a reply
	// state is what it does: one of the constants below in the low bits, and
	// above them a number that changes with each request.
	state atomic.Uint64
	seen  uint64        // state when the watch last looked
	lead  chan struct{} // tells a worker that stands by to lead
	// backlog counts the samples in a row that have found a request waiting.
	backlog int
}

const (
	stateReading  = iota
	stateHandling // leads and handles a short request
	stateApart    // handles a request while others read
	stateBits     = 2
	stateMask     = 1<<stateBits - 1
)

func newWorker(c *conn) *worker {
	return &worker{
		conn: c,
		in:   make([]byte, max(c.maxWrite+requestRoom, minRequestRoom)),
		out:  make([]byte, minReplyRoom),
		lead: make(chan struct{}, 1),
	}
}

func newCrew(c *conn) *crew {
	return &crew{conn: c, wanted: 1, alarm: make(chan struct{}, 1)}
}

// serve answers requests until the filesystem is unmounted and the last one is
// answered.
func (c *crew) serve() {
	stop := make(chan struct{})
	go c.watch(stop)
	c.mu.Lock()
	c.promoteLocked()
	c.mu.Unlock()
	c.done.Wait()
	close(stop)
}

// count notes that the number of leaders has changed, or of those wanted.
func (c *crew) count(by int) {
	c.leaders += by
	c.tooMany.Store(c.leaders > c.wanted)
}

// promoteLocked makes another worker lead, if there are not enough of them.
func (c *crew) promoteLocked() {
	if c.closed || c.leaders >= c.wanted {
		return
	}
	c.count(1)
	if k := len(c.standby); k > 0 {
		w := c.standby[k-1]
		c.standby = c.standby[:k-1]
		w.lead <- struct{}{}
		return
	}
	w := newWorker(c.conn)
	c.all = append(c.all, w)
	c.done.Add(1)
	go func() {
		defer c.done.Done()
		c.work(w)
	}()
}

// stepDown gives up the lead and sees to another leader.
func (c *crew) stepDown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count(-1)
	c.promoteLocked()
}

// maxStandby bounds how many workers wait for being needed; the others end. Each
// has buffers for a request of maximal size, which cost memory to keep and time to
// make. maxStandbyData is the same where data waits (conn.dataWaits), so that every
// request in flight has a worker.
const (
	maxStandby     = 4
	maxStandbyData = 16
)

// resume tells a worker that has handled a request apart from the leaders what
// to do next: lead, which may take until it is needed, or end.
func (c *crew) resume(w *worker) (lead bool) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	if c.leaders < c.wanted {
		c.count(1)
		c.mu.Unlock()
		return true
	}
	limit := maxStandby
	if c.conn.dataWaits {
		limit = maxStandbyData
	}
	if len(c.standby) >= limit {
		c.leaveLocked(w)
		c.mu.Unlock()
		return false
	}
	c.standby = append(c.standby, w)
	c.mu.Unlock()
	_, open := <-w.lead
	return open
}

func (c *crew) leaveLocked(w *worker) {
	for i, other := range c.all {
		if other == w {
			last := len(c.all) - 1
			c.all[i] = c.all[last]
			c.all = c.all[:last]
			return
		}
	}
}

// close sends everybody home: the filesystem was unmounted.
func (c *crew) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	for _, w := range c.standby {
		close(w.lead)
	}
	c.standby = nil
}

// work is the life of a worker that leads at first.
func (c *crew) work(w *worker) {
	for {
		n, err := c.conn.read(w.in)
		if err != nil {
			// ENODEV is the regular end; nothing else comes back either.
			c.close()
			return
		}
		number := w.state.Load()>>stateBits + 1
		if number%sampleEvery == 0 {
			c.sample(w)
		}
		long := takesLong(w.in[:n], c.conn.dataWaits)
		if long {
			w.state.Store(number<<stateBits | stateApart)
			c.stepDown()
		} else {
			w.state.Store(number<<stateBits | stateHandling)
			if c.asleep.Load() {
				c.wake()
			}
		}
		// An error tells that the one who asked has gone, or the mount.
		_ = c.conn.answer(w.in[:n], w.room(w.in[:n]))
		if !long && w.state.CompareAndSwap(number<<stateBits|stateHandling, number<<stateBits|stateReading) && !c.tooMany.Load() {
			continue
		}
		if w.state.Load()&stateMask == stateReading {
			c.stepDown()
		}
		if !c.resume(w) {
			return
		}
		w.state.Store(number<<stateBits | stateReading)
	}
}

// room returns where the reply to a request fits. Large rooms are not kept.
func (w *worker) room(request []byte) []byte {
	need := replySize(request) + requestRoom
	if need <= len(w.out) {
		return w.out
	}
	if need > w.conn.maxWrite+requestRoom {
		return make([]byte, need)
	}
	w.out = make([]byte, need)
	return w.out
}

func (c *crew) wake() {
	select {
	case c.alarm <- struct{}{}:
	default:
	}
}

// A second request that waits when one has just been read is a sign that one
// leader is not enough. It is looked for now and then, and must be there so many
// times in a row.
const (
	sampleEvery  = 16
	backlogLimit = 4
)

func (c *crew) sample(w *worker) {
	if !c.conn.pending() {
		w.backlog = 0
		return
	}
	if w.backlog++; w.backlog == backlogLimit {
		w.backlog = 0
		c.widen()
	}
}

// widen lets one more worker lead, up to one for each processor.
func (c *crew) widen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wanted < max(2, runtime.NumCPU()) {
		c.wanted++
		c.count(0)
		c.promoteLocked()
	}
}

// narrow takes one of several leaders back; if that was wrong there is a backlog
// soon.
func (c *crew) narrow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wanted > 1 {
		c.wanted--
		c.count(0)
	}
}

// watch looks for leaders that do not get on with a request and promotes others
// in their place. It sleeps while nothing is asked.
func (c *crew) watch(stop chan struct{}) {
	tick := time.NewTicker(watchPeriod)
	defer tick.Stop()
	idle := 0
	for n := 1; ; n++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if n%narrowAfter == 0 {
			c.narrow()
		}
		if c.look() {
			idle = 0
			continue
		}
		if idle++; idle < 20 {
			continue
		}
		tick.Stop()
		c.asleep.Store(true)
		select {
		case <-stop:
			return
		case <-c.alarm:
		}
		c.asleep.Store(false)
		tick.Reset(watchPeriod)
		idle = 0
	}
}

// look promotes a worker for each leader that has been at the same request since
// the last look, and reports whether anything has moved since.
func (c *crew) look() (moved bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.all {
		s := w.state.Load()
		if s != w.seen {
			w.seen = s
			moved = true
			continue
		}
		if s&stateMask == stateHandling && w.state.CompareAndSwap(s, s&^stateMask|stateApart) {
			c.count(-1)
			c.promoteLocked()
			moved = true
		}
	}
	return moved
}

// Operations of linux/fuse.h (enum fuse_opcode).
const (
	opcodeSetattr       = 4
	opcodeRead          = 15
	opcodeWrite         = 16
	opcodeFsync         = 20
	opcodeGetxattr      = 22
	opcodeListxattr     = 23
	opcodeInit          = 26
	opcodeReaddir       = 28
	opcodeFsyncdir      = 30
	opcodeIoctl         = 39
	opcodeFallocate     = 43
	opcodeReaddirplus   = 44
	opcodeLseek         = 46
	opcodeCopyFileRange = 47
	opcodeSyncfs        = 50
)

// longTransfer is how many bytes take longer to copy than a thread to wake.
const longTransfer = 64 << 10

// takesLong tells whether a request may wait for a disk, or for other requests,
// or copies much. dataWaits tells that any READ or WRITE may.
func takesLong(request []byte, dataWaits bool) bool {
	switch opcodeOf(request) {
	case opcodeFsync, opcodeFsyncdir, opcodeSyncfs, opcodeCopyFileRange, opcodeFallocate,
		opcodeLseek: // makes the kernel write out first
		return true
	case opcodeRead:
		return dataWaits || replySize(request) >= longTransfer
	case opcodeWrite:
		return dataWaits || len(request) >= longTransfer
	}
	return false
}

// replySize returns how much data the reply to a request may carry.
func replySize(request []byte) int {
	field := func(off int) int {
		if len(request) < inHeaderSize+off+4 {
			return 0
		}
		b := request[inHeaderSize+off:]
		return int(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
	}
	switch opcodeOf(request) {
	case opcodeRead, opcodeReaddir, opcodeReaddirplus: // struct fuse_read_in.size
		return field(16)
	case opcodeGetxattr, opcodeListxattr: // struct fuse_getxattr_in.size
		return field(0)
	case opcodeIoctl: // struct fuse_ioctl_in.out_size
		return field(28)
	}
	return 0
}
