package blockpool

import (
	"cmp"
	"errors"
	"math"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/btree"
)

// How much of a map one look at it covers: few records at first, since most runs
// are short, then twice as many each time. mapItems bounds what a look costs and so
// how long it keeps an epoch.
const (
	mapFirst = 64
	mapItems = 16 << 10
)

// Allocated tells whether the bytes from off on are a hole, and how many of them
// are alike: at least 1, at most n. What was written or discarded and is not yet
// durable counts. A record is a hole or data as a whole, so a hole reads as zeros,
// and data may. It fails with [ErrInvalid] at or behind the volume's end.
func (v *Volume) Allocated(off, n int64) (length int64, hole bool, err error) {
	e := v.v.entry.Load()
	switch {
	case v.usable() != nil:
		return 0, false, v.failed("map", ErrClosed)
	case off < 0 || n <= 0 || off >= e.size:
		return 0, false, v.failed("map", invalidf("%d bytes at %d of a volume of %d", n, off, e.size))
	}
	n = min(n, e.size-off)
	first, last := uint64(off/e.recordSize), uint64((off+n-1)/e.recordSize)
	end, hole, err := v.v.run(first, last+1)
	if err != nil {
		return 0, false, v.failed("map", err)
	}
	if end > last {
		return n, hole, nil
	}
	return int64(end)*e.recordSize - off, hole, nil
}

// run returns how far from record first on, and at most to end, records are holes,
// or are not.
func (v *volume) run(first, end uint64) (to uint64, hole bool, err error) {
	to = first
	for window := uint64(mapFirst); to < end; window = wider(window) {
		data, next, err := v.mapped(to, min(end, to+min(window, end-to)))
		if err != nil {
			return 0, false, err
		}
		is, until := true, next
		switch {
		case len(data) > 0 && data[0].first == to:
			is, until = false, data[0].end
		case len(data) > 0:
			until = data[0].first
		}
		if to > first && is != hole {
			break
		}
		to, hole = until, is
		if until < next {
			break
		}
	}
	return to, hole, nil
}

// wider returns how many records the look after one at window records covers.
func wider(window uint64) uint64 { return min(2*window, 1<<40) }

// mapped returns which of the records first to end-1 are no holes. When those are
// many it stops early, at next.
func (v *volume) mapped(first, end uint64) (data spans, next uint64, err error) {
	layers, s := v.changedIn(first, end)
	defer s.release()
	var tree []layer
	items := 0
	next = end
	err = btree.Scan(s.epoch, s.entry.root, recordKey(first), recordKey(end), func(key, _ []byte) error {
		n, err := parseKey64(key)
		if err != nil {
			return err
		}
		if items++; items > mapItems {
			next = n
			return errEnough
		}
		if last := len(tree) - 1; last >= 0 && tree[last].end == n {
			tree[last].end++
		} else {
			tree = append(tree, layer{span{n, n + 1}, false})
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, 0, err
	}
	for _, l := range over(layers, tree) {
		if from, to := l.first, min(l.end, next); !l.hole && from < to {
			data.add(from, to)
		}
	}
	return data, next, nil
}

// changedIn returns what is not committed of the records first to end-1, and what
// the rest stands on.
func (v *volume) changedIn(first, end uint64) ([]layer, stand) {
	v.pool.view.RLock()
	defer v.pool.view.RUnlock()
	v.mu.RLock()
	defer v.mu.RUnlock()
	s := stand{epoch: v.pool.epochs.hold(), entry: v.entry.Load()}
	return over(v.open.layer(first, end), v.syncing.layer(first, end)), s
}

// A layer is records that are known to be a hole, or not to be.
type layer struct {
	span
	hole bool
}

// layer returns what d knows of the records first to end-1, in order.
func (d *dirty) layer(first, end uint64) []layer {
	if d == nil {
		return nil
	}
	var holes, records []layer
	for _, h := range d.holes.within(first, end) {
		holes = append(holes, layer{h, true})
	}
	if end-first < uint64(len(d.records)) {
		for n := first; n < end; n++ {
			if d.records[n] != nil {
				records = append(records, layer{span{n, n + 1}, false})
			}
		}
	} else {
		for n := range d.records {
			if n >= first && n < end {
				records = append(records, layer{span{n, n + 1}, false})
			}
		}
		slices.SortFunc(records, func(a, b layer) int { return cmp.Compare(a.first, b.first) })
	}
	return over(records, holes)
}

// within returns the parts of the spans that lie from first to end-1.
func (s spans) within(first, end uint64) (part spans) {
	i, _ := slices.BinarySearchFunc(s, first, func(a span, n uint64) int {
		if a.end <= n {
			return -1
		}
		return 1
	})
	for ; i < len(s) && s[i].first < end; i++ {
		part = append(part, span{max(s[i].first, first), min(s[i].end, end)})
	}
	return part
}

// over returns what top says, and where it says nothing what bottom does. Both are
// in order and free of overlaps, as is the result.
func over(top, bottom []layer) (out []layer) {
	if len(top) == 0 {
		return bottom
	}
	at, i := uint64(0), 0
	fill := func(until uint64) {
		for ; i < len(bottom) && bottom[i].first < until; i++ {
			if from, to := max(bottom[i].first, at), min(bottom[i].end, until); from < to {
				out = append(out, layer{span{from, to}, bottom[i].hole})
			}
			if bottom[i].end > until {
				return // the rest of it may lie behind what comes next
			}
		}
	}
	for _, t := range top {
		fill(t.first)
		out = append(out, t)
		at = t.end
	}
	fill(math.MaxUint64)
	return out
}
