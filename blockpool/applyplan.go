package blockpool

import (
	"cmp"
	"slices"
)

// A part is a change within one record, made in memory.
type part struct {
	n      uint64
	within int64
	data   []byte // nil: zeros
	zeros  int64
	fresh  *dirtyRecord // takes the place of what is in memory; nil: what is there will do
}

// need returns how long the record must be in memory. Zeros need nothing: what is
// not there is zeros.
func (c *part) need() int64 {
	if c.data == nil {
		return 0
	}
	return c.within + int64(len(c.data))
}

// writeTo makes the change in the record's bytes.
func (c *part) writeTo(buf []byte) {
	if c.data != nil {
		copy(buf[c.within:], c.data)
	} else if c.within < int64(len(buf)) {
		clear(buf[c.within:min(c.within+c.zeros, int64(len(buf)))])
	}
}

// A run is whole records in a row, which go to their place at once.
type run struct {
	n       uint64
	data    []byte
	records []*dirtyRecord
}

// plan finds out which records the batch changes, and how.
func (a *application) plan() error {
	for _, i := range a.batch.Items {
		if len(i.Key) > MaxItemKey || !isItem(i.Key) || len(i.Value) > MaxItemValue {
			return invalidf("item with a key of %d bytes, %.8x, and a value of %d", len(i.Key), i.Key, len(i.Value))
		}
	}
	for _, w := range a.batch.Writes {
		if err := a.checkRange(w.Object, w.Offset, int64(len(w.Data))); err != nil {
			return err
		}
		a.planWrite(w)
	}
	for _, z := range a.batch.Zeros {
		if z.Length == ToEnd {
			z.Length = a.size<<objectShift - z.Offset
		}
		if err := a.checkRange(z.Object, z.Offset, z.Length); err != nil {
			return err
		}
		if err := a.planZeros(z); err != nil {
			return err
		}
	}
	spans := a.spans()
	slices.SortFunc(spans, func(x, y span) int { return cmp.Compare(x.first, y.first) })
	for i := 1; i < len(spans); i++ {
		if spans[i].first < spans[i-1].end {
			return invalidf("batch that changes record %d of object %d twice", spans[i].first&(1<<objectShift-1), spans[i].first>>objectShift)
		}
	}
	return nil
}

func (a *application) checkRange(object uint64, off, n int64) error {
	if object == 0 || object > MaxObject || off < 0 || n < 0 || off > a.size<<objectShift-n {
		return invalidf("%d bytes at %d of object %d", n, off, object)
	}
	return nil
}

func (a *application) planWrite(w ObjectWrite) {
	for off, p := w.Offset, w.Data; len(p) > 0; {
		n, within := w.Object<<objectShift+uint64(off/a.size), off%a.size
		whole := min(int64(len(p)), maxRun) / a.size * a.size
		if within == 0 && whole >= writeThrough {
			a.runs = append(a.runs, &run{n: n, data: p[:whole]})
			off, p = off+whole, p[whole:]
			continue
		}
		some := min(int64(len(p)), a.size-within)
		a.parts = append(a.parts, &part{n: n, within: within, data: p[:some:some]})
		off, p = off+some, p[some:]
	}
}

// planZeros makes holes of whole records, and zeros of what is left at the edges,
// unless that is a hole already.
func (a *application) planZeros(z ObjectRange) error {
	base := z.Object << objectShift
	first, end := base+uint64((z.Offset+a.size-1)/a.size), base+uint64((z.Offset+z.Length)/a.size)
	edge := func(n uint64, within, until int64) error {
		if within >= until {
			return nil
		}
		hole, err := a.v.isHole(n)
		if err == nil && !hole {
			a.parts = append(a.parts, &part{n: n, within: within, zeros: until - within})
		}
		return err
	}
	last := (z.Offset + z.Length) % a.size
	if first > end {
		return edge(end, z.Offset%a.size, last)
	}
	if z.Offset%a.size != 0 {
		if err := edge(first-1, z.Offset%a.size, a.size); err != nil {
			return err
		}
	}
	if first < end {
		a.holes = append(a.holes, span{first, end})
	}
	return edge(end, 0, last)
}

// spans returns the records that the batch changes.
func (a *application) spans() []span {
	list := append([]span(nil), a.holes...)
	for _, c := range a.parts {
		list = append(list, span{c.n, c.n + 1})
	}
	for _, r := range a.runs {
		list = append(list, span{r.n, r.n + uint64(int64(len(r.data))/a.size)})
	}
	return list
}
