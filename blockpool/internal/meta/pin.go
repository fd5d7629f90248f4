package meta

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A pin holds the replicas at one commit. There is always one of the last
// commit, made before the commit returns, and every view of it shares it: so a
// view never waits for a commit, never sees half of one, and finds the same
// state in every replica.
type pin struct {
	s     *Store
	rec   record
	snaps []*snapshot
	refs  int // guarded by Store.mu
}

// A snapshot is a replica as of a commit. The bbolt transaction keeps the pages
// from being used again; nothing is read through it.
type snapshot struct {
	r     *replica
	tx    *bolt.Tx
	trees [endOfBuckets]tree // read when the pin was made, while the pages were fresh
}

// snapshot pins what the replica has now. bbolt would panic, with its locks
// held, where no meta page is left; so that is looked at first.
func (r *replica) snapshot() (*snapshot, error) {
	sn := &snapshot{r: r}
	err := r.bolt(func() (err error) {
		if _, _, err := newestMeta(r.mem); err != nil {
			return err
		}
		if sn.tx, err = r.db.Begin(false); err != nil {
			return err
		}
		if uint64(sn.tx.ID()) != r.txid {
			err := damaged("the newest meta page is lost: found transaction %d, not %d", sn.tx.ID(), r.txid)
			return errors.Join(err, sn.tx.Rollback())
		}
		return sn.readTrees(r.names(sn.tx))
	})
	if err != nil {
		return nil, fmt.Errorf("meta: %s: %w", r.path, err)
	}
	return sn, nil
}

func (sn *snapshot) readTrees(names tree) error {
	for _, b := range Buckets() {
		t, err := names.bucket(b)
		if err != nil {
			return errors.Join(err, sn.tx.Rollback())
		}
		t.inline = bytes.Clone(t.inline)
		sn.trees[b] = t
	}
	return nil
}

// publish makes a commit the one that views see.
func (s *Store) publish(done []*member, rec record) error {
	p := &pin{s: s, rec: rec, refs: 1}
	var errs []error
	for _, m := range done {
		sn, err := m.r.snapshot()
		if err != nil {
			s.fail(m, err)
			errs = append(errs, err)
			continue
		}
		p.snaps = append(p.snaps, sn)
	}
	if len(p.snaps) == 0 {
		s.readonly = fmt.Errorf("%w: %w", ErrNoReplica, errors.Join(errs...))
		return s.readonly
	}
	s.mu.Lock()
	for _, sn := range p.snaps {
		sn.r.refs++
	}
	var closing []*replica
	if s.now != nil {
		closing = s.unpin(s.now)
	}
	s.now = p
	s.mu.Unlock()
	drop(closing)
	return nil
}

// hold returns the last commit with a reference of the caller's.
func (s *Store) hold() (*pin, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		return nil, fmt.Errorf("meta: the store is %w", ErrClosed)
	}
	s.now.refs++
	return s.now, nil
}

func (s *Store) release(p *pin) {
	s.mu.Lock()
	closing := s.unpin(p)
	s.mu.Unlock()
	drop(closing)
}

// unpin drops one reference; with the last, the replicas' own. Locked: mu.
func (s *Store) unpin(p *pin) (closing []*replica) {
	if p.refs--; p.refs > 0 {
		return nil
	}
	for _, sn := range p.snaps {
		if !sn.r.wedged.Load() {
			// A read transaction's rollback only fails when it has ended before.
			_ = sn.r.bolt(sn.tx.Rollback)
		}
		closing = append(closing, s.unref(sn.r)...)
	}
	return closing
}

// order returns the snapshots with those in doubt last.
func (p *pin) order() []*snapshot {
	for i, sn := range p.snaps {
		if sn.r.doubtful.Load() && i < len(p.snaps)-1 {
			sorted := slices.Clone(p.snaps)
			slices.SortStableFunc(sorted, func(a, b *snapshot) int { return boolInt(a.r.doubtful.Load()) - boolInt(b.r.doubtful.Load()) })
			return sorted
		}
	}
	return p.snaps
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// doubt notes that a replica is damaged, and says so once.
func (p *pin) doubt(sn *snapshot, err error) {
	if !sn.r.doubtful.Swap(true) {
		p.s.opts.Event(Event{Kind: Damaged, Path: sn.r.path, Err: err})
	}
}

// get returns a copy of a key's sealed value, nil when the key is absent. It is
// taken from the first replica that has it whole. A replica that lacks a key
// which another has is as damaged as one with a broken value: a seal cannot be
// there by accident.
func (p *pin) get(b Bucket, key []byte) ([]byte, error) {
	var errs []error
	var absent []*snapshot
	present := false
	for _, sn := range p.order() {
		sealed, err := sn.get(b, key)
		switch {
		case err != nil:
			var bad *valueError
			present = present || errors.As(err, &bad)
			errs = append(errs, err)
			p.doubt(sn, err)
		case sealed == nil:
			absent = append(absent, sn)
		default:
			for _, other := range absent {
				p.doubt(other, damaged("meta: %s: %v, key %x: missing, and %s has it", other.r.path, b, key, sn.r.path))
			}
			return sealed, nil
		}
	}
	if len(absent) > 0 && !present {
		return nil, nil
	}
	for _, sn := range absent {
		p.doubt(sn, damaged("meta: %s: %v, key %x: missing, and another replica has it, damaged", sn.r.path, b, key))
	}
	return nil, errors.Join(errs...)
}

// get returns a copy of a sealed value whose seal is right. What is checked is
// the copy, so that what the caller uses has been checked.
func (sn *snapshot) get(b Bucket, key []byte) (sealed []byte, err error) {
	err = guarded(func() error {
		leaf, i, ok, err := sn.trees[b].get(key)
		if err != nil {
			return err
		}
		if !ok {
			return sn.absent(b, leaf, i)
		}
		found := leaf.value(i)
		sealed = append(make([]byte, 0, len(found)), found...)
		return nil
	})
	if err == nil && sealed != nil {
		_, _, err = unseal(sealed, sn.r.finding.rec.guid, b, key)
	}
	if err != nil {
		return nil, fmt.Errorf("meta: %s: %v, key %x: %w", sn.r.path, b, key, err)
	}
	return sealed, nil
}

// absent fails unless a key is absent that would be element i of a leaf. Were
// the key there with a damaged name, it would still stand at that place, since
// keys are in order, and its seal would be wrong.
func (sn *snapshot) absent(b Bucket, leaf page, i int) error {
	for j := max(i-1, 0); j <= i && j < leaf.n; j++ {
		if _, _, err := unseal(leaf.value(j), sn.r.finding.rec.guid, b, leaf.key(j)); err != nil {
			return damaged("it may be a neighbour that is damaged (%v)", err)
		}
	}
	return nil
}

// next returns the record of the commit that applies ops to what is pinned.
func (p *pin) next(txg uint64, ops []op) (record, error) {
	rec := p.rec
	rec.txg, rec.time = txg, time.Now().UnixNano()
	for _, op := range ops {
		old, err := p.get(op.bucket, []byte(op.key))
		if err != nil {
			return p.nextByCount(rec, ops)
		}
		rec = rec.replace([]byte(op.key), old, op.sealed)
	}
	return rec, nil
}

// nextByCount counts all entries anew. That is needed when a damaged value is
// replaced or deleted: what it once added to the digest cannot be known.
func (p *pin) nextByCount(rec record, ops []op) (record, error) {
	rec.entries, rec.digest = 0, 0
	changed := make(map[opKey]bool, len(ops))
	for _, op := range ops {
		changed[op.opKey] = true
		rec = rec.replace([]byte(op.key), nil, op.sealed)
	}
	for _, b := range Buckets() {
		if b == Txg {
			continue
		}
		err := p.scan(b, nil, true, func(e entry) error {
			if !changed[opKey{b, string(e.key)}] {
				rec = rec.replace(e.key, nil, e.sealed)
			}
			return nil
		})
		if err != nil {
			return record{}, err
		}
	}
	return rec, nil
}
