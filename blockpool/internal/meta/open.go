package meta

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Create makes the replicas of a new pool's metadata, without any entry and at
// txg 0, and opens them. When it returns, files and names are durable. Nothing
// that exists is overwritten, and an error leaves no file behind.
func Create(paths []string, guid GUID, o Options) (_ *Store, err error) {
	if err := checkPaths(paths); err != nil {
		return nil, err
	}
	if guid == (GUID{}) {
		return nil, errors.New("meta: create: the guid of the pool is zero")
	}
	o = o.withDefaults()
	s := &Store{opts: o, guid: guid}
	var made []*member
	defer func() {
		if err == nil {
			return
		}
		for _, m := range made {
			if m.r != nil {
				m.r.close()
			}
			os.Remove(m.path)
		}
	}()
	rec := record{guid: guid}
	for _, path := range paths {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("meta: create %s: %w", path, cmp.Or(err, os.ErrExist))
		}
		m := &member{path: path}
		made = append(made, m)
		if m.r, err = build(path, rec, nil, o); err != nil {
			return nil, err
		}
	}
	s.replicas = made
	if err := s.publish(made, rec); err != nil {
		return nil, err
	}
	return s, nil
}

func checkPaths(paths []string) error {
	if len(paths) < 1 || len(paths) > 3 {
		return fmt.Errorf("meta: %d replicas, not 1 to 3", len(paths))
	}
	for i, path := range paths {
		if slices.Contains(paths[:i], path) {
			return fmt.Errorf("meta: %s is given twice", path)
		}
	}
	return nil
}

// Open opens the replicas of a pool's metadata. A zero guid takes whatever pool
// the files belong to.
//
// Every file is read and checked in full. The highest txg that some replica has
// whole is what the store shows; replicas that lag or are damaged are written
// anew from it. When none is whole, replicas of the same txg make up for each
// other. When that fails too, a replica whose structure is sound is used, and
// its damaged values give errors when they are read; without one the error
// wraps format.ErrDamaged.
//
// Files of two pools, or with different commits under one number, are refused
// with ErrForeign and ErrDiverged; files in use with ErrInUse.
//
// A file that does not exist or cannot be read is not created: the directory
// may be one where a device is not mounted. [Store.Failed] has it.
//
// A replica that has lost one of bbolt's two meta pages shows the commit of the
// other, and its Problem in [Store.Replicas] says so: a crash during the last
// commit leaves that, and so does damage of the newest meta page, which then
// hides a commit. When no other replica shows better, the caller has to compare
// [Store.Txg] with what it knows from elsewhere.
func Open(paths []string, guid GUID, o Options) (_ *Store, err error) {
	if err := checkPaths(paths); err != nil {
		return nil, err
	}
	s := &Store{opts: o.withDefaults(), guid: guid}
	defer func() {
		if err != nil {
			s.abandon()
		}
	}()
	if err := s.openAll(paths, guid); err != nil {
		return nil, err
	}
	good, err := s.choose()
	if err != nil {
		return nil, err
	}
	s.guid = good[0].r.finding.rec.guid
	for _, m := range good {
		if err := m.r.attach(s.opts); err != nil {
			return nil, err
		}
	}
	if err := s.publish(good, good[0].r.finding.rec); err != nil {
		return nil, err
	}
	if s.opts.ReadOnly {
		s.readonly = ErrReadOnly
	}
	s.settle(good)
	return s, nil
}

// openAll opens what can be opened. A file in use or of another pool ends it.
func (s *Store) openAll(paths []string, guid GUID) error {
	for _, path := range paths {
		m := &member{path: path}
		s.replicas = append(s.replicas, m)
		m.r, m.err = openReplica(path, guid, s.opts)
		if errors.Is(m.err, ErrInUse) {
			return m.err
		}
		if m.err != nil {
			m.problem = m.err
			continue
		}
		f := &m.r.finding
		if f.rec.txg != 0 || f.rec.guid != (GUID{}) {
			if guid == (GUID{}) {
				guid = f.rec.guid
			}
			if f.rec.guid != guid {
				return fmt.Errorf("meta: %s has the pool %x, not %x: %w", path, f.rec.guid, guid, ErrForeign)
			}
		}
		m.found, m.problem = f.rec.txg, cmp.Or(f.err(), f.lost)
	}
	return s.diverged()
}

// diverged fails when replicas have different commits under the same number.
// One of them went on without the other, which nobody can tell from here.
func (s *Store) diverged() error {
	for i, a := range s.replicas {
		for _, b := range s.replicas[:i] {
			if a.r == nil || b.r == nil || a.found != b.found {
				continue
			}
			x, y := a.r.finding.rec, b.r.finding.rec
			if x != y && x.guid != (GUID{}) && y.guid != (GUID{}) {
				return fmt.Errorf("meta: %s of %v and %s of %v, txg %d: %w", b.path, time.Unix(0, y.time), a.path, time.Unix(0, x.time), a.found, ErrDiverged)
			}
		}
	}
	return nil
}

// choose returns the replicas to work with. The highest txg that can be read
// anywhere decides: those that have it whole, or a whole one made of its damaged
// ones. Failing that, an older one that is whole, and has not lost the meta page
// of a later commit: it missed only the commit during which the pool went down.
// Last, damaged ones, whose readers get errors where they are.
func (s *Store) choose() (good []*member, err error) {
	usable := s.latest(func(f *finding) bool { return f.broken == nil })
	whole := s.latest(func(f *finding) bool { return f.err() == nil })
	if len(whole) > 0 && whole[0].found == usable[0].found {
		return whole, nil
	}
	if merged := s.merge(); merged != nil {
		return merged, nil
	}
	if older := s.latest(func(f *finding) bool { return f.err() == nil && f.lost == nil }); len(older) > 0 {
		return older, nil
	}
	if len(usable) == 0 {
		var errs []error
		for _, m := range s.replicas {
			errs = append(errs, fmt.Errorf("%s: %w", m.path, m.problem))
		}
		return nil, fmt.Errorf("meta: no replica can be used: %w", errors.Join(errs...))
	}
	for _, m := range usable {
		m.r.doubtful.Store(true)
	}
	return usable, nil
}

// latest returns the replicas with the highest txg of those that ok accepts.
func (s *Store) latest(ok func(*finding) bool) (found []*member) {
	for _, m := range s.replicas {
		switch {
		case m.r == nil || !ok(&m.r.finding):
		case len(found) == 0 || m.found > found[0].found:
			found = []*member{m}
		case m.found == found[0].found:
			found = append(found, m)
		}
	}
	return found
}

// merge makes whole replicas of damaged ones of the same txg, and returns one;
// nil if that cannot be.
func (s *Store) merge() []*member {
	if s.opts.ReadOnly {
		return nil
	}
	parts := s.latest(func(f *finding) bool { return f.rec.guid != (GUID{}) })
	if len(parts) < 2 {
		return nil
	}
	// Nobody commits yet, so the files can be read without a transaction.
	p := &pin{s: s, rec: parts[0].r.finding.rec}
	for _, m := range parts {
		sn := &snapshot{r: m.r}
		for _, b := range Buckets() {
			err := guarded(func() (err error) {
				names := tree{file: m.r.mem[:m.r.size], limit: m.r.finding.meta.limit, root: m.r.finding.meta.root}
				sn.trees[b], err = names.bucket(b)
				return err
			})
			if err != nil {
				sn.trees[b] = tree{} // every read of it is damage
			}
		}
		p.snaps = append(p.snaps, sn)
	}
	m := parts[0]
	r, err := build(m.path, p.rec, p, s.opts)
	if err != nil {
		s.opts.Event(Event{Kind: Failed, Path: m.path, Err: err})
		return nil
	}
	old := m.r
	m.r, m.rebuilt = r, true
	// The other parts stay mapped until they are rebuilt; this one is done.
	_ = old.close()
	s.opts.Event(Event{Kind: Rebuilt, Path: m.path, Err: m.problem})
	return []*member{m}
}

// settle writes anew what is not as good as the chosen replicas.
func (s *Store) settle(good []*member) {
	for _, m := range s.replicas {
		if slices.Contains(good, m) {
			continue
		}
		if m.r == nil {
			s.opts.Event(Event{Kind: Failed, Path: m.path, Err: m.err})
			continue
		}
		problem := m.problem
		if problem == nil {
			problem = fmt.Errorf("meta: %s: txg %d, not %d", m.path, m.found, s.Txg())
		}
		s.fail(m, problem)
		if s.opts.ReadOnly || s.now.snaps[0].r.doubtful.Load() {
			continue
		}
		if err := s.recopy(m); err != nil {
			s.opts.Event(Event{Kind: Failed, Path: m.path, Err: err})
		}
	}
}

// abandon closes what a failed Open has opened.
func (s *Store) abandon() {
	if s.now != nil {
		s.mu.Lock()
		closing := s.unpin(s.now)
		s.now = nil
		s.mu.Unlock()
		drop(closing)
	}
	for _, m := range s.replicas {
		if m.r != nil {
			m.r.close()
		}
	}
}

// A ReplicaInfo says what is known of one replica.
type ReplicaInfo struct {
	Path    string
	Found   uint64 // txg that the file had when it was opened, 0 if none could be read
	Problem error  // what was wrong with it then
	Rebuilt bool   // it has been written anew since
	Damaged bool   // a reader has met damage in it since
	Err     error  // why it is out of use, nil when it is in use
}

// Replicas returns what is known of each replica, in the order of their paths.
func (s *Store) Replicas() []ReplicaInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []ReplicaInfo
	for _, m := range s.replicas {
		all = append(all, ReplicaInfo{
			Path: m.path, Found: m.found, Problem: m.problem, Rebuilt: m.rebuilt,
			Damaged: m.r != nil && m.r.doubtful.Load(), Err: m.err,
		})
	}
	return all
}
