package nbd

import (
	"context"
	"sync"
)

// A budget is an amount that many share, of bytes or of places. It is given
// out in the order of asking, so that someone who needs much gets it in the end.
type budget struct {
	mu      sync.Mutex
	free    int64
	waiting []*claim
}

type claim struct {
	n       int64
	granted chan struct{}
}

func newBudget(n int64) *budget { return &budget{free: n} }

// take waits until n can be had. n must not be more than the whole budget.
func (b *budget) take(ctx context.Context, n int64) error {
	b.mu.Lock()
	if len(b.waiting) == 0 && b.free >= n {
		b.free -= n
		b.mu.Unlock()
		return nil
	}
	c := &claim{n, make(chan struct{})}
	b.waiting = append(b.waiting, c)
	b.mu.Unlock()
	select {
	case <-c.granted:
		return nil
	case <-ctx.Done():
		b.withdraw(c)
		return context.Cause(ctx)
	}
}

// give returns n.
func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
	b.grantLocked()
}

// withdraw takes a claim back, and what had been granted to it meanwhile.
func (b *budget) withdraw(c *claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, w := range b.waiting {
		if w == c {
			b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
			b.grantLocked() // it may have stood in the way of a smaller one
			return
		}
	}
	b.free += c.n
	b.grantLocked()
}

func (b *budget) grantLocked() {
	for len(b.waiting) > 0 && b.waiting[0].n <= b.free {
		b.free -= b.waiting[0].n
		close(b.waiting[0].granted)
		b.waiting = b.waiting[1:]
	}
}
