package blockpool

import (
	"bytes"
	"context"
)

// Trim looks for records of zeros, makes them holes and returns how many bytes of
// records those were. What snapshots or clones name too stays in use for them. It
// reads all of the volume, in steps; writes go on meanwhile.
func (v *Volume) Trim(ctx context.Context) (freed int64, err error) {
	if err := v.changeable(0, 0); err != nil {
		return 0, v.failed("trim", err)
	}
	if freed, err = v.v.trim(ctx); err != nil {
		return freed, v.failed("trim", err)
	}
	return freed, nil
}

func (v *volume) trim(ctx context.Context) (freed int64, err error) {
	e := v.entry.Load()
	size := e.recordSize
	buf := make([]byte, max(maxRun, size))
	for next, window := uint64(0), uint64(mapFirst); next < e.records(); window = wider(window) {
		var data spans
		data, next, err = v.mapped(next, min(e.records(), next+min(window, e.records()-next)))
		if err != nil {
			return freed, err
		}
		for _, s := range data {
			for first := s.first; first < s.end; {
				end := min(s.end, first+uint64(len(buf))/uint64(size))
				n, err := v.trimRun(ctx, first, buf[:int64(end-first)*size], size)
				freed += n
				if err != nil {
					return freed, err
				}
				first = end
			}
		}
	}
	return freed, nil
}

// trimRun makes the records of zeros among those from first on, as many as b holds,
// holes.
func (v *volume) trimRun(ctx context.Context, first uint64, b []byte, size int64) (freed int64, err error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	if err := v.readRun(first, b, size); err != nil {
		return 0, err
	}
	count := uint64(int64(len(b)) / size)
	zero := func(i uint64) bool { return isZero(b[int64(i)*size:][:size]) }
	for i := uint64(0); i < count; i++ {
		from := i
		for i < count && zero(i) {
			i++
		}
		if from == i {
			continue
		}
		n, err := v.trimZeros(ctx, first+from, first+i, b[int64(from)*size:int64(i)*size], size)
		freed += n
		if err != nil {
			return freed, err
		}
	}
	return freed, nil
}

// trimZeros makes records first to end-1 holes if they are still zeros, now that
// nobody can change them. b is a buffer for them.
func (v *volume) trimZeros(ctx context.Context, first, end uint64, b []byte, size int64) (freed int64, err error) {
	if err := v.pool.throttle(ctx); err != nil {
		return 0, err
	}
	unlock := v.pool.locks.lock(v.id, first, end)
	defer unlock()
	if err := v.readRun(first, b, size); err != nil || !isZero(b) {
		return 0, err
	}
	data, _, err := v.mapped(first, end)
	if err != nil {
		return 0, err
	}
	if err := v.cut(ctx, first, end, size); err != nil {
		return 0, err
	}
	for _, s := range data {
		freed += int64(s.end-s.first) * size
	}
	return freed, nil
}

// isZero reports whether all bytes are zero.
func isZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}
