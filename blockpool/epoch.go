package blockpool

import (
	"fmt"
	"sync"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// An epoch is a committed state that readers may still look at. What the next
// txg frees stays as it is until every reader of this epoch, and of those before
// it, is done. Who writes records holds one too: chunks that lie elsewhere since
// the next txg are written as they were until then.
type epoch struct {
	list *epochs
	txg  uint64
	view *meta.View
	pool *Pool

	// guarded by list.mu
	readers int
	freed   []extent // by the txg after this one; free when this epoch is over
	over    []func() // called then
}

// epochs are the states that readers look at, from the oldest to the current.
type epochs struct {
	mu    sync.Mutex
	list  []*epoch
	after func([]extent) // takes what is free again
	ended chan struct{}  // made when the pool is closed, closed when nobody reads any more
}

// hold returns the current epoch, which stays until it is released.
func (s *epochs) hold() *epoch {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.list[len(s.list)-1]
	e.readers++
	return e
}

// current returns the current epoch for the sync goroutine, which alone ends it.
func (s *epochs) current() *epoch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list[len(s.list)-1]
}

// release ends one hold.
func (e *epoch) release() {
	e.list.mu.Lock()
	e.readers--
	over := e.list.overLocked()
	e.list.endedLocked()
	e.list.mu.Unlock()
	e.list.end(over)
}

// advance makes next the current epoch; freed is what its txg has freed, and then
// is called when the last who may know the state before is done. It returns the
// epochs that are over, for end.
func (s *epochs) advance(next *epoch, freed []extent, then ...func()) (over []*epoch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next.list = s
	if n := len(s.list); n > 0 {
		s.list[n-1].freed, s.list[n-1].over = freed, then
	}
	s.list = append(s.list, next)
	return s.overLocked()
}

// overLocked takes the epochs off the list that nobody will look at again.
func (s *epochs) overLocked() (over []*epoch) {
	for len(s.list) > 1 && s.list[0].readers == 0 {
		over = append(over, s.list[0])
		s.list = s.list[1:]
	}
	return over
}

// end lets go of epochs that are over.
func (s *epochs) end(over []*epoch) {
	for _, e := range over {
		e.view.Close()
		s.after(e.freed)
		for _, f := range e.over {
			f()
		}
	}
}

// close ends the current epoch too, when the last reader is done. Who comes later
// finds it, and that its view is closed.
func (s *epochs) close() {
	s.mu.Lock()
	if len(s.list) == 0 || s.ended != nil {
		s.mu.Unlock()
		return
	}
	s.ended = make(chan struct{})
	s.endedLocked()
	s.mu.Unlock()
	<-s.ended
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.list {
		e.view.Close()
	}
}

// endedLocked tells close when nobody reads any more.
func (s *epochs) endedLocked() {
	if s.ended == nil {
		return
	}
	for _, e := range s.list {
		if e.readers > 0 {
			return
		}
	}
	select {
	case <-s.ended:
	default:
		close(s.ended)
	}
}

// empty reports whether there is no state yet.
func (s *epochs) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.list) == 0
}

// pending returns how many sectors wait for readers.
func (s *epochs) pending() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.list {
		for _, x := range e.freed {
			n += x.n
		}
	}
	return n
}

// Load implements [btree.Loader] on the epoch's state.
func (e *epoch) Load(id btree.NodeID) (*btree.Node, error) {
	return e.pool.nodes.load(e.view, e.txg, id)
}

// record looks a record up in the tree with that root.
func (e *epoch) record(root btree.NodeID, n uint64) (format.Record, bool, error) {
	value, ok, err := btree.Get(e, root, recordKey(n))
	if err != nil || !ok {
		return format.Record{}, false, err
	}
	rec, err := format.ParseRecord(value)
	if err != nil {
		return format.Record{}, false, fmt.Errorf("record %d: %w", n, err)
	}
	return rec, true, nil
}
