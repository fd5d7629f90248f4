package intent

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// A round is one sync and those who wait for it.
type round struct {
	done    chan struct{}
	err     error // valid when done is closed
	waiters int
}

// Flush returns when everything appended before it is durable. One sync serves
// all who came before it began; who comes later waits for the next. When ctx
// ends, only the waiting does.
//
// After a failed sync every flush and append fails: it is not known what is on
// disk, and a second sync that succeeds would not prove anything.
func (l *Log) Flush(ctx context.Context) error {
	l.mu.Lock()
	if l.failed != nil || l.synced == l.appended {
		defer l.mu.Unlock()
		return l.failed
	}
	if l.waiting == nil {
		l.waiting = &round{done: make(chan struct{})}
	}
	r := l.waiting
	r.waiters++
	if !l.running {
		l.running = true
		go l.syncRounds()
	}
	l.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("intent: flush: %w", ctx.Err())
	}
}

// syncRounds syncs for as long as somebody waits.
func (l *Log) syncRounds() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.waiting != nil {
		l.gatherLocked()
		r := l.waiting
		l.waiting = nil
		if r.err = l.failed; r.err == nil {
			r.err = l.syncLocked()
		}
		l.expect = r.waiters
		if l.waiting != nil {
			l.expect += l.waiting.waiters
		}
		close(r.done)
	}
	l.running = false
}

// gatherLocked lets those who were served by the last sync, and come back at
// once with their next write, join the others who wait. Without it two groups
// would take turns and each sync would serve half of the writers. It waits an
// eighth of a sync at most, and not at all for a writer that is alone.
func (l *Log) gatherLocked() {
	begin := time.Now()
	if begin.Sub(l.lastEnd) > l.lastTook {
		return
	}
	for l.waiting.waiters < l.expect && time.Since(begin) < l.lastTook/8 {
		l.mu.Unlock()
		runtime.Gosched()
		l.mu.Lock()
	}
}

// syncLocked makes durable what has been appended. It lets go of mu meanwhile;
// what is appended then begins a new block, so that none that is being synced
// is written again.
func (l *Log) syncLocked() error {
	upto := l.appended
	l.off = alignUp(l.off, blockSize)
	l.mu.Unlock()
	begin := time.Now()
	err := l.area.Sync(context.Background())
	now := time.Now()
	l.mu.Lock()
	l.lastEnd, l.lastTook = now, now.Sub(begin)
	if err != nil {
		if l.failed == nil {
			l.failed = fmt.Errorf("intent: sync: %w", err)
		}
		return l.failed
	}
	l.synced = max(l.synced, upto)
	return nil
}
