package meta

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A replica is one file that holds all metadata.
type replica struct {
	path string
	file *os.File // locked; bbolt's own when there is a db
	db   *bolt.DB // nil until attach
	mem  []byte   // the file, mapped for reading, up to its greatest size
	size int64    // of the file when it was opened

	finding finding
	txid    uint64 // of bbolt's last commit

	// doubtful is set when a reader has met damage: others are asked first,
	// and the replica takes no more commits unless it is the last.
	doubtful atomic.Bool
	// wedged is set when bbolt has panicked. It may hold its locks for ever
	// then, so the db is left alone.
	wedged atomic.Bool

	refs int // the store and each pin; guarded by Store.mu
}

// openReplica opens, locks, maps and checks a file. Damage is no error here:
// see finding.
func openReplica(path string, guid GUID, o Options) (*replica, error) {
	file, err := openLocked(path, o)
	if err != nil {
		return nil, err
	}
	r := &replica{path: path, file: file, refs: 1}
	if err := r.mapFile(o); err != nil {
		file.Close()
		return nil, err
	}
	if err := guarded(func() error { r.finding = checkFile(r.mem[:r.size], guid); return nil }); err != nil {
		r.finding.broken = err
	}
	r.txid = r.finding.meta.txid
	return r, nil
}

// openLocked opens a file and takes bbolt's lock on it, before a byte of it is
// read. A file that was replaced while we waited for its lock is let go.
func openLocked(path string, o Options) (*os.File, error) {
	flag, how := os.O_RDWR, unix.LOCK_EX
	if o.ReadOnly {
		flag, how = os.O_RDONLY, unix.LOCK_SH
	}
	for until := time.Now().Add(o.LockTimeout); ; {
		file, err := os.OpenFile(path, flag|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("meta: open: %w", err)
		}
		err = unix.Flock(int(file.Fd()), how|unix.LOCK_NB)
		if err == nil && sameFile(file, path) {
			return file, nil
		}
		file.Close()
		switch {
		case err != nil && err != unix.EWOULDBLOCK:
			return nil, fmt.Errorf("meta: lock %s: %w", path, err)
		case time.Now().After(until):
			return nil, fmt.Errorf("meta: %s: %w", path, ErrInUse)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func sameFile(file *os.File, path string) bool {
	a, err := file.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// mapFile maps the file up to the size that it may grow to. A mapping may
// reach beyond the end of its file.
func (r *replica) mapFile(o Options) error {
	info, err := r.file.Stat()
	if err != nil {
		return fmt.Errorf("meta: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("meta: %s is no regular file", r.path)
	}
	r.size = info.Size()
	r.mem, err = unix.Mmap(int(r.file.Fd()), 0, int(max(r.size, o.MaxSize)), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("meta: map %s: %w", r.path, err)
	}
	// Trees are read in no order; what lies beside a page helps nobody.
	_ = unix.Madvise(r.mem, unix.MADV_RANDOM)
	return nil
}

// attach lets bbolt open a file whose structure is sound.
func (r *replica) attach(o Options) error {
	err := caught(func() (err error) {
		r.db, err = bolt.Open(r.path, 0o600, &bolt.Options{
			ReadOnly:        o.ReadOnly,
			PageSize:        pageSize,
			FreelistType:    bolt.FreelistMapType,
			MaxSize:         int(o.MaxSize),
			InitialMmapSize: len(r.mem),
			OpenFile:        func(string, int, os.FileMode) (*os.File, error) { return r.file, nil },
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("meta: open %s: %w", r.path, err)
	}
	r.db.AllocSize = o.GrowStep
	return nil
}

// names returns the tree of the bucket names as a transaction sees it.
func (r *replica) names(tx *bolt.Tx) tree {
	return tree{file: r.mem, limit: uint64(tx.Size() / pageSize), root: uint64(tx.Cursor().Bucket().RootPage())}
}

// commit applies one batch in one bbolt transaction. After an error the
// replica must not be written again, save for errFull: then the file is as it
// was.
//
// bbolt may recurse without end, and so end the process, on pages whose
// numbers are damaged; every path that it will take is therefore walked first.
func (r *replica) commit(ops []op, rec record) error {
	err := r.bolt(func() error {
		tx, err := r.db.Begin(true)
		if err != nil {
			return err
		}
		if err := r.apply(tx, ops, rec); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	})
	switch {
	case errors.Is(err, bolterrors.ErrMaxSizeReached):
		return errFull
	case err != nil:
		return fmt.Errorf("meta: commit of txg %d to %s: %w", rec.txg, r.path, err)
	}
	r.txid++
	return nil
}

var errFull = errors.New("the file has reached its greatest size")

func (r *replica) apply(tx *bolt.Tx, ops []op, rec record) error {
	if uint64(tx.ID()) != r.txid+1 {
		return damaged("the newest meta page is lost: transaction %d follows %d", tx.ID(), r.txid)
	}
	names := r.names(tx)
	var b *bolt.Bucket
	var last Bucket
	for _, op := range ops {
		if _, err := names.lookup(op.bucket, []byte(op.key)); err != nil {
			return err
		}
		if op.bucket != last {
			var err error
			if b, err = openBucket(tx, op.bucket); err != nil {
				return err
			}
			last = op.bucket
		}
		if err := op.apply(b); err != nil {
			return err
		}
	}
	b, err := openBucket(tx, Txg)
	if err != nil {
		return err
	}
	return b.Put(recordKey, rec.sealed())
}

func openBucket(tx *bolt.Tx, b Bucket) (*bolt.Bucket, error) {
	bucket, err := tx.CreateBucketIfNotExists(b.name())
	if err != nil {
		return nil, fmt.Errorf("bucket %v: %w", b, err)
	}
	bucket.FillPercent = fillPercent
	return bucket, nil
}

func (op op) apply(b *bolt.Bucket) error {
	var err error
	if op.sealed == nil {
		err = b.Delete([]byte(op.key))
	} else {
		err = b.Put([]byte(op.key), op.sealed)
	}
	if err != nil {
		return fmt.Errorf("%v, key %x: %w", op.bucket, op.key, err)
	}
	return nil
}

// close lets go of the file. Only when nothing reads it any more.
func (r *replica) close() error {
	var errs []error
	if r.mem != nil {
		errs = append(errs, unix.Munmap(r.mem))
	}
	if r.db != nil && !r.wedged.Load() {
		errs = append(errs, caught(r.db.Close))
	} else {
		errs = append(errs, r.letGo())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("meta: close %s: %w", r.path, err)
	}
	return nil
}

// letGo closes a file without bbolt. What bbolt has mapped stays mapped and
// would keep the lock.
func (r *replica) letGo() error {
	err := unix.Flock(int(r.file.Fd()), unix.LOCK_UN)
	if err := r.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	if err == unix.EBADF { // closed before, by a bbolt that could not open it
		return nil
	}
	return err
}

// bolt runs a part of bbolt that takes its locks.
func (r *replica) bolt(f func() error) error {
	ended := false
	err := caught(func() error {
		err := f()
		ended = true
		return err
	})
	if !ended {
		r.wedged.Store(true)
	}
	return err
}

// guarded runs f and turns a fault of the mapping, which is an I/O error of
// the file's device or a file that was cut off, into damage. Any other panic
// is a bug and goes on.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			fault, ok := p.(interface {
				error
				Addr() uintptr
			})
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("the mapped file cannot be read: %v: %w", fault, format.ErrDamaged)
		}
	}()
	return f()
}

// caught runs a function of bbolt, which panics on damage.
func caught(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("bbolt: %v: %w", p, format.ErrDamaged)
		}
	}()
	return f()
}

// syncDir makes the names in the directory of path durable.
func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("meta: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("meta: sync %s: %w", dir.Name(), err)
	}
	return nil
}
