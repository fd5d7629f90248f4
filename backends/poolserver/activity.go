package poolserver

import (
	"sync"
	"time"
)

// activity counts what keeps a server alive: connections, jobs and exports.
type activity struct {
	mu       sync.Mutex
	n        int
	stopping bool
	idle     time.Duration // how long nothing may happen; 0: for ever
	timer    *time.Timer
	busy     func() bool // whether there is other work
	rest     func()      // called once, when nothing has happened for that long
}

// begin starts to count.
func (a *activity) begin(idle time.Duration, busy func() bool, rest func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.idle, a.busy, a.rest = idle, busy, rest
	if idle > 0 {
		a.timer = time.AfterFunc(idle, a.lookAround)
	}
}

// enter reports whether something may begin, which [activity.leave] ends.
func (a *activity) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopping {
		return false
	}
	a.n++
	return true
}

func (a *activity) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n--
	if a.n == 0 && a.timer != nil && !a.stopping {
		a.timer.Reset(a.idle)
	}
}

// lookAround ends the server if nothing is going on.
func (a *activity) lookAround() {
	a.mu.Lock()
	if a.n > 0 || a.stopping {
		a.mu.Unlock()
		return
	}
	if a.busy() {
		a.timer.Reset(a.idle)
		a.mu.Unlock()
		return
	}
	a.stopping = true
	a.mu.Unlock()
	a.rest()
}

// stop lets nothing begin any more. It reports whether it was the first to say so.
func (a *activity) stop() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := !a.stopping
	a.stopping = true
	return first
}
