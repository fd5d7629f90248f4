package raid

import (
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A Tally counts bytes of one device.
type Tally struct {
	Checked       int64
	Mended        int64 // were bad and have been written anew
	Unrecoverable int64 // are bad, and stay so
}

// A Result is what a scrub found, by device. Devices that are not online were
// not checked and are not in it.
type Result map[DeviceID]Tally

// Add adds what another scrub found.
func (r Result) Add(other Result) {
	for id, t := range other {
		r.count(id, t.Checked, t.Mended, t.Unrecoverable)
	}
}

// Total returns the sum over all devices.
func (r Result) Total() Tally {
	var sum Tally
	for _, t := range r {
		sum.Checked += t.Checked
		sum.Mended += t.Mended
		sum.Unrecoverable += t.Unrecoverable
	}
	return sum
}

func (r Result) count(id DeviceID, checked, mended, unrecoverable int64) {
	t := r[id]
	t.Checked += checked
	t.Mended += mended
	t.Unrecoverable += unrecoverable
	r[id] = t
}

// Scrub reads every copy and all parity of a record of n bytes, and mends what
// is bad. The error is a *[DamageError] when the record is lost; the result is
// valid also then. Shadows are not looked at: they are not complete yet.
func (a *Array) Scrub(c *Chunk, at format.Addr, n int, verify func([]byte) bool) (Result, error) {
	if err := c.holds(at, n); err != nil {
		return nil, fmt.Errorf("scrub: %w", err)
	}
	s := c.stripe(at, n)
	if s.parity == 0 {
		return a.scrubCopies(c, s, at, n, verify)
	}
	return a.scrubStripe(c, s, at, n, verify)
}

func (a *Array) scrubCopies(c *Chunk, s *stripe, at format.Addr, n int, verify func([]byte) bool) (Result, error) {
	b, good := newBuffer(2*int64(n)), []byte(nil)
	defer b.free()
	next, result, damage := b.b[:n], Result{}, c.damage(at, n)
	var room [8]candidate
	var bad []candidate
	for _, x := range a.candidates(c, s, room[:0], false) {
		if x.state == Faulted && good != nil {
			break // they come last, as the last resort
		}
		err := a.readCandidate(x, next, verify)
		if x.state == Online {
			result.count(x.m.id, int64(n), 0, 0)
		}
		switch {
		case err != nil:
			bad = append(bad, x)
			damage.Columns = append(damage.Columns, ColumnError{x.m.id, err})
		case good == nil:
			good, next = next, b.b[n:]
		}
	}
	var padded []byte
	if good != nil {
		p, done := pad(good)
		defer done()
		padded = p
	}
	for _, x := range bad {
		switch {
		case x.state == Faulted:
		case good != nil && a.mend(x.m, x.off, padded):
			result.count(x.m.id, 0, int64(n), 0)
		default:
			result.count(x.m.id, 0, 0, int64(n))
		}
	}
	if good == nil {
		a.addMissing(damage, c)
		return result, damage
	}
	return result, nil
}

func (a *Array) scrubStripe(c *Chunk, s *stripe, at format.Addr, n int, verify func([]byte) bool) (Result, error) {
	data := newBuffer(int64(n))
	defer data.free()
	r := a.reconstruct(c, s, at, data.b, verify)
	defer r.free()
	var wrong, mended [MaxColumns]bool
	if r.err == nil {
		wrong, mended = a.mendColumns(r)
	}
	result := Result{}
	for i := range r.read {
		x, size := &r.read[i], s.all[i].bytes()
		switch {
		case x.m == nil || x.state != Online:
		case r.err != nil:
			result.count(x.m.id, size, 0, size)
		case mended[i]:
			result.count(x.m.id, size, size, 0)
		case wrong[i]:
			result.count(x.m.id, size, 0, size)
		default:
			result.count(x.m.id, size, 0, 0)
		}
	}
	return result, r.err
}
