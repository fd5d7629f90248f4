package meta

import (
	"errors"
	"time"
)

// fillPercent is how full bbolt leaves a page that it splits. Nodes of two to a
// page are not affected: bbolt keeps at least two keys in a page whatever this
// says. Small values (counts, chunks) come in ascending order, and full pages
// suit that.
const fillPercent = 0.9

// Errors that callers tell apart. Damage wraps format.ErrDamaged.
var (
	// ErrInUse says that another process has the metadata open.
	ErrInUse = errors.New("in use by another process")
	// ErrNoReplica says that no replica is left that could take a commit. The
	// store can still be read.
	ErrNoReplica = errors.New("no replica of the metadata is left to write to")
	// ErrFull says that a commit did not fit below Options.MaxSize. Nothing has
	// changed, and a smaller commit may succeed.
	ErrFull = errors.New("the metadata has reached its greatest size")
	// ErrForeign says that a file is metadata of another pool.
	ErrForeign = errors.New("belongs to another pool")
	// ErrDiverged says that replicas have different commits under the same
	// number: one that had failed, or whose device was away, was not left out.
	ErrDiverged = errors.New("the replicas have gone different ways")
	// ErrReadOnly says that the store was opened for reading.
	ErrReadOnly = errors.New("the metadata is open for reading only")
	// ErrClosed says that the store, or the view, has been closed.
	ErrClosed = errors.New("closed")
)

// Options say how a store uses its files. The zero value is ready to use.
type Options struct {
	// MaxSize bounds each file, in bytes; 0 is DefaultMaxSize. Twice as much
	// address space is set aside for each replica, so that a file grows without
	// being mapped anew: bbolt would wait for every open view to do that.
	MaxSize int64
	// GrowStep is by how much a file grows beyond what it needs, in bytes, so
	// that not every commit grows it; 0 is 16 MiB or a 16th of MaxSize,
	// whichever is less. The last step below MaxSize is never used.
	GrowStep int
	// ReadOnly opens files for reading, shared with other readers. Replicas
	// that lag or are damaged are then left as they are.
	ReadOnly bool
	// LockTimeout is how long to wait for another process to let go of the
	// files; 0 is one second.
	LockTimeout time.Duration
	// Event is told what happens to replicas. It is called without locks, but
	// possibly from within View.Get and Store.Commit, whose callers it must not
	// keep waiting; it must not call the store.
	Event func(Event)
}

// DefaultMaxSize is the size that files may reach unless Options say else.
const DefaultMaxSize = 16 << 30

func (o Options) withDefaults() Options {
	if o.MaxSize <= 0 {
		o.MaxSize = DefaultMaxSize
	}
	o.MaxSize = max(o.MaxSize, 1<<20) / pageSize * pageSize
	if o.GrowStep <= 0 {
		o.GrowStep = int(min(16<<20, o.MaxSize/16))
	}
	if o.LockTimeout <= 0 {
		o.LockTimeout = time.Second
	}
	if o.Event == nil {
		o.Event = func(Event) {}
	}
	return o
}

// An Event is something that happened to a replica.
type Event struct {
	Kind EventKind
	Path string
	Err  error // what was wrong with the replica; names bucket and key where one is concerned
}

// An EventKind says what happened.
type EventKind uint8

const (
	// Damaged: a reader met damage. What it wanted came from another replica if
	// one had it. The replica takes part in no further commit while there is
	// another one, so it should be recopied. Told once for each replica.
	Damaged EventKind = iota + 1
	// Failed: the replica is out of use until it is recopied.
	Failed
	// Rebuilt: the replica was written anew from good ones.
	Rebuilt
)

var eventNames = [...]string{Damaged: "damaged", Failed: "failed", Rebuilt: "rebuilt"}

func (k EventKind) String() string { return eventNames[k] }
