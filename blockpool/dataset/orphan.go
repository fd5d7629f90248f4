package dataset

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// A reclaimer removes, in the background, objects that have no name and no user.
// Nobody else knows them, so it takes no locks of nodes.
type reclaimer struct {
	v    *view
	mu   sync.Mutex
	idle sync.Cond
	// queue has the objects to remove; failed those that could not be removed,
	// which are tried again with the next one.
	queue, failed []uint64
	running       bool
	stopped       bool
	// waiting counts those for whom nothing is gathered; wake ends a gathering.
	waiting int
	wake    chan struct{}
}

// maxReclaim bounds how many objects one batch removes. The kernel forgets the files
// of a removed tree one by one, so a batch gathers them for a while: each alone
// would cost as much as its unlink did.
const (
	maxReclaim = 64
	gatherTime = 20 * time.Millisecond
)

func (r *reclaimer) init(v *view) {
	r.v, r.wake, r.idle.L = v, make(chan struct{}, 1), &r.mu
}

func (r *reclaimer) add(objects ...uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = append(append(r.queue, r.failed...), objects...)
	r.failed = nil
	if len(r.queue) >= maxReclaim {
		r.hurry()
	}
	if !r.running && !r.stopped && len(r.queue) > 0 {
		r.running = true
		go r.run()
	}
}

// hurry ends the gathering under way, or the next one.
func (r *reclaimer) hurry() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// settle waits until everything has been tried, and reports whether there was
// anything.
func (r *reclaimer) settle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	waited := r.running
	r.waiting++
	defer func() { r.waiting-- }()
	r.hurry()
	for r.running {
		r.idle.Wait()
	}
	return waited
}

// stop waits for the batch under way. What is left goes at the next mount.
func (r *reclaimer) stop() {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.settle()
}

func (r *reclaimer) ends() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopped
}

// gather waits until there is a batch to remove, or somebody who waits for it.
func (r *reclaimer) gather() {
	r.mu.Lock()
	enough := len(r.queue) >= maxReclaim || r.waiting > 0 || r.stopped
	r.mu.Unlock()
	if enough {
		return
	}
	timer := time.NewTimer(gatherTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.wake:
	}
}

func (r *reclaimer) run() {
	for {
		r.gather()
		r.mu.Lock()
		if len(r.queue) == 0 || r.stopped {
			r.running = false
			r.idle.Broadcast()
			r.mu.Unlock()
			return
		}
		some := r.queue[:min(len(r.queue), maxReclaim)]
		r.queue = r.queue[len(some):]
		r.mu.Unlock()
		for len(some) > 0 {
			n, err := r.v.reclaimSome(some)
			if err != nil {
				r.v.fs.stats.ReclaimErrors.Add(1)
				r.mu.Lock()
				r.failed = append(r.failed, some[:n]...)
				r.mu.Unlock()
			} else {
				r.v.fs.stats.Reclaimed.Add(uint64(n))
			}
			some = some[n:]
		}
	}
}

// reclaimSome removes objects from the first on, as many as are little work
// together, but one at least. It returns how many it has dealt with.
func (v *view) reclaimSome(objects []uint64) (int, error) {
	s := v.step()
	s.Frees = true
	done, records := 0, uint64(0)
	for _, object := range objects {
		n, err := v.reclaimable(object)
		if err == nil && n > maxDrop && done == 0 {
			err = v.dropRecords(object)
			n = 0
		}
		if done > 0 && records+n > maxDrop {
			break
		}
		one := v.step()
		if err == nil {
			err = one.reclaim(object)
		}
		if err != nil && done > 0 {
			break // its turn comes, with its error
		}
		if err != nil {
			return 1, err
		}
		s.Items, s.Zeros = append(s.Items, one.Items...), append(s.Zeros, one.Zeros...)
		s.deaths += one.deaths
		records += n
		done++
	}
	if s.Empty() {
		return done, nil
	}
	err := v.applyOnce(s)
	if err == nil {
		v.objects.Add(-s.deaths)
	}
	return done, err
}

// reclaimable returns how many records an orphan has, 0 where it is gone. That
// something has a name after all is damage, and no reason to remove it.
func (v *view) reclaimable(object uint64) (uint64, error) {
	b, err := v.tree.Item(inodeKey(object))
	if err != nil || b == nil {
		return 0, err
	}
	in, err := unpackInode(b)
	if err == nil && in.nlink > 0 {
		err = damagedf("an orphan with %d links", in.nlink)
	}
	if err != nil {
		return 0, failed("remove an orphan", object, err)
	}
	return in.mapped, nil
}

// dropRecords removes the records of an orphan in pieces.
//
// Crash in between: the orphan has fewer records, which nobody sees.
func (v *view) dropRecords(object uint64) error {
	for first := uint64(0); ; {
		a, b, err := v.tree.NextRecords(object, first)
		if err != nil || b <= a {
			return err
		}
		if v.reclaim.ends() {
			return unix.EINTR
		}
		b = min(b, a+maxDrop)
		s := v.step()
		s.Frees = true
		s.Zero(object, int64(a)*v.size, int64(b-a)*v.size)
		if err := v.applyOnce(s); err != nil {
			return err
		}
		first = b
	}
}

// reclaim adds to a step that an orphan goes, with its attributes and records.
func (s *step) reclaim(object uint64) error {
	v, dead := s.v, false
	for _, key := range [][]byte{inodeKey(object), orphanKey(object)} {
		if b, err := v.tree.Item(key); err != nil {
			return failed("remove an orphan", object, err)
		} else if b != nil {
			s.Delete(key)
			dead = dead || key[0] == keyInode
		}
	}
	values := map[uint64]bool{}
	err := v.eachXattr(object, 0, lastPos, func(pos uint64, x xattr) bool {
		s.Delete(xattrKey(object, pos))
		if x.object != 0 {
			values[x.object] = true
		}
		return true
	})
	if err != nil {
		return err
	}
	for value := range values {
		if _, err := v.readValueInode(object, &xattr{object: value}); err != nil {
			return err
		}
		s.die(value)
		s.Zero(value, 0, toEnd)
	}
	if dead {
		s.deaths++
		s.Zero(object, 0, toEnd)
	}
	return nil
}

// recover removes what a crash, or the end of the last mount, has left: the rest of
// files that were cut at once, objects without a name in the background.
func (v *view) recover() error {
	var remove, trim []uint64
	err := v.items(appendKey(keyOrphan), appendKey(keyOrphan+1), func(key, value []byte) (bool, error) {
		var object uint64
		switch {
		case !keyNumbers(key, &object) || object <= rootObject || object > blockpool.MaxObject || len(value) != 1:
			return false, damagedf("orphan item %x", key)
		case value[0] == orphanRemove:
			remove = append(remove, object)
		case value[0] == orphanTrim:
			trim = append(trim, object)
		default:
			return false, damagedf("orphan item of kind %d", value[0])
		}
		return true, nil
	})
	if err != nil {
		return failed("look for orphans", 0, err)
	}
	for _, object := range trim {
		// A file that stays as it is can be read, and is tried again before it
		// grows.
		if v.trimObject(object) != nil {
			v.fs.stats.ReclaimErrors.Add(1)
		}
	}
	v.reclaim.add(remove...)
	return nil
}

func (v *view) trimObject(object uint64) error {
	n := v.fs.nodes.grab(v, object)
	defer v.fs.Forget(n, 1)
	if err := n.lock(); err != nil {
		return err
	}
	defer n.mu.Unlock()
	return n.trimLocked()
}
