package intent

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// A Copier is an [Area] that keeps several copies. Where what it reads is not
// whole, Replay looks at each copy.
type Copier interface {
	Copies() int
	ReadCopyAt(copy int, p []byte, off int64) (int, error)
}

// Replay calls f with each record of the groups behind committed, in order. It
// stops at the first record that is not whole; all that was ever flushed comes
// before it. The payload is valid until f returns. An error of f ends the
// replay and is returned.
//
// It also returns the highest txg that any header in the area has, committed if
// there is none above: the pool must not use a number up to it for a new group.
// To find it, all of the area is read.
//
// An area that cannot be read is an error: to go on without it would lose what
// was flushed.
func Replay(a Area, guid [16]byte, committed uint64, f func(txg uint64, kind Kind, payload []byte) error) (last uint64, err error) {
	r, err := newReplayer(a, guid)
	if err != nil {
		return 0, err
	}
	if last, err = r.highest(committed); err != nil {
		return 0, err
	}
	return last, r.groups(committed, f)
}

// ReplayAgain is [Replay] for who knows the highest txg from it already: it reads
// no more than the records.
func ReplayAgain(a Area, guid [16]byte, committed uint64, f func(txg uint64, kind Kind, payload []byte) error) error {
	r, err := newReplayer(a, guid)
	if err != nil {
		return err
	}
	return r.groups(committed, f)
}

func newReplayer(a Area, guid [16]byte) (*replayer, error) {
	size, err := segmentSize(a)
	if err != nil {
		return nil, err
	}
	r := &replayer{area: a, pool: poolHash(guid), segment: size}
	r.copier, _ = a.(Copier)
	return r, nil
}

// groups replays the groups behind committed.
func (r *replayer) groups(committed uint64, f func(uint64, Kind, []byte) error) error {
	for txg := committed + 1; txg-committed <= segments; txg++ {
		if ended, err := r.group(txg, f); err != nil || !ended {
			return err
		}
	}
	return nil
}

type replayer struct {
	area    Area
	copier  Copier
	pool    uint64
	segment int64
	buf     []byte
}

// group replays one transaction group and reports whether its End was reached.
func (r *replayer) group(txg uint64, f func(uint64, Kind, []byte) error) (ended bool, err error) {
	off := int64(0)
	for seq := uint64(0); ; seq++ {
		// A flush before the record has moved it to the next block.
		h, payload, err := r.record(txg, seq, off)
		if err == nil && payload == nil {
			off = alignUp(off, blockSize)
			h, payload, err = r.record(txg, seq, off)
		}
		switch {
		case err != nil:
			return false, err
		case payload == nil:
			return false, nil
		case h.kind == end:
			return true, nil
		}
		if err := f(txg, h.kind, payload); err != nil {
			return false, fmt.Errorf("intent: replay of record %d of txg %d: %w", seq, txg, err)
		}
		off += h.size()
	}
}

// record returns record seq of a group if it is at off and whole; payload is
// nil if not.
func (r *replayer) record(txg, seq uint64, off int64) (header, []byte, error) {
	h, payload, err := r.read(txg, seq, off, r.area.ReadAt)
	if err != nil {
		return header{}, nil, fmt.Errorf("intent: read of record %d of txg %d: %w", seq, txg, err)
	}
	if payload != nil || r.copier == nil {
		return h, payload, nil
	}
	for i := range r.copier.Copies() {
		h, payload, err := r.read(txg, seq, off, func(p []byte, off int64) (int, error) { return r.copier.ReadCopyAt(i, p, off) })
		if err == nil && payload != nil { // a copy that cannot be read proves nothing
			return h, payload, nil
		}
	}
	return header{}, nil, nil
}

func (r *replayer) read(txg, seq uint64, off int64, readAt func([]byte, int64) (int, error)) (header, []byte, error) {
	if off+headerSize > r.segment {
		return header{}, nil, nil
	}
	at := segmentOf(txg, r.segment) + off
	var head [headerSize]byte
	if err := readFull(readAt, head[:], at); err != nil {
		return header{}, nil, err
	}
	h, ok := parseHeader(head[:], r.pool)
	if !ok || h.txg != txg || h.seq != seq || h.length > MaxPayload || off+h.size() > r.segment {
		return header{}, nil, nil
	}
	if cap(r.buf) < int(h.length) || r.buf == nil {
		r.buf = make([]byte, max(64<<10, h.length))
	}
	payload := r.buf[:h.length]
	if err := readFull(readAt, payload, at+headerSize); err != nil {
		return header{}, nil, err
	}
	if !h.whole(payload) && !mutant.Breaks(mutant.WholeRecords) {
		return header{}, nil, nil
	}
	return h, payload, nil
}

func readFull(readAt func([]byte, int64) (int, error), p []byte, off int64) error {
	n, err := readAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%d bytes at %d: %w", len(p), off, err)
}

// highest returns the highest txg of all headers in the area. Unsynced writes
// may have reached the disk in any order, so a header may be anywhere.
func (r *replayer) highest(committed uint64) (uint64, error) {
	highest := committed
	scan := func(b []byte) {
		for off := 0; ; off++ {
			i := bytes.Index(b[off:], recordMagic[:])
			if i < 0 || off+i+headerSize > len(b) {
				return
			}
			off += i
			if h, ok := parseHeader(b[off:], r.pool); ok {
				highest = max(highest, h.txg)
			}
		}
	}
	const step = 1 << 20
	buf := make([]byte, step+headerSize)
	total := r.segment * segments
	for off := int64(0); off < total; off += step {
		b := buf[:min(int64(len(buf)), total-off)]
		if err := r.readAll(b, off, scan); err != nil {
			return 0, fmt.Errorf("intent: %w", err)
		}
	}
	return highest, nil
}

// readAll reads a part of the area, each copy of it if there are several, and
// calls f with what it read. One copy must be readable.
func (r *replayer) readAll(b []byte, off int64, f func([]byte)) error {
	if r.copier == nil {
		if err := readFull(r.area.ReadAt, b, off); err != nil {
			return err
		}
		f(b)
		return nil
	}
	var errs []error
	whole := false
	for i := range r.copier.Copies() {
		n, err := r.copier.ReadCopyAt(i, b, off)
		f(b[:n])
		if n == len(b) {
			whole = true
		} else {
			errs = append(errs, fmt.Errorf("copy %d: %d bytes at %d: %w", i, len(b), off, cmp.Or(err, io.ErrUnexpectedEOF)))
		}
	}
	if whole {
		return nil
	}
	return errors.Join(errs...)
}
