package nbd

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestBudgetIsNeverExceededAndAlwaysGivenBack(t *testing.T) {
	const whole = 100
	b := newBudget(whole)
	var used atomic.Int64
	var users sync.WaitGroup
	for i := range 20 {
		users.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 0))
			for range 300 {
				n := 1 + rng.Int64N(whole)
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rng.IntN(300))*time.Microsecond)
				if b.take(ctx, n) == nil {
					if now := used.Add(n); now > whole {
						t.Errorf("%d of %d are out", now, whole)
					}
					used.Add(-n)
					b.give(n)
				}
				cancel()
			}
		})
	}
	users.Wait()
	if b.free != whole || len(b.waiting) != 0 {
		t.Errorf("%d of %d are free, %d wait", b.free, whole, len(b.waiting))
	}
}

func TestBudgetServesLargeClaimsInTheirTurn(t *testing.T) {
	b := newBudget(10)
	ctx := context.Background()
	b.take(ctx, 6)
	large, small := make(chan error, 1), make(chan error, 1)
	wait := func(n int) {
		for {
			b.mu.Lock()
			is := len(b.waiting)
			b.mu.Unlock()
			if is == n {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	giveUp, cancel := context.WithCancel(ctx)
	go func() { large <- b.take(giveUp, 10) }()
	wait(1)
	go func() { small <- b.take(ctx, 1) }()
	wait(2)
	cancel() // and the small one no longer stands behind it
	if <-large == nil || <-small != nil {
		t.Error("the large claim was granted, or the small one was not")
	}
}
