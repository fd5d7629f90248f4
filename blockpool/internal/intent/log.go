package intent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// An Area is where a log lies: a fixed range of bytes, redundant if the pool
// is. Its errors mean that no copy took the write, or that a sync may have lost
// something.
type Area interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Sync makes durable what was written before it began, here and in other
	// places that records of the log point to.
	Sync(ctx context.Context) error
	Size() int64
}

const (
	segments  = 3
	blockSize = 4096

	// MaxPayload bounds a record, in bytes. A small area may take less.
	MaxPayload = 1 << 20
)

// Errors that callers tell apart.
var (
	// ErrFull says that a transaction group has no more room in its segment.
	// The caller goes on in the next group.
	ErrFull = errors.New("the segment of the transaction group is full")
	// ErrBusy says that the segment still has a group that is not committed.
	ErrBusy = errors.New("the segment holds a transaction group that is not committed")
	// ErrTooLarge says that a payload does not fit into an empty segment.
	ErrTooLarge = errors.New("too large for the log")
)

// segmentSize returns the size of each segment of an area.
func segmentSize(a Area) (int64, error) {
	size := a.Size() / segments / blockSize * blockSize
	if size < 2*blockSize {
		return 0, fmt.Errorf("intent: an area of %d bytes, less than %d", a.Size(), segments*2*blockSize)
	}
	return size, nil
}

// Capacity returns how many bytes of records a transaction group can append to
// a log in an area, headers included.
func Capacity(a Area) int64 {
	size, err := segmentSize(a)
	if err != nil {
		return 0
	}
	return size - blockSize
}

// Format makes an empty log. It overwrites all of the area, since to sync
// blocks that exist costs a fraction of allocating them first.
func Format(ctx context.Context, a Area) error {
	if _, err := segmentSize(a); err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < a.Size(); off += int64(len(zeros)) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("intent: format: %w", err)
		}
		if _, err := a.WriteAt(zeros[:min(int64(len(zeros)), a.Size()-off)], off); err != nil {
			return fmt.Errorf("intent: format at %d: %w", off, err)
		}
	}
	if err := a.Sync(ctx); err != nil {
		return fmt.Errorf("intent: format: %w", err)
	}
	return nil
}

// A Log takes records. Its methods may be called from several goroutines.
type Log struct {
	area    Area
	pool    uint64
	segment int64 // size of one

	mu        sync.Mutex
	committed uint64 // groups up to here are not needed any more
	txg       uint64 // that is appended to
	seq       uint64 // of its next record
	off       int64  // of its next record, within the segment
	buf       []byte
	failed    error  // why there can be no append and no flush, nil if there can
	appended  uint64 // records so far, of all groups
	synced    uint64 // those known to be durable

	// Flushing. See flush.go.
	running  bool
	waiting  *round
	lastEnd  time.Time     // when the last sync ended
	lastTook time.Duration // how long it took
	expect   int           // how many are likely to wait for the next
}

// Open returns a log that goes on behind transaction group committed. All that
// the area holds is given up, so what [Replay] has returned must have been
// committed before, with a number not below the last that it saw.
func Open(a Area, guid [16]byte, committed uint64) (*Log, error) {
	size, err := segmentSize(a)
	if err != nil {
		return nil, err
	}
	return &Log{area: a, pool: poolHash(guid), segment: size, committed: committed, txg: committed + 1}, nil
}

// A Position says where a record is.
type Position struct {
	Txg, Seq uint64
	Payload  int64 // where in the area its payload begins
}

// Append writes a record to the segment of its transaction group. When it
// returns, the record survives the process but not the machine; that is for
// [Log.Flush]. Records are replayed in the order of their appends.
//
// Groups follow each other without gaps: txg is that of the last append or a
// later one, above which nothing was appended before. The error is ErrFull when
// the segment has no room and ErrBusy when the group that had it is not
// committed. After a failed write every append and flush fails.
func (l *Log) Append(txg uint64, kind Kind, payload []byte) (Position, error) {
	if len(payload) > MaxPayload || recordSize(len(payload)) > l.segment-blockSize {
		return Position{}, fmt.Errorf("intent: a payload of %d bytes: %w", len(payload), ErrTooLarge)
	}
	if kind == 0 || kind == end {
		return Position{}, fmt.Errorf("intent: append of kind %d", kind)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.reachLocked(txg); err != nil {
		return Position{}, err
	}
	// The last block is kept for the End record.
	if l.off+recordSize(len(payload)) > l.segment-blockSize {
		return Position{}, fmt.Errorf("intent: txg %d after %d records: %w", txg, l.seq, ErrFull)
	}
	return l.writeLocked(kind, payload)
}

// reachLocked makes txg the group that is appended to, and ends those before.
func (l *Log) reachLocked(txg uint64) error {
	switch {
	case l.failed != nil:
		return l.failed
	case txg <= l.committed:
		return fmt.Errorf("intent: append to txg %d, when %d is committed", txg, l.committed)
	case txg < l.txg:
		return fmt.Errorf("intent: append to txg %d, when %d has begun", txg, l.txg)
	case txg-l.committed > segments:
		return fmt.Errorf("intent: append to txg %d, when %d is committed: %w", txg, l.committed, ErrBusy)
	}
	for l.txg < txg {
		if l.txg > l.committed && !mutant.Breaks(mutant.EndOfGroup) {
			if _, err := l.writeLocked(end, nil); err != nil {
				return err
			}
		}
		l.txg, l.seq, l.off = l.txg+1, 0, 0
	}
	return nil
}

// writeLocked writes a record that fits.
func (l *Log) writeLocked(kind Kind, payload []byte) (Position, error) {
	l.buf = appendRecord(l.buf[:0], header{pool: l.pool, txg: l.txg, seq: l.seq, kind: kind}, payload)
	at := segmentOf(l.txg, l.segment) + l.off
	if mutant.Breaks(mutant.LogBeforeAcknowledge) && l.seq%8 == 7 {
		at += l.segment / 2 // nowhere
	}
	if _, err := l.area.WriteAt(l.buf, at); err != nil {
		l.failed = fmt.Errorf("intent: write of record %d of txg %d: %w", l.seq, l.txg, err)
		return Position{}, l.failed
	}
	pos := Position{Txg: l.txg, Seq: l.seq, Payload: at + headerSize}
	l.off += int64(len(l.buf))
	l.seq++
	l.appended++
	return pos, nil
}

func segmentOf(txg uint64, size int64) int64 { return int64(txg%segments) * size }

// Release says that transaction groups up to txg are committed: their records
// are not needed any more and their segments can be used.
func (l *Log) Release(txg uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.committed = max(l.committed, txg)
}

// Room returns how many bytes of records still fit for the group that was
// appended to last; each payload takes its size and about 50 bytes.
func (l *Log) Room() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, l.segment-blockSize-l.off)
}
