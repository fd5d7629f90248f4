package blockpool

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// jobs is the long work that runs beside everything else: scrubs, resilvers,
// devices that are emptied. It ends, to be gone on with later, before the pool
// closes.
type jobs struct {
	mu      sync.Mutex
	closed  bool
	cancels map[int]context.CancelCauseFunc
	next    int
	running sync.WaitGroup

	// moving holds a token while somebody moves chunks, or fills a device with
	// what it has missed: one at a time.
	moving chan struct{}
}

// move waits for its turn to move chunks, and returns what ends it.
func (j *jobs) move(ctx context.Context) (done func(), err error) {
	select {
	case j.moving <- struct{}{}:
		return func() { <-j.moving }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// begin registers a job. Its context ends with ctx and with the pool, then with
// the cause [ErrClosed]; done must be called at its end.
func (j *jobs) begin(ctx context.Context) (_ context.Context, done func(), err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil, nil, ErrClosed
	}
	if j.cancels == nil {
		j.cancels = map[int]context.CancelCauseFunc{}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	id := j.next
	j.next++
	j.cancels[id] = cancel
	j.running.Add(1)
	return ctx, func() {
		cancel(nil)
		j.mu.Lock()
		delete(j.cancels, id)
		j.mu.Unlock()
		j.running.Done()
	}, nil
}

// end cancels all jobs, waits for them, and lets none begin any more.
func (j *jobs) end() {
	j.mu.Lock()
	j.closed = true
	for _, cancel := range j.cancels {
		cancel(ErrClosed)
	}
	j.mu.Unlock()
	j.running.Wait()
}

// background runs a job that nobody waits for. Its error goes to an event.
func (p *Pool) background(kind EventKind, what string, job func(context.Context) error) {
	ctx, done, err := p.jobs.begin(context.Background())
	if err != nil {
		return // the pool is closing
	}
	go func() {
		defer done()
		if err := job(ctx); err != nil && context.Cause(ctx) == nil {
			p.events.add(Event{Kind: kind, Text: fmt.Sprintf("%s: %v", what, err)})
		}
	}()
}

// A pace keeps work to so many bytes per second. No more than a second's worth
// is ever caught up on.
type pace struct {
	rate int64     // 0: no limit
	next time.Time // when what was done so far is paid for
}

// pay accounts for n bytes, and waits until they are paid for.
func (p *pace) pay(ctx context.Context, n int64) error {
	if p.rate <= 0 || n <= 0 {
		return context.Cause(ctx)
	}
	if now := time.Now(); p.next.Before(now.Add(-time.Second)) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	timer := time.NewTimer(time.Until(p.next))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// step returns how many bytes to take at once, so that the work is even.
func (p *pace) step(most int64) int64 {
	if p.rate <= 0 {
		return most
	}
	return max(min(most, p.rate/8), 1)
}

// Progress tells how far long work has come. Sizes are in bytes.
type Progress struct {
	Began time.Time     `json:"began"`
	Done  int64         `json:"done"`
	Total int64         `json:"total"` // an estimate
	Left  time.Duration `json:"left"`  // at the speed so far; 0 while that is not known
}

// estimate fills in what is left, for work that has done so much of it since it
// began or went on.
func (p *Progress) estimate(since time.Time, done int64) {
	p.Left = 0
	if took := time.Since(since); done > 0 && p.Total > p.Done {
		p.Left = time.Duration(float64(took) * float64(p.Total-p.Done) / float64(done)).Round(time.Second)
	}
}
