package raid

import (
	"bytes"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A reconstruction is all columns of a raidz record as they were read, and what
// the right bytes of all of them are. Columns are as high as the highest,
// continued by zeros; the pieces of the stripe come first in each.
type reconstruction struct {
	stripe *stripe
	chunk  *Chunk
	size   int // bytes of the record
	err    error

	read   []columnRead
	right  [][]byte // of all columns, once the record is known
	memory []buffer
}

// A columnRead is what one column gave.
type columnRead struct {
	candidate        // m is nil if the device is missing
	b         []byte // nil if it could not be read
	err       error
}

func (r *reconstruction) free() {
	for _, b := range r.memory {
		b.free()
	}
}

// matrix returns room for all columns.
func (r *reconstruction) matrix() [][]byte {
	height := r.stripe.all[0].bytes()
	b := newBuffer(height * int64(r.stripe.count))
	r.memory = append(r.memory, b)
	m := make([][]byte, r.stripe.count)
	for i := range m {
		m[i] = b.b[int64(i)*height:][:height:height]
	}
	return m
}

// A choice says where columns are read from when there is more than one way.
type choice struct{ shadows, faulted bool }

// reconstruct reads all columns and finds the record among what they may mean.
// First it trusts columns that are online, then shadows before columns, then
// also devices that are faulted, whose bytes may be out of date.
func (a *Array) reconstruct(c *Chunk, s *stripe, at format.Addr, data []byte, verify func([]byte) bool) *reconstruction {
	r := &reconstruction{stripe: s, chunk: c, size: len(data)}
	r.right = r.matrix()
	room, shadowed := r.matrix(), c.shadowed()
	for _, how := range [...]choice{{false, false}, {true, false}, {false, true}, {true, true}} {
		if how.shadows && !shadowed || how.faulted && !a.anyFaulted(c) {
			continue
		}
		a.readColumns(r, room, how)
		if r.search(a, data, verify) {
			r.complete(a, data)
			return r
		}
	}
	damage := c.damage(at, len(data))
	for i := range r.read {
		x := &r.read[i]
		switch {
		case x.err != nil:
			damage.Columns = append(damage.Columns, ColumnError{c.Columns[s.all[i].column].Device, x.err})
		case x.state == Online:
			damage.Columns = append(damage.Columns, ColumnError{x.m.id, errVerify})
		}
	}
	r.err = damage
	return r
}

// anyFaulted tells whether a device of the chunk is faulted.
func (a *Array) anyFaulted(c *Chunk) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	faulted := func(id DeviceID) bool { m := a.members[id]; return m != nil && m.state == Faulted }
	for _, col := range c.Columns {
		if faulted(col.Device) || col.Shadow != nil && faulted(col.Shadow.Device) {
			return true
		}
	}
	return false
}

// readColumns reads every column from the place that is chosen first and works.
func (a *Array) readColumns(r *reconstruction, room [][]byte, how choice) {
	r.read = make([]columnRead, r.stripe.count)
	for i := range r.stripe.pieces() {
		p := &r.stripe.all[i]
		col := &r.chunk.Columns[p.column]
		places := []Place{col.Place()}
		if col.Shadow != nil {
			places = append(places, *col.Shadow)
			if how.shadows {
				places[0], places[1] = places[1], places[0]
			}
		}
		x := &r.read[i]
		x.err = errNotOnline
		for _, at := range places {
			m, state := a.find(at.Device)
			if m == nil || state == Faulted && !how.faulted {
				continue
			}
			x.candidate = candidate{m, state, p.off(at.Start)}
			if x.err = a.readCandidate(x.candidate, room[i][:p.bytes()], nil); x.err == nil {
				x.b = room[i]
				clear(x.b[p.bytes():])
				break
			}
		}
	}
	r.clearPadding()
}

// clearPadding makes zeros of what the record leaves of its last sector: it was
// written so, and nothing else tells when it is damaged.
func (r *reconstruction) clearPadding() {
	last := r.stripe.count - 1
	for i := r.stripe.parity; i <= last; i++ {
		p := &r.stripe.all[i]
		if end := p.from + p.bytes(); r.read[i].b != nil && end > int64(r.size) {
			clear(r.read[i].b[int64(r.size)-p.from : p.bytes()])
		}
	}
}

// search fills data with what the columns mean, distrusting those that could
// not be read and more and more of the others, until verify is true.
func (r *reconstruction) search(a *Array, data []byte, verify func([]byte) bool) bool {
	bad := make([]bool, r.stripe.count)
	unread := 0
	for i := range r.read {
		if r.read[i].b == nil {
			bad[i] = true
			unread++
		}
	}
	for distrust := 0; unread+distrust <= r.stripe.parity; distrust++ {
		if r.searchAmong(a, bad, 0, distrust, data, verify) {
			return true
		}
		if verify == nil {
			return false // the first attempt was as good as any
		}
	}
	return false
}

// searchAmong tries all ways to distrust so many more columns from the given
// one on.
func (r *reconstruction) searchAmong(a *Array, bad []bool, from, distrust int, data []byte, verify func([]byte) bool) bool {
	if distrust == 0 {
		return r.assemble(a, bad, data) && verified(verify, data)
	}
	for i := from; i < len(bad); i++ {
		if bad[i] {
			continue
		}
		bad[i] = true
		if r.searchAmong(a, bad, i+1, distrust-1, data, verify) {
			return true
		}
		bad[i] = false
	}
	return false
}

// assemble fills data from the columns that are not bad.
func (r *reconstruction) assemble(a *Array, bad []bool, data []byte) bool {
	s := r.stripe
	// The encoder has the data columns first.
	shards := make([][]byte, s.count)
	required := make([]bool, s.count)
	for i := range s.pieces() {
		k := r.shard(i)
		if !bad[i] {
			shards[k] = r.read[i].b
			continue
		}
		shards[k] = r.right[i][:0] // room for the result
		required[k] = i >= s.parity
	}
	if err := a.encoders.get(s.data(), s.parity).ReconstructSome(shards, required[:]); err != nil {
		return false
	}
	for i := s.parity; i < s.count; i++ {
		copy(s.all[i].of(data), shards[r.shard(i)])
	}
	return true
}

// shard returns the number that the encoder knows a piece by.
func (r *reconstruction) shard(i int) int {
	if i < r.stripe.parity {
		return i + r.stripe.data()
	}
	return i - r.stripe.parity
}

// complete computes what all columns must be from the record.
func (r *reconstruction) complete(a *Array, data []byte) {
	s := r.stripe
	padded, done := pad(data)
	defer done()
	for i := s.parity; i < s.count; i++ {
		b := r.right[i]
		clear(b[copy(b, s.all[i].of(padded)):])
	}
	height := s.all[0].bytes()
	parity := newBuffer(int64(s.parity) * height)
	defer parity.free()
	a.encoders.encode(s, padded, parity.b)
	for i := range s.parity {
		copy(r.right[i], parity.b[int64(i)*height:])
	}
}

// wrong tells whether a column could not be read, or is not what it must be.
func (r *reconstruction) wrong(i int) bool {
	n := r.stripe.all[i].bytes()
	return r.read[i].b == nil || !bytes.Equal(r.read[i].b[:n], r.right[i][:n])
}

// mendColumns rewrites the columns that are wrong, and returns for each whether
// it was and whether it is right now.
func (a *Array) mendColumns(r *reconstruction) (wrong, mended [MaxColumns]bool) {
	for i := range r.read {
		x, p := &r.read[i], &r.stripe.all[i]
		if wrong[i] = r.wrong(i); !wrong[i] || x.m == nil {
			continue
		}
		if x.b != nil && x.state == Online {
			a.report(x.m, "verify", fmt.Errorf("%d bytes at %d of %s: %w", p.bytes(), x.off, x.m.dev.Path(), errVerify))
		}
		mended[i] = a.mend(x.m, x.off, r.right[i][:p.bytes()])
	}
	return wrong, mended
}
