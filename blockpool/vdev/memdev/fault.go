package memdev

import (
	"slices"
	"sync"
	"time"
)

// An Op is a set of operations that a [Fault] may hit.
type Op uint8

// The operations. Sizes, paths and Close never fail; Grow fails only with the
// device.
const (
	Reads Op = 1 << iota
	Writes
	Syncs
	Discards

	AnyOp = Reads | Writes | Syncs | Discards
)

// A Fault is something that goes wrong with some operations. Examples:
//
//	Fault{Ops: Writes, Skip: 6, Times: 1, Err: unix.ENOSPC}  // the seventh write fails
//	Fault{Err: unix.EIO}                                     // everything fails from now on
//	Fault{Ops: Syncs, Drop: true}                            // the device lies about durability
//	Fault{Ops: Writes, Times: 1, Drop: true}                 // one write is lost in silence
//	Fault{Ops: Writes, Times: 1, Shift: 4096}                // one write lands a sector further
//	Fault{Ops: Writes, Times: 1, Err: unix.EIO, Short: 512}  // one write breaks off
//	Fault{Ops: Reads, Delay: time.Second}                    // a dying disk
type Fault struct {
	Ops   Op  // which operations count and are hit; none means all
	Skip  int // how many of them pass before the first that is hit
	Times int // how many are hit, 0 for all that follow

	Err   error         // what the operation fails with
	Short int           // bytes that a write which fails with Err stores before
	Drop  bool          // the operation is acknowledged and not done
	Shift int64         // a read or write goes so many bytes further, where the device has them
	Delay time.Duration // the operation takes so much longer
}

// faults are the faults that lie in wait, and what has happened so far.
type faults struct {
	mu     sync.Mutex // a leaf
	armed  []*armed
	counts [4]int // by bit of Op
}

type armed struct {
	Fault
	seen int
}

// Inject arms a fault of the device. The function that it returns disarms it.
func (d *Device) Inject(f Fault) (disarm func()) { return d.faults.inject(f) }

// Inject arms a fault that counts, and hits, operations of all devices of the
// host. The function that it returns disarms it.
func (j *Journal) Inject(f Fault) (disarm func()) { return j.faults.inject(f) }

// Ops returns how many of the given operations the device has been asked for.
func (d *Device) Ops(ops Op) int { return d.faults.count(ops) }

// Ops returns how many of the given operations all devices have been asked for.
func (j *Journal) Ops(ops Op) int { return j.faults.count(ops) }

// fault returns what is to happen to the next operation, and waits when that is
// part of it.
func (d *Device) fault(op Op) Fault {
	every, own := d.journal.faults.next(op), d.faults.next(op) // both count it
	hit := own
	if hit == nil {
		hit = every
	}
	if hit == nil {
		return Fault{}
	}
	time.Sleep(hit.Delay)
	return *hit
}

func (s *faults) inject(f Fault) func() {
	if f.Ops == 0 {
		f.Ops = AnyOp
	}
	a := &armed{Fault: f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = append(s.armed, a)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.armed = slices.DeleteFunc(s.armed, func(other *armed) bool { return other == a })
	}
}

// next counts an operation and returns the fault that hits it: of several the
// one that was armed first; nil if there is none.
func (s *faults) next(op Op) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.counts {
		if op == 1<<i {
			s.counts[i]++
		}
	}
	var hit *Fault
	for _, a := range s.armed {
		if a.Ops&op == 0 {
			continue
		}
		a.seen++
		due := a.seen > a.Skip && (a.Times == 0 || a.seen <= a.Skip+a.Times)
		if due && hit == nil {
			hit = &a.Fault
		}
	}
	return hit
}

func (s *faults) count(ops Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for i, c := range s.counts {
		if ops&(1<<i) != 0 {
			n += c
		}
	}
	return n
}
