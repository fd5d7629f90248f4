package blockpool

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/intent"
)

// A txg is a transaction group: all changes between two durable states.
type txg struct {
	number  uint64
	bytes   atomic.Int64  // of records that it changes
	records atomic.Int64  // how many those are
	closed  chan struct{} // closed when changes go to the next txg
	done    chan struct{} // closed when it is durable

	mu         sync.Mutex
	volumes    []*volume // that it changes
	tasks      []*task   // in the order in which they came
	superseded []extent  // written and changed again in this txg
}

// A task is a change of the catalogue or of the devices, made by the sync
// goroutine when its txg has everything else.
type task struct {
	run  func(*pass) error // changes nothing if it fails
	err  error             // what run returned
	then func()            // called when the txg is durable; may be nil
}

func newTxg(number uint64) *txg {
	return &txg{number: number, closed: make(chan struct{}), done: make(chan struct{})}
}

// join notes that the txg changes v.
func (g *txg) join(v *volume) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.volumes = append(g.volumes, v)
}

// supersede notes sectors that are free when the txg is durable.
func (g *txg) supersede(e extent) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.superseded = append(g.superseded, e)
}

// empty reports whether it changes nothing.
func (g *txg) empty() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.volumes) == 0 && len(g.tasks) == 0
}

// enter runs change while the open txg stays open. A change that finds its part
// of the log full is run again in the next txg.
func (p *Pool) enter(ctx context.Context, change func(*txg) error) error {
	for {
		p.gate.RLock()
		g, err := p.open, p.readOnly()
		if err == nil {
			err = change(g)
		}
		p.gate.RUnlock()
		if !errors.Is(err, intent.ErrFull) {
			return err
		}
		p.kick()
		if err := p.wait(ctx, g.closed); err != nil {
			return err
		}
	}
}

// throttle waits while the open txg has as much as it may have.
func (p *Pool) throttle(ctx context.Context) error {
	for {
		g := p.current()
		if g.bytes.Load() < p.tune.DirtyLimit {
			return nil
		}
		p.kick()
		if err := p.wait(ctx, g.closed); err != nil {
			return err
		}
	}
}

// do runs a task in the open txg and returns when it is durable. When ctx ends
// first, only the waiting does.
func (p *Pool) do(ctx context.Context, t *task) error {
	if err := p.readOnly(); err != nil {
		return err
	}
	p.gate.RLock()
	g := p.open
	g.mu.Lock()
	g.tasks = append(g.tasks, t)
	g.mu.Unlock()
	p.gate.RUnlock()
	p.kick()
	if err := p.wait(ctx, g.done); err != nil {
		return err
	}
	return t.err
}

// later has a task run with the next txg, and does not wait for it. It may be
// called with any lock held.
func (p *Pool) later(t *task) {
	p.laterMu.Lock()
	p.laterTasks = append(p.laterTasks, t)
	p.laterMu.Unlock()
	p.kick()
}

// takeLater returns the tasks that nobody waits for.
func (p *Pool) takeLater() (tasks []*task) {
	p.laterMu.Lock()
	defer p.laterMu.Unlock()
	tasks, p.laterTasks = p.laterTasks, nil
	return tasks
}

// idle reports whether there is nothing to make durable.
func (p *Pool) idle() bool {
	p.laterMu.Lock()
	later := len(p.laterTasks)
	p.laterMu.Unlock()
	return later == 0 && p.current().empty() && !p.events.unsaved()
}

// Sync returns when everything that was written or done before is in a durable
// transaction group. [Volume.Flush] is cheaper and promises as much.
func (p *Pool) Sync(ctx context.Context) error {
	return p.do(ctx, nothing())
}

// nothing returns a task that changes nothing, for who wants a txg.
func nothing() *task { return &task{run: func(*pass) error { return nil }} }

// current returns the open txg.
func (p *Pool) current() *txg {
	p.gate.RLock()
	defer p.gate.RUnlock()
	return p.open
}

// kick closes the open txg soon.
func (p *Pool) kick() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// wait returns when c is closed, with an error when ctx ends or the pool is
// closed or stops changing first.
func (p *Pool) wait(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.stopped:
		select {
		case <-c:
			return nil
		default:
			return p.readOnly()
		}
	}
}

// syncLoop closes one txg after the other until the pool is closed, and then has
// nothing that is not durable, or cannot go on.
func (p *Pool) syncLoop() {
	defer close(p.stopped)
	timer := time.NewTimer(p.tune.TxgInterval)
	defer timer.Stop()
	for {
		quit := false
		select {
		case <-p.wake:
		case <-timer.C:
		case <-p.quit:
			quit = true
		}
		timer.Reset(p.tune.TxgInterval)
		if err := p.readOnly(); err != nil {
			if !errors.Is(err, ErrClosed) {
				return
			}
			<-p.quit // somebody closes the pool, and may have kicked just before
			if quit = true; p.abandoned.Load() {
				return
			}
		}
		if err := p.syncOpen(); err != nil {
			p.stop(err)
			return
		}
		if quit && p.idle() {
			return
		}
		if p.dead.pending() {
			p.kick()
		}
	}
}
