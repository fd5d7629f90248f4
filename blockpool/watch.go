package blockpool

import (
	"math"
	"sync"
	"sync/atomic"
)

// watchers are who wants to know when the content of a volume changes: those who
// keep some of it, such as the kernel's page cache.
type watchers struct {
	changes atomic.Uint64
	watched atomic.Bool // list is not empty
	mu      sync.Mutex
	list    map[*Volume]func(off, n int64)
}

// Watch has f called after each change of the volume's content that was not made
// through this handle, with the range that may have changed: of a write or discard
// before whoever made it is told that it is done, of all of it (a rollback, another
// size, what was received) soon after. Several calls may run side by side. Closing
// the handle ends it, and a later Watch takes the place of an earlier one.
func (v *Volume) Watch(f func(off, n int64)) {
	w := &v.v.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.list == nil {
		w.list = map[*Volume]func(off, n int64){}
	}
	w.list[v] = f
	w.watched.Store(true)
}

// Changes returns a number that is another one after each change of the content,
// whoever made it, until the pool is closed.
func (v *Volume) Changes() uint64 { return v.v.watchers.changes.Load() }

// unwatch ends what Watch began.
func (w *watchers) unwatch(v *Volume) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.list, v)
	w.watched.Store(len(w.list) > 0)
}

// changed tells the others of a change that was made by way of a handle; nil: of
// none.
func (w *watchers) changed(by *Volume, off, n int64) {
	w.changes.Add(1)
	w.tell(by, off, n)
}

func (w *watchers) tell(by *Volume, off, n int64) {
	if !w.watched.Load() {
		return
	}
	var others []func(off, n int64)
	w.mu.Lock()
	for v, f := range w.list {
		if v != by {
			others = append(others, f)
		}
	}
	w.mu.Unlock()
	for _, f := range others {
		f(off, n)
	}
}

// changedAll tells that any byte of a volume may be another. The sync goroutine
// calls it, and waits for nobody.
func (p *Pool) changedAll(id uint64) {
	if v := p.catalogue.get(id); v != nil {
		v.watchers.changes.Add(1)
		if v.watchers.watched.Load() {
			go v.watchers.tell(nil, 0, math.MaxInt64)
		}
	}
}
