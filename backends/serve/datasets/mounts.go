package datasets

import (
	"errors"
	"fmt"
	"log"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
)

// Mounts are the datasets of one pool that this process has mounted. Its methods may
// be called side by side.
type Mounts struct {
	pool *blockpool.Pool
	log  *log.Logger

	mu   sync.Mutex
	all  []*Mount
	held map[uint64]*Mount // trees that can change, by number: whose they are
}

// New returns the mounts of a pool, of which there are none yet. Without a logger
// they log to the standard one.
func New(pool *blockpool.Pool, logger *log.Logger) *Mounts {
	if logger == nil {
		logger = log.Default()
	}
	return &Mounts{pool: pool, log: logger, held: map[uint64]*Mount{}}
}

// All returns the mounts in the order in which they were made.
func (s *Mounts) All() []*Mount {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// Of returns the mounts of a dataset and of its snapshots.
func (s *Mounts) Of(name string) []*Mount {
	return slices.DeleteFunc(s.All(), func(m *Mount) bool { return datasetOf(m.Dataset()) != datasetOf(name) })
}

// On returns the mount on a directory, the topmost, or nil.
func (s *Mounts) On(target string) *Mount {
	for _, m := range slices.Backward(s.All()) {
		if m.Info().Target == target {
			return m
		}
	}
	return nil
}

// open opens a dataset or snapshot for a mount, and makes a filesystem in a dataset
// that has none. What can change must not be another mount's.
func (s *Mounts) open(name string, m *Mount) (*tree, error) {
	opened, err := s.pool.OpenTree(name)
	if err != nil {
		return nil, err
	}
	t := newTree(opened)
	if !isSnapshot(name) {
		if other := s.hold(t.ID(), m); other != nil {
			err = fmt.Errorf("dataset %s is in use by %s: %w", name, other.user(), unix.EBUSY)
			return nil, errors.Join(err, t.Close())
		}
		t.release = func() { s.letLoose(t.ID()) }
	}
	if err := t.format(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// Open opens a dataset or snapshot for this process's own use, without mounting it.
// EBUSY tells that the dataset is mounted, and mounting it gives EBUSY until it is
// closed.
func (s *Mounts) Open(name string, o dataset.Options) (*dataset.FS, error) {
	t, err := s.open(name, &Mount{mounts: s})
	if err != nil {
		return nil, err
	}
	return dataset.New(t, o)
}

// user says who has a dataset.
func (m *Mount) user() string {
	if m.target == "" {
		return "a request that works on it"
	}
	return "the mount on " + m.target + ", which mount --bind shows elsewhere"
}

// hold notes that a tree belongs to a mount, or returns the one that it belongs to.
func (s *Mounts) hold(tree uint64, m *Mount) (other *Mount) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other = s.held[tree]; other == nil {
		s.held[tree] = m
	}
	return other
}

func (s *Mounts) letLoose(tree uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, tree)
}

func (s *Mounts) add(m *Mount) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, m)
}

func (s *Mounts) remove(m *Mount) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(o *Mount) bool { return o == m })
}

// Flush has the kernel hand over what programs have written to a dataset, and with
// below to all below its name, as far as they are mounted or entered as subvolumes. It
// comes before a snapshot, which then has what was written before it through mappings
// and with write-back too. The name of a snapshot stands for that of its dataset.
func (s *Mounts) Flush(name string, below bool) error {
	name = datasetOf(name)
	var mounts []*Mount
	for _, i := range s.pool.Volumes() {
		if i.Name == name || below && strings.HasPrefix(i.Name, name+"/") {
			if m := s.holder(i.ID); m != nil && !slices.Contains(mounts, m) {
				mounts = append(mounts, m)
			}
		}
	}
	var failed []error
	for _, m := range mounts {
		failed = append(failed, m.raw.Flush())
	}
	return errors.Join(failed...)
}

// holder returns the mount that a tree belongs to, or nil. One that is about to be
// mounted does not count: nobody has written there.
func (s *Mounts) holder(tree uint64) *Mount {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.held[tree]; slices.Contains(s.all, m) {
		return m
	}
	return nil
}

// SnapshotsChanged has the mounts of a dataset show which snapshots there are now.
// It is for whoever has made, renamed or destroyed one.
func (s *Mounts) SnapshotsChanged(name string) {
	for _, m := range s.Of(name) {
		m.SnapshotsChanged()
	}
}

// LetGo sees to it that no mount keeps a snapshot or nested subvolume open that
// somebody has only looked into, so that it can be destroyed. EBUSY tells that files
// in it are open, or that it is mounted itself.
func (s *Mounts) LetGo(name string) error {
	i, err := s.pool.Volume(name)
	if err != nil {
		return err
	}
	for _, m := range s.All() {
		dir, at := m.fs.snapshots, snapshotOf(name)
		if at == "" { // a subvolume, whose name in the mount only its directory tells
			dir = 0
		}
		switch {
		case m.tree.ID() == i.ID:
			return fmt.Errorf("%s is mounted on %s: %w", name, m.target, unix.EBUSY)
		case !m.letGo(i.ID, dir, at):
			return fmt.Errorf("files of %s are in use below %s: %w; see who uses them with: fuser -vm %s", name, m.target, unix.EBUSY, m.target)
		}
	}
	return nil
}

// Offline unmounts a dataset wherever it is mounted, calls do, and mounts it again as
// it was, whether do has failed or not. It is for what must not happen to a dataset
// in use, such as a rollback. EBUSY tells that files are open; do was not called then.
func (s *Mounts) Offline(name string, do func() error) error {
	var gone []*Mount
	var err error
	for _, m := range s.Of(name) {
		if isSnapshot(m.Dataset()) {
			continue // it stays what it is
		}
		if err = m.Unmount(false); err != nil {
			break
		}
		gone = append(gone, m)
	}
	if err == nil {
		err = do()
	}
	for _, m := range gone {
		if _, again := s.Mount(m.configured()); again != nil {
			err = errors.Join(err, fmt.Errorf("mount %s again: %w", name, again))
		}
	}
	return err
}

// Close unmounts everything, what was mounted last first. With lazy what is in use
// goes out of sight, and is served until its last file is closed; without it the
// first that is in use gives EBUSY, and the rest stays.
func (s *Mounts) Close(lazy bool) error {
	for _, m := range slices.Backward(s.All()) {
		if err := m.Unmount(lazy); err != nil {
			return err
		}
	}
	return nil
}
