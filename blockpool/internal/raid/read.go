package raid

import (
	"errors"
	"fmt"
	"sync"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// errVerify is the error of bytes that were read and are not the right ones.
var errVerify = errors.New("checksum mismatch")

// A DamageError tells that no set of columns gave the right bytes of a record.
// It is format.ErrDamaged, and whatever the devices' errors are.
type DamageError struct {
	Chunk   uint32
	Profile format.Profile
	Addr    format.Addr
	Bytes   int
	Columns []ColumnError // what was tried
}

// A ColumnError tells what is wrong with one column of a record.
type ColumnError struct {
	Device DeviceID
	Err    error
}

func (e *DamageError) Error() string {
	s := fmt.Sprintf("%d bytes at sector %d of %v chunk %d are %v", e.Bytes, e.Addr, e.Profile, e.Chunk, format.ErrDamaged)
	for i, c := range e.Columns {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		s += fmt.Sprintf("%sdevice %d: %v", sep, c.Device, c.Err)
	}
	return s
}

// Unwrap makes the error format.ErrDamaged and its causes.
func (e *DamageError) Unwrap() []error {
	all := []error{format.ErrDamaged}
	for _, c := range e.Columns {
		all = append(all, c.Err)
	}
	return all
}

func (c *Chunk) damage(at format.Addr, n int) *DamageError {
	return &DamageError{Chunk: c.ID, Profile: c.Profile, Addr: at, Bytes: n}
}

// Read fills data with the record at an address for which verify is true: from
// one copy, else from another; on raidz from the data columns, else by
// reconstruction from every combination of columns that parity allows. Columns
// that turn out to be bad are rewritten. A nil verify accepts what can be read.
//
// When nothing verifies, data is cleared and the error is a *[DamageError].
func (a *Array) Read(c *Chunk, at format.Addr, data []byte, verify func([]byte) bool) error {
	if err := c.holds(at, len(data)); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if c.Profile.Parity() == 0 {
		var s stripe
		c.layOut(&s, at, len(data))
		return a.readCopies(c, &s, at, data, verify)
	}
	s := c.stripe(at, len(data))
	if a.readData(c, s, data) && verified(verify, data) {
		return nil
	}
	r := a.reconstruct(c, s, at, data, verify)
	defer r.free()
	if r.err != nil {
		clear(data)
		return r.err
	}
	a.mendColumns(r)
	return nil
}

func verified(verify func([]byte) bool, data []byte) bool {
	return verify == nil || verify(data) || mutant.Breaks(mutant.Verify)
}

// A candidate is a copy of a record.
type candidate struct {
	m     *member
	state State
	off   int64
}

// readCandidate fills p and tells, by its error and to the hook, when it is not right.
func (a *Array) readCandidate(x candidate, p []byte, verify func([]byte) bool) error {
	if _, err := x.m.dev.ReadAt(p, x.off); err != nil {
		a.report(x.m, "read", err)
		return err
	}
	if !verified(verify, p) {
		err := fmt.Errorf("%d bytes at %d of %s: %w", len(p), x.off, x.m.dev.Path(), errVerify)
		if x.state == Online { // a faulted one is expected to be out of date
			a.report(x.m, "verify", err)
		}
		return err
	}
	return nil
}

// readCopies reads a record of a single or mirror chunk.
func (a *Array) readCopies(c *Chunk, s *stripe, at format.Addr, data []byte, verify func([]byte) bool) error {
	var room [8]candidate
	candidates := a.candidates(c, s, room[:0], true)
	var damage *DamageError
	for i, x := range candidates {
		err := a.readCandidate(x, data, verify)
		if err == nil {
			a.mendCopies(candidates[:i], data)
			return nil
		}
		if damage == nil {
			damage = c.damage(at, len(data))
		}
		damage.Columns = append(damage.Columns, ColumnError{x.m.id, err})
	}
	if damage == nil {
		damage = c.damage(at, len(data))
	}
	a.addMissing(damage, c)
	clear(data)
	return damage
}

// addMissing names the devices that are not there among the causes.
func (a *Array) addMissing(damage *DamageError, c *Chunk) {
	for i := range c.Columns {
		if id := c.Columns[i].Device; a.State(id) == Missing {
			damage.Columns = append(damage.Columns, ColumnError{id, errNotOnline})
		}
	}
}

// candidates returns the copies of a record in the order in which they are
// tried: those online, beginning with one that depends on the address, so that
// all devices serve reads and each reads runs of 1 MiB; their shadows, if those
// are wanted; and the same of those faulted.
func (a *Array) candidates(c *Chunk, s *stripe, list []candidate, shadows bool) []candidate {
	const run = (1 << 20) / format.SectorSize
	first := int(s.all[0].row / run % int64(s.count))
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, state := range [...]State{Online, Faulted} {
		for i := range s.count {
			p := &s.all[(first+i)%s.count]
			col := &c.Columns[p.column]
			if m := a.members[col.Device]; m != nil && m.state == state {
				list = append(list, candidate{m, state, p.off(col.Start)})
			}
		}
		for i := range s.pieces() {
			p := &s.all[i]
			shadow := c.Columns[p.column].Shadow
			if shadow == nil || !shadows {
				continue
			}
			if m := a.members[shadow.Device]; m != nil && m.state == state {
				list = append(list, candidate{m, state, p.off(shadow.Start)})
			}
		}
	}
	return list
}

// mendCopies rewrites copies that were bad.
func (a *Array) mendCopies(bad []candidate, data []byte) {
	if len(bad) == 0 {
		return
	}
	padded, done := pad(data)
	defer done()
	for _, x := range bad {
		a.mend(x.m, x.off, padded)
	}
}

// readData reads the data columns of a raidz record, and no parity, and tells
// whether all could be read. What failed is not reported: the reconstruction
// that follows reads it again.
func (a *Array) readData(c *Chunk, s *stripe, data []byte) bool {
	var room [MaxColumns]candidate
	columns := room[:0]
	a.mu.RLock()
	for i := s.parity; i < s.count; i++ {
		p := &s.all[i]
		col := &c.Columns[p.column]
		m := a.members[col.Device]
		if m == nil || m.state != Online {
			a.mu.RUnlock()
			return false
		}
		columns = append(columns, candidate{m, Online, p.off(col.Start)})
	}
	a.mu.RUnlock()
	read := func(i int) bool {
		b := s.all[s.parity+i].of(data)
		n, _ := columns[i].m.dev.ReadAt(b, columns[i].off)
		return n == len(b)
	}
	if len(columns) == 1 || len(data) < parallelFrom {
		for i := range columns {
			if !read(i) {
				return false
			}
		}
		return true
	}
	var wg sync.WaitGroup
	var good [MaxColumns]bool
	for i := 1; i < len(columns); i++ {
		wg.Go(func() { good[i] = read(i) })
	}
	good[0] = read(0)
	wg.Wait()
	for i := range columns {
		if !good[i] {
			return false
		}
	}
	return true
}
