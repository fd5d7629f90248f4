package memdev

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/vdev"
)

// A Device is one device of a [Journal]. What users of a device see of it is
// [vdev.Device]; the other methods are for the test.
type Device struct {
	journal *Journal
	path    string
	index   int
	faults  faults

	// Guarded by journal.mu.
	live    *image // what reads see
	durable *image // what the last Sync left for certain
	pending []int  // entries since then, when recorded
	open    bool
	pulled  bool
	failed  error // of the first Sync that failed since it was opened
}

var _ vdev.Device = (*Device)(nil)

// Path returns the name that the device was created with.
func (d *Device) Path() string { return d.path }

// Size returns the length in bytes.
func (d *Device) Size() int64 {
	d.journal.mu.RLock()
	defer d.journal.mu.RUnlock()
	return d.live.size
}

// ReadAt reads as vdev.Device says. A Drop fault leaves p as it is.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	f := d.fault(Reads)
	if f.Err != nil {
		return 0, d.failure("read", off, f.Err)
	}
	d.journal.mu.RLock()
	defer d.journal.mu.RUnlock()
	if err := d.usableLocked(); err != nil {
		return 0, d.failure("read", off, err)
	}
	if f.Drop {
		return len(p), nil
	}
	if moved := off + f.Shift; vdev.InRange(moved, int64(len(p)), d.live.size) {
		off = moved
	}
	switch {
	case off < 0:
		return 0, d.failure("read", off, os.ErrInvalid)
	case off >= d.live.size:
		if len(p) == 0 {
			return 0, nil
		}
		return 0, d.failure("read", off, io.ErrUnexpectedEOF)
	}
	n := min(int64(len(p)), d.live.size-off)
	d.live.read(p[:n], off)
	if n < int64(len(p)) {
		return int(n), d.failure("read", off, io.ErrUnexpectedEOF)
	}
	return int(n), nil
}

// WriteAt writes as vdev.Device says.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	f := d.fault(Writes)
	if f.Err != nil && f.Short == 0 {
		return 0, d.failure("write", off, f.Err)
	}
	data := bytes.Clone(p)
	if f.Err != nil {
		data = data[:min(f.Short, len(data))]
	}
	d.journal.mu.Lock()
	defer d.journal.mu.Unlock()
	if err := d.usableLocked(); err != nil {
		return 0, d.failure("write", off, err)
	}
	if !vdev.InRange(off, int64(len(p)), d.live.size) {
		return 0, d.failure("write", off, vdev.ErrBeyondEnd)
	}
	if moved := off + f.Shift; vdev.InRange(moved, int64(len(p)), d.live.size) {
		off = moved
	}
	if !f.Drop {
		d.live.write(off, data)
		d.changedLocked(Entry{Kind: Write, Off: off, Len: int64(len(data)), Data: data})
	}
	if f.Err != nil {
		return len(data), d.failure("write", off, f.Err)
	}
	return len(p), nil
}

// Sync makes durable what was written. Once it has failed it fails until the
// device is closed and opened again.
func (d *Device) Sync() error {
	f := d.fault(Syncs)
	d.journal.mu.Lock()
	defer d.journal.mu.Unlock()
	err := d.usableLocked()
	switch {
	case d.failed != nil:
		return fmt.Errorf("sync %s: %w since an earlier failure: %w", d.path, vdev.ErrSyncFailed, d.failed)
	case err == nil:
		err = f.Err
	}
	if err != nil {
		d.failed = err
		return fmt.Errorf("sync %s: %w: %w", d.path, vdev.ErrSyncFailed, err)
	}
	if f.Drop {
		d.addLocked(Entry{Kind: Lie})
		return nil
	}
	d.durable, d.pending = d.live.fork(), nil
	d.addLocked(Entry{Kind: Sync})
	return nil
}

// Discard makes n bytes at off zeros.
func (d *Device) Discard(off, n int64) error {
	f := d.fault(Discards)
	if f.Err != nil {
		return d.failure("discard", off, f.Err)
	}
	d.journal.mu.Lock()
	defer d.journal.mu.Unlock()
	if err := d.usableLocked(); err != nil {
		return d.failure("discard", off, err)
	}
	if !vdev.InRange(off, n, d.live.size) {
		return d.failure("discard", off, vdev.ErrBeyondEnd)
	}
	if !f.Drop {
		d.live.zero(off, n)
		d.changedLocked(Entry{Kind: Discard, Off: off, Len: n})
	}
	return nil
}

// Grow makes the device longer. Like a write it is durable after the next Sync.
func (d *Device) Grow(size int64) error {
	d.journal.mu.Lock()
	defer d.journal.mu.Unlock()
	if err := d.usableLocked(); err != nil {
		return d.failure("grow", size, err)
	}
	if size < d.live.size {
		return fmt.Errorf("grow %s: it has %d bytes already, more than %d", d.path, d.live.size, size)
	}
	d.live.size = size
	d.changedLocked(Entry{Kind: Grow, Len: size})
	return nil
}

// Close closes the device; [Journal.Open] opens it again.
func (d *Device) Close() error {
	d.journal.mu.Lock()
	defer d.journal.mu.Unlock()
	d.open = false
	return nil
}

// Pull unplugs the device: every operation fails with EIO until [Device.Return],
// and a Sync that failed so far or fails now keeps failing until the device is
// opened again. With seed 0 it keeps all that was written; with another one it
// loses what a power failure with that seed would lose, if its host records.
func (d *Device) Pull(seed uint64) {
	d.journal.mu.Lock()
	defer d.journal.mu.Unlock()
	d.pulled = true
	if seed == 0 || !d.journal.recording {
		return
	}
	left := d.durable.fork()
	settle(left, d.pending, d.journal.entries, newRand(seed, uint64(d.index)))
	d.live, d.durable, d.pending = left.fork(), left, nil
	d.addLocked(Entry{Kind: Pulled, image: left.fork()})
}

// Return plugs a pulled device in again.
func (d *Device) Return() {
	d.journal.mu.Lock()
	defer d.journal.mu.Unlock()
	d.pulled = false
}

// Peek returns n bytes at off, whatever the state of the device.
func (d *Device) Peek(off, n int64) []byte {
	d.journal.mu.RLock()
	defer d.journal.mu.RUnlock()
	b := make([]byte, n)
	d.live.read(b, off)
	return b
}

// Poke changes bytes at rest, behind the back of whoever uses the device: they
// are durable at once. It panics for a range beyond the end.
func (d *Device) Poke(off int64, data []byte) {
	d.journal.mu.Lock()
	defer d.journal.mu.Unlock()
	d.pokeLocked(off, bytes.Clone(data))
}

// Zero makes n bytes at off zeros, as [Device.Poke] does.
func (d *Device) Zero(off, n int64) { d.Poke(off, make([]byte, n)) }

// Scribble replaces n bytes at off by random ones, as [Device.Poke] does.
func (d *Device) Scribble(seed uint64, off, n int64) {
	b, rng := make([]byte, n), newRand(seed, 0)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	d.Poke(off, b)
}

// FlipBits inverts count different bits among the n bytes at off, as
// [Device.Poke] does.
func (d *Device) FlipBits(seed uint64, off, n int64, count int) {
	d.journal.mu.Lock()
	defer d.journal.mu.Unlock()
	b, rng, flipped := make([]byte, n), newRand(seed, 0), map[int64]bool{}
	d.live.read(b, off)
	for len(flipped) < min(count, int(n)*8) {
		if bit := rng.Int64N(n * 8); !flipped[bit] {
			flipped[bit] = true
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
	d.pokeLocked(off, b)
}

// Used returns how much memory the content of the device takes, in bytes: pages
// that were written and not discarded.
func (d *Device) Used() int64 {
	d.journal.mu.RLock()
	defer d.journal.mu.RUnlock()
	return d.live.used()
}

func (d *Device) pokeLocked(off int64, data []byte) {
	if !vdev.InRange(off, int64(len(data)), d.live.size) {
		panic(fmt.Sprintf("memdev: damage of [%d, %d) beyond the end of %s", off, off+int64(len(data)), d.path))
	}
	d.live.write(off, data)
	d.durable.write(off, data)
	d.addLocked(Entry{Kind: Damage, Off: off, Len: int64(len(data)), Data: data})
}

// changedLocked enters what the next Sync makes durable.
func (d *Device) changedLocked(e Entry) {
	if d.journal.recording {
		d.pending = append(d.pending, len(d.journal.entries))
	}
	d.addLocked(e)
}

func (d *Device) addLocked(e Entry) {
	e.Path, e.device = d.path, d.index
	d.journal.addLocked(e)
}

func (d *Device) usableLocked() error {
	switch {
	case !d.open:
		return os.ErrClosed
	case d.pulled:
		return unix.EIO
	}
	return nil
}

func (d *Device) failure(op string, off int64, err error) error {
	return fmt.Errorf("%s %s at %d: %w", op, d.path, off, err)
}

func newRand(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }
