package blockpool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/intent"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
	"github.com/laminafs/lamina/blockpool/internal/spacemap"
	"github.com/laminafs/lamina/blockpool/vdev"
)

// A Pool is an open pool. One process at a time has it. Its methods may be
// called side by side.
type Pool struct {
	guid   GUID
	config atomic.Pointer[Config]
	props  atomic.Pointer[local] // its own properties, which datasets inherit
	tune   Tunables

	storage Storage
	meta    *meta.Store
	array   *raid.Array
	log     *intent.Log
	logArea *logArea

	devices   devices
	space     *space
	nodes     *nodeCache
	catalogue *catalogue
	epochs    epochs
	dead      dead
	events    events
	tours     tours
	jobs      jobs
	scrub     scrub

	conversion conversion
	relocating atomic.Pointer[relocation] // records of chunks that are emptied, or nil
	moves      moves
	discards   discards

	locks   recordLocks
	buffers buffers

	readCache *readCache

	gate sync.RWMutex
	open *txg // guarded by gate

	// view is held by who needs dirty state, entry and epoch to fit together.
	view sync.RWMutex

	// The sync goroutine's own; nobody else touches them while it runs.
	state      state
	counts     *spacemap.Map // references to sectors
	nodeCounts *spacemap.Map // references to nodes

	metadataRoom   atomic.Int64 // bytes that each replica may still grow by
	syncingRecords atomic.Int64 // of the txg that is being made durable

	laterMu    sync.Mutex
	laterTasks []*task // for the next txg, nobody waits for them

	wake    chan struct{} // close the open txg soon
	quit    chan struct{} // closed to end the sync goroutine
	stopped chan struct{} // closed when it has ended
	closing sync.Once
	failure atomic.Pointer[error] // why nothing may change
	closed  atomic.Bool           // nothing may be read either

	abandoned atomic.Bool // nothing more is to become durable
}

// Storage opens and makes devices. [Files] is the usual one; tests have others.
type Storage interface {
	Open(path string) (vdev.Device, error)
	Create(path string, size int64) (vdev.Device, error)
}

// Files is the storage of files and block devices.
var Files Storage = fileStorage{}

type fileStorage struct{}

func (fileStorage) Open(path string) (vdev.Device, error) { return vdev.Open(path) }
func (fileStorage) Create(path string, size int64) (vdev.Device, error) {
	return vdev.Create(path, size)
}

// Tunables are not part of the pool: each opening may choose others. Zero values
// stand for defaults.
type Tunables struct {
	TxgInterval time.Duration // longest time that a change waits for its txg to close; 5 s
	DirtyLimit  int64         // most bytes that a txg may change; 64M
	NodeCache   int           // bytes of decoded tree nodes that are kept; 32M
	ReadCache   int           // bytes of verified records that are kept for small reads; 64M, negative: none

	deadPerTxg int                      // nodes of destroyed trees that a txg looks at; 2000
	commit     func(func() error) error // runs each commit of the metadata; tests watch it, or have it fail
}

func (t Tunables) withDefaults() Tunables {
	if t.TxgInterval <= 0 {
		t.TxgInterval = 5 * time.Second
	}
	if t.DirtyLimit <= 0 {
		t.DirtyLimit = 64 << 20
	}
	if t.NodeCache <= 0 {
		t.NodeCache = 32 << 20
	}
	if t.ReadCache == 0 {
		t.ReadCache = 64 << 20
	}
	if t.deadPerTxg <= 0 {
		t.deadPerTxg = 2000
	}
	if t.commit == nil {
		t.commit = func(commit func() error) error { return commit() }
	}
	return t
}

// GUID returns the pool's guid.
func (p *Pool) GUID() GUID { return p.guid }

// Config returns the pool's configuration as it is now.
func (p *Pool) Config() Config { return *p.config.Load() }

// SetConfig changes what may change of the configuration of a pool that exists:
// all but its name, chunk size, and profiles, which [Pool.Convert] and replicas change.
func (p *Pool) SetConfig(ctx context.Context, change func(*Config)) error {
	return p.do(ctx, &task{run: func(s *pass) error {
		c := s.config()
		old := c
		change(&c)
		c = c.withDefaults(0)
		c.datasets, c.converted = old.datasets, old.converted
		if err := c.check(); err != nil {
			return err
		}
		if c.Name != old.Name || c.DataProfile != old.DataProfile || c.MetadataProfile != old.MetadataProfile || c.ChunkSize != old.ChunkSize {
			return invalidf("name and chunk size stay as the pool was made, and profiles are changed by a conversion")
		}
		s.setConfig(c)
		return nil
	}})
}

// config returns the configuration as this txg has it.
func (s *pass) config() Config {
	if s.changed != nil {
		return *s.changed
	}
	return s.p.Config()
}

// setConfig changes the configuration with this txg.
func (s *pass) setConfig(c Config) {
	s.changed = &c
	s.batch.Put(meta.Config, []byte(keyConfig), c.pack(s.p.guid))
	s.after = append(s.after, func() { s.p.config.Store(&c) })
}

// noteFeatures has the configuration name what a changed entry needs to be understood.
func (s *pass) noteFeatures() {
	c := s.config()
	for _, e := range s.entries {
		if e != nil && (e.holdsFiles() || e.props != nil) && !c.datasets {
			c.datasets = true
			s.setConfig(c)
		}
	}
}

// readOnly returns why nothing may change, or nil.
func (p *Pool) readOnly() error {
	if err := p.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// stop makes the pool read-only. What was flushed is in the log.
func (p *Pool) stop(cause error) {
	err := fmt.Errorf("%w: %w", ErrNeedsCheck, cause)
	p.failure.CompareAndSwap(nil, &err)
	p.catalogue.unclaimAll()
	p.events.add(Event{Kind: EventFailed, Text: err.Error()})
}

// alarm reports what must not happen: the books of the pool in memory do not fit.
// What is on disk is as it was; opening the pool anew reads it.
func (p *Pool) alarm(err error) {
	p.events.add(Event{Kind: EventFailed, Text: err.Error()})
	wrapped := fmt.Errorf("%w: %w", ErrNeedsCheck, err)
	p.failure.CompareAndSwap(nil, &wrapped)
}

// flush makes what is in the log durable, and what the log points to.
func (p *Pool) flush(ctx context.Context) error {
	if p.log == nil {
		return p.readOnly() // opened for reading only
	}
	return p.log.Flush(ctx)
}

// Close makes everything durable and lets go of the devices. Open volumes end:
// their methods fail with [ErrClosed].
func (p *Pool) Close() error {
	err := ErrClosed
	p.closing.Do(func() {
		p.jobs.end()
		closed := error(ErrClosed)
		p.failure.CompareAndSwap(nil, &closed) // no changes from here on
		close(p.quit)
		<-p.stopped
		err = nil
		if cause := p.readOnly(); cause != nil && !errors.Is(cause, ErrClosed) {
			err = cause
		}
		err = errors.Join(err, p.letGo())
	})
	return err
}

// Abandon lets go of the devices without making anything durable that is not, as
// a crash of the process would.
func (p *Pool) Abandon() {
	p.closing.Do(func() {
		closed := error(ErrClosed)
		p.failure.CompareAndSwap(nil, &closed)
		p.abandoned.Store(true)
		p.jobs.end()
		close(p.quit)
		<-p.stopped
		p.letGo()
	})
}

// letGo closes what is open. The sync goroutine has ended, or never ran.
func (p *Pool) letGo() error {
	var errs []error
	p.closed.Store(true)
	p.epochs.close()
	p.readCache.close()
	if p.meta != nil {
		errs = append(errs, p.meta.Close())
	}
	for _, d := range p.devices.all() {
		if d.dev != nil {
			errs = append(errs, d.dev.Close())
		}
	}
	return errors.Join(errs...)
}
