package meta

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// build makes a whole file of what is pinned (nothing when p is nil), in place
// of whatever is at path, and opens it. Entries are written one after another,
// so the new file is compact, and damage of single replicas does not come
// along: an entry that no replica has whole ends it.
//
//	Crash before the rename: the old file, and one to be overwritten beside it.
//	Crash after it:          the old file or the new one; both are whole.
//
// The new file is locked before it gets the name, so that no other process can
// take it in between.
func build(path string, rec record, p *pin, o Options) (_ *replica, err error) {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("meta: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(tmp)
		}
	}()
	if err := fill(tmp, rec, p, o); err != nil {
		return nil, fmt.Errorf("meta: write %s: %w", tmp, err)
	}
	r, err := openReplica(tmp, rec.guid, o)
	if err != nil {
		return nil, err
	}
	if err = r.finding.err(); err == nil {
		err = r.attach(o)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("meta: replace %s: %w", path, err), r.close())
	}
	r.path = path
	return r, nil
}

// buildStep is how many bytes go into one transaction of a new file.
const buildStep = 4 << 20

// fill writes a new file and makes it durable.
func fill(path string, rec record, p *pin, o Options) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		PageSize:        pageSize,
		FreelistType:    bolt.FreelistMapType,
		NoSync:          true, // nobody uses the file before the sync at the end
		NoGrowSync:      true,
		MaxSize:         int(o.MaxSize),
		InitialMmapSize: int(o.MaxSize),
		Timeout:         o.LockTimeout,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			return os.OpenFile(name, flag|os.O_EXCL|unix.O_CLOEXEC, mode)
		},
	})
	if err != nil {
		return err
	}
	db.AllocSize = o.GrowStep
	w := filler{db: db}
	err = w.fill(rec, p)
	if err == nil {
		err = db.Sync()
	}
	return errors.Join(err, w.rollback(), db.Close())
}

type filler struct {
	db   *bolt.DB
	tx   *bolt.Tx
	size int
}

func (w *filler) fill(rec record, p *pin) error {
	var err error
	if w.tx, err = w.db.Begin(true); err != nil {
		return err
	}
	// bbolt sorts the names anyway; we come in its order.
	all := Buckets()
	slices.SortFunc(all, func(a, b Bucket) int { return slices.Compare(a.name(), b.name()) })
	for _, b := range all {
		if b == Txg || p == nil {
			continue
		}
		if err := p.scan(b, nil, false, func(e entry) error { return w.put(b, e.key, e.sealed) }); err != nil {
			return err
		}
	}
	if err := w.put(Txg, recordKey, rec.sealed()); err != nil {
		return err
	}
	return w.commit()
}

func (w *filler) put(b Bucket, key, sealed []byte) error {
	if w.size > buildStep {
		if err := w.commit(); err != nil {
			return err
		}
		var err error
		if w.tx, err = w.db.Begin(true); err != nil {
			return err
		}
		w.size = 0
	}
	w.size += len(key) + len(sealed)
	bucket, err := openBucket(w.tx, b)
	if err != nil {
		return err
	}
	bucket.FillPercent = 1
	return bucket.Put(key, sealed)
}

func (w *filler) commit() error {
	tx := w.tx
	w.tx = nil
	return tx.Commit()
}

func (w *filler) rollback() error {
	if w.tx == nil {
		return nil
	}
	return w.tx.Rollback()
}

// Recopy writes the replica at path anew from the others, and from itself
// where it is sound, and takes it into use again. Views stay open. Commits
// wait.
func (s *Store) Recopy(path string) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	m, err := s.member(path)
	if err != nil {
		return err
	}
	return s.recopy(m)
}

// Compact writes the replica at path anew without its free pages, which bbolt
// keeps for ever. It is what [Store.Recopy] does.
func (s *Store) Compact(path string) error { return s.Recopy(path) }

// AddReplica makes another replica. Nothing that exists is overwritten.
func (s *Store) AddReplica(path string) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	if _, err := s.member(path); err == nil {
		return fmt.Errorf("meta: %s is a replica already", path)
	}
	if len(s.replicas) == 3 {
		return errors.New("meta: there are three replicas already")
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("meta: add replica %s: %w", path, cmp.Or(err, os.ErrExist))
	}
	m := &member{path: path, err: errors.New("not yet written")}
	if err := s.recopy(m); err != nil {
		return err
	}
	s.mu.Lock()
	s.replicas = append(s.replicas, m)
	s.mu.Unlock()
	return nil
}

// RemoveReplica takes a replica out of use and forgets it. The file stays. The
// last one that works cannot be removed.
func (s *Store) RemoveReplica(path string) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	m, err := s.member(path)
	if err != nil {
		return err
	}
	var others []*member
	for _, other := range s.replicas {
		if other != m && other.r != nil {
			others = append(others, other)
		}
	}
	if len(others) == 0 {
		return fmt.Errorf("meta: %s is the last replica that works", path)
	}
	s.mu.Lock()
	s.replicas = slices.DeleteFunc(s.replicas, func(x *member) bool { return x == m })
	var closing []*replica
	if m.r != nil {
		closing = s.unref(m.r)
	}
	s.mu.Unlock()
	drop(closing)
	return s.publish(others, s.record())
}

func (s *Store) member(path string) (*member, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.replicas {
		if m.path == path {
			return m, nil
		}
	}
	return nil, fmt.Errorf("meta: %s is no replica", path)
}

// recopy builds a replica for m and publishes it with the others. Locked:
// commit. When it fails, m is as it was.
func (s *Store) recopy(m *member) error {
	if s.readonly != nil {
		return fmt.Errorf("meta: recopy %s: %w", m.path, s.readonly)
	}
	p, err := s.hold()
	if err != nil {
		return err
	}
	defer s.release(p)
	r, err := build(m.path, p.rec, p, s.opts)
	if err != nil {
		return err
	}
	s.mu.Lock()
	var closing []*replica
	if m.r != nil {
		closing = s.unref(m.r)
	}
	m.r, m.err, m.rebuilt = r, nil, true
	all := []*member{m}
	for _, other := range s.replicas {
		if other != m && other.r != nil {
			all = append(all, other)
		}
	}
	s.mu.Unlock()
	drop(closing)
	if err := s.publish(all, p.rec); err != nil {
		return err
	}
	s.opts.Event(Event{Kind: Rebuilt, Path: m.path})
	return nil
}
