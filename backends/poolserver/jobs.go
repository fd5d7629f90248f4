package poolserver

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/laminafs/lamina/blockpool"
)

// A job is long work that does not depend on a client. The server does not end
// while it has one.
type job struct {
	info JobInfo
	done chan struct{}
	err  error // when done is closed

	mu       sync.Mutex
	progress Progress
	changed  chan struct{} // closed and replaced when there is news
}

// JobInfo tells of long work that is under way.
type JobInfo struct {
	Name     string    `json:"name"`
	Started  time.Time `json:"started"`
	Progress Progress  `json:"progress"`
}

// startJob runs work in the background, each kind of it once at a time.
func (s *Server) startJob(name string, run func(context.Context, func(Progress)) error) (*job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs[name] != nil {
		return nil, fmt.Errorf("%s: it is under way already: %w", name, blockpool.ErrBusy)
	}
	if !s.activity.enter() {
		return nil, fmt.Errorf("%s: %w", name, errStopping)
	}
	j := &job{info: JobInfo{Name: name, Started: time.Now()}, done: make(chan struct{}), changed: make(chan struct{})}
	s.jobs[name] = j
	s.jobsWork.Go(func() {
		defer s.activity.leave()
		// Not the server's context: the end of the pool interrupts a job so that
		// it goes on when the pool is opened again, the end of a context ends it.
		j.err = run(context.Background(), j.tell)
		s.mu.Lock()
		delete(s.jobs, name)
		s.mu.Unlock()
		if j.err != nil {
			s.log.Printf("%s: %v", name, j.err)
		}
		close(j.done)
	})
	return j, nil
}

// watch tells of progress five times a second until stop is called.
func watch(tell func(Progress), look func() Progress) (stop func()) {
	quit, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			tell(look())
			select {
			case <-quit:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return func() {
		close(quit)
		<-stopped
	}
}

// progressOf turns the pool's words for it into those of the protocol.
func progressOf(text string, p blockpool.Progress) Progress {
	return Progress{Done: p.Done, Total: p.Total, Text: text}
}

// underWay reports whether the pool is at work that goes on by itself after it was
// opened, or shows volumes as files for loop devices. That has no other user, so it is
// ended when no device is left.
func (s *Server) underWay() bool {
	for _, e := range s.exports.all() {
		if e.forLoops() {
			if e.busy() == nil {
				go e.end(false) // who was faster keeps it
			}
			return true
		}
	}
	return s.pool.ScrubStatus().State == blockpool.ScrubRunning || s.pool.MoveStatus().Running
}

// tell keeps the last progress for whoever looks.
func (j *job) tell(p Progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.progress = p
	close(j.changed)
	j.changed = make(chan struct{})
}

// look returns the last progress and what is closed when there is more.
func (j *job) look() (Progress, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.progress, j.changed
}

// follow tells a client of a job until one of them ends.
func (j *job) follow(c *call) error {
	for {
		p, changed := j.look()
		c.tell(p)
		select {
		case <-j.done:
			return j.err
		case <-c.ctx.Done():
			return c.ctx.Err()
		case <-changed:
		}
	}
}

// jobList tells of all jobs.
func (s *Server) jobList() []JobInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []JobInfo
	for _, j := range s.jobs {
		i := j.info
		i.Progress, _ = j.look()
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b JobInfo) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
