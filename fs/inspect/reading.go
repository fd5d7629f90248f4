package inspect

import (
	"context"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// A reader reads the directories of a walk, or of two stacks that are compared,
// ahead of who looks at them, on all processors:
//
//	         consumer                         others, meanwhile
//	/usr     visits chunk 2                   stat the names of chunk 3, 4
//	/usr/bin visits chunk 1, its names a-f    list and stat g/, h/, i/ …
//
// What is visited, and in which order, does not depend on it. A chunk is some names
// of one directory; its task runs once, in a goroutine of its own or, if none has
// come to it yet, in that of the consumer, who therefore never waits for anything
// that is not being done.
//
// But for what a task fills in, all belongs to the consumer.
type reader struct {
	ctx context.Context
	// compare tells what differs between two entries that users see; nil in a walk.
	compare func(old, new *Entry) (Aspects, []error)
	common  common
	slots   chan struct{} // a task holds one while it runs
	spare   int           // chunks that may be begun ahead
	free    []*chunk
}

const (
	chunkNames = 256 // names in a chunk
	chunkDirs  = 16  // directories that the entries of a chunk keep open, about
	window     = 8   // directories that are begun ahead, of one chunk
)

// newReader returns a reader of stacks that together have some number of layers.
func newReader(ctx context.Context, layers int) *reader {
	r := &reader{ctx: ctx, slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
	files := uint64(1024)
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		files = min(limit.Cur, 8192)
	}
	// A quarter of the descriptors for what is ahead.
	r.spare = min(max(int(files)/4/(chunkDirs+2*layers), 1), 32)
	return r
}

// A pair is one name of a directory in each of two stacks; of a walk new alone. An
// entry without sightings and error stands for nothing.
type pair struct {
	old, new Entry
	what     Aspects // that differ, where users see both
	errs     []error // of the comparison
	sub      *reading
}

// A chunk is a task: some names of a directory, to be looked at.
type chunk struct {
	in       *reading
	list     bool // the directory is to be listed first
	old, new []item
	pairs    []pair
	used     int         // of pairs
	owned    []layer.Dir // on the way of redirects
	open     int         // directories that entries keep open
	begun    int         // pairs whose directories were begun, if there are any
	waiting  int         // of those, what the consumer has not come to
	has      []int
	task     *task
}

// A task is done by who claims it.
type task struct {
	claimed atomic.Bool
	done    chan struct{}
}

// A reading goes through a directory. It is the chunk's that lists it until that
// is done.
type reading struct {
	r        *reader
	old, new *Dir // in a walk, old is nil; in a comparison either may be
	borrowed bool // the directories are closed by somebody else
	left     struct{ old, new []item }
	errs     []error // what could not be listed
	begun    bool
	queue    []*chunk
	last     *chunk // what the consumer looks at
}

// open returns a reading of directories that are then the reading's.
func (r *reader) open(old, new *Dir) *reading { return &reading{r: r, old: old, new: new} }

// ahead begins a reading, if there is room.
func (g *reading) ahead() {
	if g.r.spare > 0 && !g.begun {
		g.begin(true)
	}
}

func (g *reading) begin(ahead bool) {
	g.begun = true
	c := g.r.chunk(g)
	c.list = true
	g.push(c, ahead)
}

// push queues a chunk; ahead: somebody else may run it.
func (g *reading) push(c *chunk, ahead bool) {
	g.queue = append(g.queue, c)
	g.r.spare--
	if !ahead {
		return
	}
	t := c.task // the chunk may be used for another one by the time there is a slot
	go func() {
		g.r.slots <- struct{}{}
		defer func() { <-g.r.slots }()
		c.run(t)
	}()
}

// next returns the next chunk, nil at the end. The one before is gone then.
func (g *reading) next() *chunk {
	g.recycle()
	if !g.begun {
		g.begin(false)
	}
	if len(g.queue) > 0 && g.queue[0].list {
		g.queue[0].await()
	}
	for len(g.left.old)+len(g.left.new) > 0 && (len(g.queue) == 0 || len(g.queue) <= cap(g.r.slots) && g.r.spare > 0) {
		c := g.r.chunk(g)
		c.take(&g.left.old, &g.left.new)
		g.push(c, len(g.queue) > 0) // the first one is wanted right now
	}
	if len(g.queue) == 0 {
		return nil
	}
	g.last = g.queue[0]
	g.queue = g.queue[1:]
	g.last.await()
	return g.last
}

func (r *reader) chunk(g *reading) *chunk {
	c := &chunk{}
	if n := len(r.free); n > 0 {
		c, r.free = r.free[n-1], r.free[:n-1]
	}
	c.in, c.list, c.task = g, false, &task{done: make(chan struct{})}
	return c
}

// recycle ends what the consumer has looked at.
func (g *reading) recycle() {
	if c := g.last; c != nil {
		g.last = nil
		g.drop(c)
	}
}

func (g *reading) drop(c *chunk) {
	c.clear()
	g.r.free = append(g.r.free, c)
	g.r.spare++
}

// close gives all back, of directories below that were begun too.
func (g *reading) close() {
	g.recycle()
	for _, c := range g.queue {
		if c.task.claimed.Swap(true) {
			<-c.task.done
		}
		g.drop(c)
	}
	g.queue = nil
	if !g.borrowed {
		for _, d := range []*Dir{g.old, g.new} {
			if d != nil {
				d.Close()
			}
		}
	}
}

func (c *chunk) clear() {
	for i := range c.pairs[:c.used] {
		p := &c.pairs[i]
		if p.sub != nil {
			p.sub.close()
			p.sub = nil
		}
		p.old.release()
		p.new.release()
	}
	for _, d := range c.owned {
		d.Close()
	}
	c.owned, c.old, c.new = c.owned[:0], nil, nil
	c.used, c.open, c.begun, c.waiting = 0, 0, 0, 0
}

// await sees to it that the chunk is filled.
func (c *chunk) await() {
	c.run(c.task)
	<-c.task.done
}

func (c *chunk) run(t *task) {
	if t.claimed.Swap(true) {
		return
	}
	defer close(t.done)
	if c.list {
		c.in.list()
		c.take(&c.in.left.old, &c.in.left.new)
	}
	c.fill()
}

// list reads the names.
func (g *reading) list() {
	failed := func(err error) { g.errs = append(g.errs, err) }
	if g.old != nil && g.new != nil && g.r.common.list(g, failed) {
		return
	}
	for _, d := range []*Dir{g.old, g.new} {
		if d != nil {
			d.Read(failed)
		}
	}
	if g.old != nil {
		g.left.old = g.old.items
	}
	if g.new != nil {
		g.left.new = g.new.items
	}
}

// take takes the items of the next names.
func (c *chunk) take(old, new *[]item) {
	a, b := *old, *new
	for range chunkNames {
		if len(*old)+len(*new) == 0 {
			break
		}
		name := firstName(*old, *new)
		*old, *new = behind(*old, name), behind(*new, name)
	}
	c.old, c.new = a[:len(a)-len(*old)], b[:len(b)-len(*new)]
}

func firstName(a, b []item) string {
	if len(b) == 0 || len(a) > 0 && a[0].name < b[0].name {
		return a[0].name
	}
	return b[0].name
}

// behind returns the items behind those of a name.
func behind(items []item, name string) []item {
	for len(items) > 0 && items[0].name == name {
		items = items[1:]
	}
	return items
}

// fill looks at all names of the chunk.
func (c *chunk) fill() {
	for len(c.old)+len(c.new) > 0 {
		if c.used == len(c.pairs) {
			c.pairs = append(c.pairs, pair{})
		}
		p := &c.pairs[c.used]
		p.what, p.errs = 0, nil
		name := firstName(c.old, c.new)
		there := c.look(c.in.old, &p.old, &c.old, name)
		there = c.look(c.in.new, &p.new, &c.new, name) || there
		if !there {
			continue
		}
		c.used++
		if c.in.r.compare != nil && p.old.Top() != nil && p.new.Top() != nil {
			p.what, p.errs = c.in.r.compare(&p.old, &p.new)
		}
	}
}

// look fills in what a directory has under a name, and takes the name's items.
func (c *chunk) look(d *Dir, e *Entry, items *[]item, name string) bool {
	*e = Entry{Name: name, Sightings: e.Sightings[:0]}
	mine := *items
	*items = behind(mine, name)
	mine = mine[:len(mine)-len(*items)]
	if len(mine) == 0 {
		return false
	}
	e.Path = join(d.Path, name)
	c.has = partsOf(mine, c.has[:0])
	d.resolve(e, c.has, &c.owned)
	for i := range e.Sightings {
		s := &e.Sightings[i]
		if s.sub == nil {
			continue
		}
		if c.open++; c.open > chunkDirs {
			s.sub.Close()
			s.sub, s.again = nil, true
		}
	}
	return len(e.Sightings) > 0 || e.Err != nil
}

// partsOf returns the parts that have the name of some items, nil for any part.
func partsOf(items []item, has []int) []int {
	for _, it := range items {
		if it.part == anyPart {
			return nil
		}
		if k := int(it.part); len(has) == 0 || has[len(has)-1] != k {
			has = append(has, k)
		}
	}
	return has
}

// tell tells what could not be listed, once.
func (g *reading) tell(failed func(error)) {
	for _, err := range g.errs {
		if failed != nil {
			failed(err)
		}
	}
	g.errs = nil
}

// ahead begins the directories of the next pairs from i on.
func (c *chunk) ahead(i int) {
	for c.begun = max(c.begun, i); c.begun < c.used && c.waiting < window && c.in.r.spare > 0; c.begun++ {
		p := &c.pairs[c.begun]
		if p.sub = c.in.under(p); p.sub != nil {
			p.sub.ahead()
			c.waiting++
		}
	}
}

// below returns the directory of a pair to be gone through, nil if there is none.
// The caller closes it.
func (c *chunk) below(p *pair) *reading {
	g := p.sub
	if p.sub = nil; g == nil {
		return c.in.under(p)
	}
	c.waiting--
	return g
}

// under opens what is below a pair.
func (g *reading) under(p *pair) *reading {
	var old, new *Dir
	if g.old != nil && g.r.below(&p.old) {
		old = g.old.Open(&p.old)
	}
	if g.new != nil && g.r.below(&p.new) {
		new = g.new.Open(&p.new)
	}
	if old == nil && new == nil {
		return nil
	}
	return g.r.open(old, new)
}

// below tells whether the reader goes through what is below an entry: a walk
// through all, a comparison through what users see.
func (r *reader) below(e *Entry) bool {
	if r.compare == nil {
		return len(e.Sightings) > 0
	}
	top := e.Top()
	return top != nil && top.IsDir()
}
