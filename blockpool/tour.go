package blockpool

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// A tour visits every record that was committed when it began, in small steps
// between which the pool changes as it likes. It takes the leaves of all trees
// by the number of their node, in which each is once, however many snapshots
// share it:
//
//	nodes   ──────────done──────────┬──────────to come──────────┐ new ones
//	                             cursor                         └─────────►
//
// A record that moves in a tree goes to a new node, which is still to come, or to
// a neighbour of its own, which may be done: such leaves are visited again. The
// pass that changes them tells (movedInto, note), so nothing is missed, and what
// a txg commits of a tour's position is right for the state that it commits.
//
// Records that were born later are not visited: who tours has made sure that
// they are as they should be.
type tour struct {
	p     *Pool
	upto  uint64                                    // the last txg whose records are visited
	bad   func(btree.NodeID, error)                 // told of nodes that are damaged
	want  func(format.Record) bool                  // which records are visited; nil: all
	named func(btree.NodeID, format.Record)         // told which leaf names a record that is wanted; may be nil
	save  func(*pass, btree.NodeID, []btree.NodeID) // puts the position into a pass's batch; called with mu held
	done  func()                                    // a step was done, which moves the position; called with mu held

	mu       sync.Mutex
	cursor   btree.NodeID              // all nodes up to it are done
	again    map[btree.NodeID]struct{} // but these
	visiting []btree.NodeID            // and these, which the step under way takes care of
	stepping bool                      // some nodes above cursor are being visited

	// The stepper's own.
	seen map[uint64]*[segmentWords]uint64 // addresses that were visited, by segment
}

const (
	segmentWords = segmentUnits / 64
	// seenLimit bounds the memory for addresses, in segments. What is forgotten
	// may be visited twice.
	seenLimit = 256 << 10
	// tourNodes is how many nodes a step looks at, at most.
	tourNodes = 512
	// tourAgain bounds how many leaves are remembered for another visit.
	tourAgain = 4096
)

// tours are those under way.
type tours struct {
	mu   sync.Mutex
	list []*tour

	lastNode atomic.Uint64 // no committed node has a higher number
}

// startTour begins a tour, or goes on with one whose position was saved.
func (p *Pool) startTour(w *tour, again []btree.NodeID) *tour {
	w.p, w.again, w.seen = p, map[btree.NodeID]struct{}{}, map[uint64]*[segmentWords]uint64{}
	for _, id := range again {
		w.again[id] = struct{}{}
	}
	p.tours.mu.Lock()
	defer p.tours.mu.Unlock()
	p.tours.list = append(p.tours.list, w)
	return w
}

// stop ends the tour.
func (w *tour) stop() {
	w.p.tours.mu.Lock()
	defer w.p.tours.mu.Unlock()
	w.p.tours.list = slices.DeleteFunc(w.p.tours.list, func(o *tour) bool { return o == w })
}

// active returns the tours under way.
func (l *tours) active() []*tour {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

// movedInto returns the leaves to which a pass has moved records that are older
// than it. The pass is not published yet.
func (l *tours) movedInto(s *pass) (ids []btree.NodeID) {
	if len(l.active()) == 0 {
		return nil
	}
	for id, n := range s.nodes.private {
		if n == nil || n.Level() != 0 || uint64(id) > s.p.state.nextNode {
			continue
		}
		old, err := s.nodes.epoch.Load(id)
		if err != nil || gained(old, n, s.g.number) {
			ids = append(ids, id) // an old one that cannot be read: better twice than never
		}
	}
	return ids
}

// gained reports whether a leaf has records that it had not before and that txg
// has not written.
func gained(old, now *btree.Node, txg uint64) bool {
	if old.Level() != 0 {
		return true
	}
	var a, b []byte
	j := 0
	for i := range now.Len() {
		if a = now.AppendKey(a[:0], i); isItem(a) {
			break // so are all behind it
		}
		order := 1
		for ; j < old.Len(); j++ {
			b = old.AppendKey(b[:0], j)
			if order = bytes.Compare(b, a); order >= 0 {
				break
			}
		}
		if j < old.Len() && order == 0 && bytes.Equal(old.Value(j), now.Value(i)) {
			continue
		}
		if rec, err := format.ParseRecord(now.Value(i)); err != nil || rec.Birth != txg {
			return true
		}
	}
	return false
}

// note has leaves visited again by the tours that are past them. Their txg is
// what new steps see.
func (l *tours) note(ids []btree.NodeID) {
	if len(ids) == 0 {
		return
	}
	for _, w := range l.active() {
		w.mu.Lock()
		for _, id := range ids {
			// A step that is under way sees an older state.
			if id <= w.cursor || w.stepping {
				w.again[id] = struct{}{}
			}
		}
		w.mu.Unlock()
	}
}

// gather puts the positions of tours into the batch of a pass.
func (l *tours) gather(s *pass) {
	s.into = l.movedInto(s)
	for _, w := range l.active() {
		w.gather(s)
	}
}

// gather puts the tour's position into the batch of a pass. No step ends meanwhile,
// so that what is saved with the position belongs to it.
func (w *tour) gather(s *pass) {
	if w.save == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	cursor, again := w.positionLocked(s.into)
	w.save(s, cursor, again)
}

// positionLocked returns where the tour is in the state that a pass commits, which
// has moved records into the given leaves.
func (w *tour) positionLocked(into []btree.NodeID) (cursor btree.NodeID, again []btree.NodeID) {
	cursor = w.cursor
	for _, ids := range [][]btree.NodeID{slices.Collect(maps.Keys(w.again)), w.visiting, into} {
		for _, id := range ids {
			if id <= cursor {
				again = append(again, id)
			}
		}
	}
	slices.Sort(again)
	again = slices.Compact(again)
	if len(again) > tourAgain {
		return again[0] - 1, nil
	}
	return cursor, again
}

// step visits some more leaves: it calls f with their records in the order of
// addresses, about so many bytes of them, each address once. While f runs, the
// sectors of the record are given to nobody else. When f fails, the step counts
// as not done. done says that there is nothing left.
func (w *tour) step(ctx context.Context, bytes int64, f func(format.Record) error) (done bool, err error) {
	again := w.beginStep()
	epoch := w.p.epochs.hold()
	defer epoch.release()
	records, last, end := w.collect(epoch, again, bytes)
	slices.SortFunc(records, func(a, b format.Record) int { return cmp.Compare(a.Addr, b.Addr) })
	for _, rec := range records {
		if err = context.Cause(ctx); err != nil {
			break
		}
		if w.saw(rec.Addr) {
			continue
		}
		if err = f(rec); err != nil {
			break
		}
		w.see(rec.Addr)
	}
	return w.endStep(last, end, err)
}

// beginStep returns the leaves that are to be visited again.
func (w *tour) beginStep() []btree.NodeID {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stepping = true
	again := slices.Sorted(maps.Keys(w.again))
	again = again[:min(len(again), tourNodes)]
	for _, id := range again {
		delete(w.again, id) // what moves there from now on counts anew
	}
	w.visiting = again
	return again
}

// endStep notes what was visited.
func (w *tour) endStep(last btree.NodeID, end bool, err error) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stepping = false
	again := w.visiting
	w.visiting = nil
	if err != nil {
		for _, id := range again {
			w.again[id] = struct{}{}
		}
		return false, err
	}
	w.cursor = max(w.cursor, last)
	if w.done != nil {
		w.done()
	}
	return end && len(w.again) == 0, nil
}

// errStop ends a scan early.
var errStop = errors.New("stop")

// collect returns the records of the leaves to be visited again and of those
// behind the cursor, about so many bytes, with the last node that was looked at,
// and whether there is none behind it.
func (w *tour) collect(e *epoch, again []btree.NodeID, size int64) (records []format.Record, last btree.NodeID, end bool) {
	take := func(id btree.NodeID, value []byte) {
		n, err := btree.Parse(value)
		if err != nil {
			w.damaged(id, err)
			return
		}
		var key [btree.MaxKeySize]byte
		for i := range n.Len() {
			if n.Level() != 0 || isItem(n.AppendKey(key[:0], i)) {
				return
			}
			rec, err := format.ParseRecord(n.Value(i))
			if err != nil {
				w.damaged(id, err)
				return
			}
			if rec.Birth > w.upto || w.want != nil && !w.want(rec) {
				continue
			}
			if w.named != nil {
				w.named(id, rec)
			}
			if !w.saw(rec.Addr) {
				records = append(records, rec)
				size -= int64(rec.Size)
			}
		}
	}
	get := func(id btree.NodeID) {
		value, err := e.view.Get(meta.Nodes, key64(uint64(id)))
		if err != nil {
			w.damaged(id, err)
		} else if value != nil {
			take(id, value)
		}
	}
	for _, id := range again {
		get(id)
	}
	last = w.cursor // only steps move it
	nodes := 0
	err := e.view.Scan(meta.Nodes, key64(uint64(last)+1), func(key, value []byte) error {
		if size <= 0 || nodes == tourNodes {
			return errStop
		}
		id, err := parseKey64(key)
		if err != nil {
			return err
		}
		last = btree.NodeID(id)
		nodes++
		take(last, value)
		return nil
	})
	if err == nil || errors.Is(err, errStop) {
		return records, last, err == nil
	}
	// Something is damaged ahead: one by one, until past it.
	for range tourNodes {
		if uint64(last) >= w.p.tours.lastNode.Load() {
			return records, last, true
		}
		last++
		get(last)
	}
	return records, last, false
}

func (w *tour) damaged(id btree.NodeID, err error) {
	if w.bad != nil {
		w.bad(id, err)
	}
}

// saw reports whether an address was visited. Only steps ask.
func (w *tour) saw(at format.Addr) bool {
	s := w.seen[uint64(at)/segmentUnits]
	u := uint64(at) % segmentUnits
	return s != nil && s[u/64]&(1<<(u%64)) != 0
}

// see notes that it was.
func (w *tour) see(at format.Addr) {
	seg, u := uint64(at)/segmentUnits, uint64(at)%segmentUnits
	s := w.seen[seg]
	if s == nil {
		if len(w.seen) >= seenLimit {
			clear(w.seen)
		}
		s = new([segmentWords]uint64)
		w.seen[seg] = s
	}
	s[u/64] |= 1 << (u % 64)
}
