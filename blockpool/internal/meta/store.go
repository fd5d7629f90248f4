package meta

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// A Store is the metadata of an open pool. Its methods may be called from
// several goroutines.
type Store struct {
	opts Options
	guid GUID

	// commit is held by what changes the files: one commit, copy or change of
	// the set of replicas at a time. It comes before mu.
	commit   sync.Mutex
	readonly error // why there can be no commit, nil when there can

	mu       sync.Mutex
	replicas []*member // in the order of their paths
	now      *pin      // the last commit; nil when closed
}

// A member is one place for a replica, whatever became of the file there.
type member struct {
	path string
	r    *replica // nil while there is none in use
	err  error    // why there is none
	// As it was opened.
	found   uint64 // txg in the file, 0 if none could be read
	problem error
	rebuilt bool
}

// GUID returns the pool that the metadata belongs to.
func (s *Store) GUID() GUID { return s.guid }

// Txg returns the number of the last commit, 0 for a new store.
func (s *Store) Txg() uint64 { return s.record().txg }

// Time returns when the last commit was made.
func (s *Store) Time() time.Time { return time.Unix(0, s.record().time) }

func (s *Store) record() record {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		return record{}
	}
	return s.now.rec
}

// Commit makes the changes of a batch durable as transaction group txg, which
// must be above the last one. Each replica takes them in one bbolt
// transaction, in order, so that never more than one is half written.
//
// It succeeds when at least one replica has the changes. Those that do not are
// out of use, the event hook has been told, and [Store.Failed] names them: the
// caller must make that durable elsewhere before it uses again what the batch
// freed, for a failed replica that is later mistaken for a good one shows an
// older pool. A replica that failed is never tried again: after a failed
// fdatasync nothing is known about the file.
//
// With ErrFull nothing has changed. With ErrNoReplica the changes may be
// durable or not, and the store takes no more of them.
func (s *Store) Commit(txg uint64, b *Batch) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	old, err := s.hold()
	if err != nil {
		return err
	}
	defer s.release(old)
	switch {
	case s.readonly != nil:
		return fmt.Errorf("meta: commit of txg %d: %w", txg, s.readonly)
	case b.err != nil:
		return b.err
	case txg <= old.rec.txg:
		return fmt.Errorf("meta: commit of txg %d after %d", txg, old.rec.txg)
	}
	ops := b.sealed(s.guid, txg)
	rec, err := old.next(txg, ops)
	if err != nil {
		return fmt.Errorf("meta: commit of txg %d: %w", txg, err)
	}
	done, err := s.apply(ops, rec)
	if err != nil {
		return err
	}
	return s.publish(done, rec)
}

// apply gives the changes to each replica and returns those that have them.
func (s *Store) apply(ops []op, rec record) (done []*member, err error) {
	var errs []error
	for i, m := range s.writers() {
		if i > 0 && mutant.Breaks(mutant.AllReplicas) {
			done = append(done, m)
			continue
		}
		err := m.r.commit(ops, rec)
		switch {
		case err == nil:
			done = append(done, m)
		case err == errFull && len(done) == 0:
			return nil, fmt.Errorf("meta: commit of txg %d to %s: %w", rec.txg, m.path, ErrFull)
		default:
			s.fail(m, err)
			errs = append(errs, err)
		}
	}
	if len(done) == 0 {
		s.readonly = fmt.Errorf("%w: %w", ErrNoReplica, errors.Join(errs...))
		return nil, s.readonly
	}
	return done, nil
}

// writers returns the replicas that take the next commit. One whose pages are
// in doubt is left out, as long as there is another.
func (s *Store) writers() []*member {
	var sound, doubtful []*member
	s.mu.Lock()
	for _, m := range s.replicas {
		switch {
		case m.r == nil:
		case m.r.doubtful.Load():
			doubtful = append(doubtful, m)
		default:
			sound = append(sound, m)
		}
	}
	s.mu.Unlock()
	if len(sound) == 0 {
		return doubtful
	}
	for _, m := range doubtful {
		s.fail(m, fmt.Errorf("meta: %s is damaged and was not recopied in time", m.path))
	}
	return sound
}

// fail takes a replica out of use. Views that are open keep it.
func (s *Store) fail(m *member, err error) {
	s.mu.Lock()
	r := m.r
	m.r, m.err = nil, err
	closing := s.unref(r)
	s.mu.Unlock()
	drop(closing)
	s.opts.Event(Event{Kind: Failed, Path: m.path, Err: err})
}

// Failed returns the paths of replicas that are not what was last committed.
func (s *Store) Failed() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var paths []string
	for _, m := range s.replicas {
		if m.r == nil {
			paths = append(paths, m.path)
		}
	}
	return paths
}

// Close closes the files. Views must be closed first; what they still hold is
// closed with the last of them.
func (s *Store) Close() error {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.mu.Lock()
	if s.now == nil {
		s.mu.Unlock()
		return nil
	}
	s.readonly = ErrClosed
	closing := s.unpin(s.now)
	s.now = nil
	for _, m := range s.replicas {
		if m.r != nil {
			closing = append(closing, s.unref(m.r)...)
			m.r, m.err = nil, ErrClosed
		}
	}
	s.mu.Unlock()
	return closeAll(closing)
}

func closeAll(closing []*replica) error {
	var errs []error
	for _, r := range closing {
		errs = append(errs, r.close())
	}
	return errors.Join(errs...)
}

// drop closes replicas that have failed or been replaced. Nothing is read from
// or written to their files any more, so an error would say nothing.
func drop(closing []*replica) { _ = closeAll(closing) }

// unref drops one reference and returns the replica if it was the last, to be
// closed without mu.
func (s *Store) unref(r *replica) []*replica {
	if r.refs--; r.refs > 0 {
		return nil
	}
	return []*replica{r}
}
