package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivers"
)

// What can stand in the way, beside the causes of package driver.
var (
	ErrNoImage = errors.New("no such image")
	ErrInUse   = errors.New("in use")
	ErrNoLease = errors.New("no such lease")
	// ErrOnlyRead tells of what an additional store has.
	ErrOnlyRead = errors.New("it is in an additional store, which is only read")
)

// A Store is open until Close. Its methods may be called side by side.
type Store struct {
	Driver driver.Driver

	root   string
	others []string   // roots of the stores that are only read
	mu     sync.Mutex // one transaction of this process at a time: bbolt's lock is the file's
	life   *os.File   // locked while this process lives
}

// buckets are made when the file is.
var buckets = []string{"layers", "ids", "children", "images", "refs", "leases", "intents"}

// Open opens a store, makes it when there is none, and finishes what processes
// that died have left over.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	for _, dir := range []string{"", "run", "blobs"} {
		if err := os.MkdirAll(filepath.Join(cfg.Root, dir), 0o711); err != nil {
			return nil, fmt.Errorf("open the store: %w", err)
		}
	}
	s := &Store{root: cfg.Root}
	additional, err := s.findOthers(cfg)
	if err != nil {
		return nil, fmt.Errorf("open the store %s: %w", cfg.Root, err)
	}
	s.Driver, err = drivers.Open(cfg.Driver, driver.Config{
		Root: filepath.Join(cfg.Root, cfg.Driver), Additional: additional, Engine: cfg.Engine, Options: optionsOf(cfg.Driver, cfg.Options),
		Servers: cfg.Servers, PoolServer: cfg.PoolServer, Volatile: cfg.Volatile,
	})
	if err != nil {
		return nil, fmt.Errorf("open the store %s: %w", cfg.Root, err)
	}
	if err := s.announce(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store %s: %w", cfg.Root, err), s.Driver.Close())
	}
	if err := s.recover(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store %s: finish what was left over: %w", cfg.Root, err), s.Close())
	}
	return s, nil
}

// optionsOf leaves out the options of other drivers, which one configuration may
// hold for all.
func optionsOf(name string, options []string) (own []string) {
	for _, o := range options {
		mine := true
		for _, other := range drivers.Names() {
			if other != name && len(o) > len(other) && o[:len(other)+1] == other+"." {
				mine = false
			}
		}
		if mine {
			own = append(own, o)
		}
	}
	return own
}

// announce takes a lock that tells others that this process lives.
func (s *Store) announce() error {
	f, err := os.CreateTemp(filepath.Join(s.root, "run"), "*.lock")
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return os.NewSyscallError("flock", err)
	}
	s.life = f
	return nil
}

// owner names this process in intents.
func (s *Store) owner() string { return filepath.Base(s.life.Name()) }

// lives reports whether a process still has the store open.
func (s *Store) lives(owner string) bool {
	path := filepath.Join(s.root, "run", owner)
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return true
	}
	os.Remove(path)
	return false
}

// Root is the directory of the store.
func (s *Store) Root() string { return s.root }

// Close lets go of the store.
func (s *Store) Close() error {
	os.Remove(s.life.Name())
	return errors.Join(s.life.Close(), s.Driver.Close())
}

// storeFile is what the store knows of its layers.
const storeFile = "store.db"

// lockWait is how long a transaction waits for another process.
const lockWait = 30 * time.Second

func (s *Store) open() (*bolt.DB, error) {
	path := filepath.Join(s.root, storeFile)
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, NoFreelistSync: true})
	if errors.Is(err, bolt.ErrTimeout) {
		return nil, fmt.Errorf("%s has been locked for %v by another process; see which with: fuser -v %s", path, lockWait, path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return db, nil
}

// update changes the store in one transaction.
func (s *Store) update(f func(*tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	db, err := s.open()
	if err != nil {
		return err
	}
	err = db.Update(func(t *bolt.Tx) error {
		own, err := t.CreateBucketIfNotExists([]byte(s.Driver.Name()))
		if err != nil {
			return err
		}
		for _, name := range buckets {
			if _, err := own.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return f(&tx{own, s})
	})
	return errors.Join(err, db.Close())
}

// view reads a state that does not change.
func (s *Store) view(f func(*tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	db, err := s.open()
	if err != nil {
		return err
	}
	err = db.View(func(t *bolt.Tx) error {
		// Without a bucket nothing was ever written with this driver.
		return f(&tx{t.Bucket([]byte(s.Driver.Name())), s})
	})
	return errors.Join(err, db.Close())
}

// A tx is what one transaction sees of the driver's part.
type tx struct {
	own *bolt.Bucket
	s   *Store
}

// get reads a value, and reports whether there is one.
func (t *tx) get(bucket, key string, v any) (bool, error) {
	if t.own == nil {
		return false, nil
	}
	text := t.own.Bucket([]byte(bucket)).Get([]byte(key))
	if text == nil {
		return false, nil
	}
	if err := json.Unmarshal(text, v); err != nil {
		return false, fmt.Errorf("%s of %q: %w: %w", bucket, key, driver.ErrDamaged, err)
	}
	return true, nil
}

func (t *tx) put(bucket, key string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return t.own.Bucket([]byte(bucket)).Put([]byte(key), text)
}

func (t *tx) delete(bucket, key string) error {
	return t.own.Bucket([]byte(bucket)).Delete([]byte(key))
}

// each calls f for each key that begins with prefix, in order.
func (t *tx) each(bucket, prefix string, f func(key string, text []byte) error) error {
	if t.own == nil {
		return nil
	}
	c := t.own.Bucket([]byte(bucket)).Cursor()
	for k, v := c.Seek([]byte(prefix)); k != nil && len(k) >= len(prefix) && string(k[:len(prefix)]) == prefix; k, v = c.Next() {
		if err := f(string(k), v); err != nil {
			return err
		}
	}
	return nil
}

// all decodes the values of a bucket.
func all[T any](t *tx, bucket string) (list []T, err error) {
	err = t.each(bucket, "", func(key string, text []byte) error {
		var v T
		if err := json.Unmarshal(text, &v); err != nil {
			return fmt.Errorf("%s of %q: %w: %w", bucket, key, driver.ErrDamaged, err)
		}
		list = append(list, v)
		return nil
	})
	return list, err
}

// newID makes the id of a layer.
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
