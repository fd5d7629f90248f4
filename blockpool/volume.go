package blockpool

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// volume is the pool's own side of a volume or snapshot: one for each entry of
// the catalogue, however many handles are open.
type volume struct {
	pool *Pool
	id   uint64

	mu      sync.RWMutex
	open    *dirty // changes in the open txg; nil: none
	syncing *dirty // changes in the txg that is being made durable; nil: none

	// entry is what is committed; it is replaced, never changed. Who needs it
	// together with the dirty state takes it under Pool.view.
	entry atomic.Pointer[entry]

	pending branch        // bytes that were admitted and are not committed, and its place among others
	shared  atomic.Uint64 // txg of the newest snapshot or clone: what was written up to it is shared with that
	handles atomic.Int64

	watchers watchers

	claimed bool // nobody may open it until the txg that changes it is durable; guarded by catalogue.mu
}

// A Volume is an open volume or snapshot. Its methods may be called side by
// side. A change is atomic per record: who reads at the same time sees a record
// before it or after it.
type Volume struct {
	v      *volume
	closed atomic.Bool
}

var (
	_ io.ReaderAt = (*Volume)(nil)
	_ io.WriterAt = (*Volume)(nil)
	_ io.Closer   = (*Volume)(nil)
)

// Open opens the volume or snapshot of that name, VOLUME or VOLUME@SNAPSHOT. It
// fails with [ErrNotFound], or with [ErrBusy] while it is being received.
func (p *Pool) Open(name string) (*Volume, error) {
	v, err := p.catalogue.hold(name)
	if err == nil && v.entry.Load().content != contentBytes {
		v.handles.Add(-1)
		err = invalidf("it is a dataset and no volume")
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return &Volume{v: v}, nil
}

// Close gives the handle back. It does not flush.
func (v *Volume) Close() error {
	if v.closed.Swap(true) {
		return ErrClosed
	}
	v.v.watchers.unwatch(v)
	v.v.handles.Add(-1)
	return nil
}

// Name returns the name as it is now.
func (v *Volume) Name() string { return v.v.entry.Load().name }

// Size returns the virtual size in bytes.
func (v *Volume) Size() int64 { return v.v.entry.Load().size }

// RecordSize returns the unit of allocation and of atomic change, in bytes.
func (v *Volume) RecordSize() int { return int(v.v.entry.Load().recordSize) }

// ReadOnly reports whether it is a snapshot, or the pool can only be read.
func (v *Volume) ReadOnly() bool {
	return v.v.entry.Load().kind == KindSnapshot || v.v.pool.readOnly() != nil
}

// Stat returns what the pool knows of it, changes that are not yet durable
// aside.
func (v *Volume) Stat() VolumeInfo { return v.v.info() }

// ReadAt implements [io.ReaderAt]. What was never written reads as zeros. It
// fails with [ErrDamaged] where no copy fits its checksum.
func (v *Volume) ReadAt(p []byte, off int64) (int, error) {
	if err := v.usable(); err != nil {
		return 0, v.failed("read", err)
	}
	if off < 0 {
		return 0, v.failed("read", invalidf("offset %d", off))
	}
	n := int64(len(p))
	if left := max(v.Size()-off, 0); n > left {
		n = left
	}
	done, err := v.v.read(p[:n], off)
	if err != nil {
		return done, v.failed("read", err)
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// WriteAt implements [io.WriterAt]; it is [Volume.Write] without a context.
func (v *Volume) WriteAt(p []byte, off int64) (int, error) {
	return v.Write(context.Background(), p, off)
}

// Write stores p at off. It returns when the change is in the intent log: it
// survives the end of the process, and with the next [Volume.Flush] a crash of
// the machine. It waits while the pool is busy writing out what came before,
// and, where the pool's policy is [FullQueue], for space; ctx ends the wait.
//
// It fails with [ErrInvalid] beyond the volume's size, [ErrNoSpace], [ErrQuota]
// or [ErrReadOnly]. The records before the one that failed are changed; n tells
// how many bytes that are.
func (v *Volume) Write(ctx context.Context, p []byte, off int64) (n int, err error) {
	if err := v.changeable(off, int64(len(p))); err != nil {
		return 0, v.failed("write", err)
	}
	n, err = v.v.write(ctx, p, off)
	v.v.watchers.changed(v, off, int64(len(p)))
	if err != nil {
		return n, v.failed("write", err)
	}
	return n, nil
}

// Discard gives the records that lie wholly within n bytes from off back to the
// pool and makes all n bytes read as zeros.
func (v *Volume) Discard(ctx context.Context, off, n int64) error {
	if err := v.changeable(off, n); err != nil {
		return v.failed("discard", err)
	}
	err := v.v.zero(ctx, off, n)
	v.v.watchers.changed(v, off, n)
	if err != nil {
		return v.failed("discard", err)
	}
	return nil
}

// Zero makes n bytes from off read as zeros. It takes no space.
func (v *Volume) Zero(ctx context.Context, off, n int64) error {
	if err := v.changeable(off, n); err != nil {
		return v.failed("zero", err)
	}
	err := v.v.zero(ctx, off, n)
	v.v.watchers.changed(v, off, n)
	if err != nil {
		return v.failed("zero", err)
	}
	return nil
}

// Flush returns when everything that was written before survives a crash of the
// machine. Calls that come together share one flush of the devices.
func (v *Volume) Flush(ctx context.Context) error {
	if err := v.usable(); err != nil {
		return v.failed("flush", err)
	}
	if err := v.v.pool.flush(ctx); err != nil {
		return v.failed("flush", err)
	}
	return nil
}

// usable refuses a closed handle, and one of a closed pool.
func (v *Volume) usable() error {
	if v.closed.Load() || v.v.pool.closed.Load() {
		return ErrClosed
	}
	return nil
}

// changeable refuses a change that cannot be.
func (v *Volume) changeable(off, n int64) error {
	if err := v.usable(); err != nil {
		return err
	}
	if err := v.v.pool.readOnly(); err != nil {
		return err
	}
	e := v.v.entry.Load()
	if e.kind == KindSnapshot {
		return fmt.Errorf("a snapshot is %w", ErrReadOnly)
	}
	if off < 0 || n < 0 || off > e.size || n > e.size-off {
		return invalidf("%d bytes at %d of a volume of %d", n, off, e.size)
	}
	return nil
}

// failed says what was done to which volume.
func (v *Volume) failed(op string, err error) error {
	return fmt.Errorf("%s %s: %w", op, v.Name(), err)
}
