package meta

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"sync/atomic"
)

// A View is the metadata as of one commit, whatever is committed meanwhile.
// Its methods may be called from several goroutines. Close it soon: until then
// no page that it can reach is used again, and the files grow.
type View struct {
	p      *pin
	closed atomic.Bool
}

// View returns a view of the last commit. It does not wait for one that is
// under way.
func (s *Store) View() (*View, error) {
	p, err := s.hold()
	if err != nil {
		return nil, err
	}
	return &View{p: p}, nil
}

// Txg returns the number of the commit that the view shows.
func (v *View) Txg() uint64 { return v.p.rec.txg }

// Close ends the view, which nothing may be using any more. Values that it
// returned stay valid.
func (v *View) Close() {
	if !v.closed.Swap(true) {
		v.p.s.release(v.p)
	}
}

// Get returns the value of a key, nil when the key is absent; an empty value
// is not nil. The value is the caller's.
//
// When a replica is damaged there, the value comes from another one, and the
// event hook learns of it. An error wraps format.ErrDamaged and names bucket,
// key and files: no replica has the value.
func (v *View) Get(b Bucket, key []byte) ([]byte, error) {
	value, _, err := v.GetBirth(b, key)
	return value, err
}

// GetBirth is Get, and returns the transaction group that wrote the value.
func (v *View) GetBirth(b Bucket, key []byte) (value []byte, birth uint64, err error) {
	if v.closed.Load() {
		return nil, 0, fmt.Errorf("meta: the view is %w", ErrClosed)
	}
	if !b.valid() {
		return nil, 0, fmt.Errorf("meta: %v does not exist", b)
	}
	sealed, err := v.p.get(b, key)
	if err != nil || sealed == nil {
		return nil, 0, err
	}
	return sealed[sealSize:], sealedBy(sealed), nil
}

// Scan calls f with each key from the given one on (nil is the first), and its
// value, in ascending order. They are valid until f returns. An error of f ends
// the scan and is returned.
func (v *View) Scan(b Bucket, from []byte, f func(key, value []byte) error) error {
	if v.closed.Load() {
		return fmt.Errorf("meta: the view is %w", ErrClosed)
	}
	if !b.valid() {
		return fmt.Errorf("meta: %v does not exist", b)
	}
	return v.p.scan(b, from, false, func(e entry) error { return f(e.key, e.sealed[sealSize:]) })
}

// An entry is one key with its sealed value, copied out of a page.
type entry struct{ key, sealed []byte }

// scan visits entries in order, leaf by leaf. Where one replica is damaged the
// others go on from the same key. With broken, values that are damaged
// everywhere are visited as they are; else they end the scan.
func (p *pin) scan(b Bucket, from []byte, broken bool, f func(entry) error) error {
	for next := from; ; {
		entries, behind, err := p.leaf(b, next)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.sealed, err = p.whole(b, e, broken); err != nil {
				return err
			}
			if err := f(e); err != nil {
				return err
			}
		}
		if behind == nil {
			return nil
		}
		next = behind
	}
}

// leaf returns the entries from a key on that lie in one leaf, and the first
// key behind it, nil at the end. It takes the first replica in which all of
// them are whole; without one, the first that can be read there.
func (p *pin) leaf(b Bucket, from []byte) (entries []entry, behind []byte, err error) {
	var errs []error
	readable := false
	for _, sn := range p.order() {
		var es []entry
		var after []byte
		err := guarded(func() (err error) {
			es, after, err = sn.leaf(b, from)
			return err
		})
		torn := p.firstTorn(b, es)
		if err == nil && torn == nil {
			return es, after, nil
		}
		if err == nil && !readable {
			entries, behind, readable = es, after, true
		}
		err = fmt.Errorf("meta: %s: %v, from key %x: %w", sn.r.path, b, from, cmp.Or(err, torn))
		p.doubt(sn, err)
		errs = append(errs, err)
	}
	if readable {
		return entries, behind, nil
	}
	return nil, nil, errors.Join(errs...)
}

// firstTorn returns what is wrong with the first entry whose seal is.
func (p *pin) firstTorn(b Bucket, entries []entry) error {
	for _, e := range entries {
		if _, _, err := unseal(e.sealed, p.rec.guid, b, e.key); err != nil {
			return err
		}
	}
	return nil
}

func (sn *snapshot) leaf(b Bucket, from []byte) (entries []entry, behind []byte, err error) {
	p, behind, err := sn.trees[b].seek(from)
	if err != nil {
		return nil, nil, err
	}
	for i, _ := p.search(from); i < p.n; i++ {
		entries = append(entries, entry{bytes.Clone(p.key(i)), bytes.Clone(p.value(i))})
	}
	return entries, bytes.Clone(behind), nil
}

// whole returns the sealed value of an entry, from another replica when the
// seal is wrong here. With broken, one that is damaged everywhere is returned
// as it is.
func (p *pin) whole(b Bucket, e entry, broken bool) ([]byte, error) {
	if p.firstTorn(b, []entry{e}) == nil {
		return e.sealed, nil
	}
	sealed, err := p.get(b, e.key)
	switch {
	case err != nil && broken:
		return e.sealed, nil
	case err != nil:
		return nil, err
	case sealed == nil:
		return nil, damaged("meta: %v, key %x: there in a scan and absent when looked up", b, e.key)
	}
	return sealed, nil
}
