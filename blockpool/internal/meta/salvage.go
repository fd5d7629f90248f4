package meta

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Each calls f with each key of a bucket in ascending order, and its value, or
// what is wrong with the value in every replica. Where a page cannot be read it
// ends with an error, after what comes before that page.
func (v *View) Each(b Bucket, f func(key, value []byte, damage error) error) error {
	if v.closed.Load() {
		return fmt.Errorf("meta: the view is %w", ErrClosed)
	}
	return v.p.scan(b, nil, true, func(e entry) error {
		value, _, err := unseal(e.sealed, v.p.rec.guid, b, e.key)
		return f(e.key, value, err)
	})
}

// A Wreck is a replica that is looked at and not used, whatever its state. The
// file is locked, shared with other readers, and not changed.
type Wreck struct {
	r    *replica
	guid GUID
}

// OpenWreck opens the file of a replica. A zero guid is that of the pool which the
// first record of a commit in the file names.
func OpenWreck(path string, guid GUID) (*Wreck, error) {
	o := Options{ReadOnly: true}.withDefaults()
	file, err := openLocked(path, o)
	if err != nil {
		return nil, err
	}
	r := &replica{path: path, file: file, refs: 1}
	info, err := file.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() == 0) {
		err = fmt.Errorf("meta: %s is no file of metadata", path)
	}
	if err == nil {
		r.size = info.Size()
		r.mem, err = unix.Mmap(int(file.Fd()), 0, int(r.size), unix.PROT_READ, unix.MAP_SHARED)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	w := &Wreck{r: r, guid: guid}
	if guid == (GUID{}) {
		w.findGUID()
	}
	return w, nil
}

// GUID returns the pool that the file belongs to, zero if that cannot be told.
func (w *Wreck) GUID() GUID { return w.guid }

// Close lets go of the file.
func (w *Wreck) Close() error {
	err := errors.Join(unix.Munmap(w.r.mem), w.r.file.Close())
	if err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("meta: close %s: %w", w.r.path, err)
	}
	return nil
}

// A State is what one of the two meta pages of a file leads to: the last commit,
// or the one before it.
type State struct {
	w     *Wreck
	names tree

	Page  int    // of the file, 0 or 1
	Txg   uint64 // 0 if it cannot be told
	Whole bool   // every page, seal and the digest are right
	Err   error  // what is not
}

// States returns what the meta pages lead to, the newer first. A meta page that
// is none is left out.
func (w *Wreck) States() (states []State) {
	newest := uint64(0)
	for i := range 2 {
		var m metaPage
		err := guarded(func() (err error) { m, err = parseMeta(w.r.mem, i); return err })
		if err != nil {
			continue
		}
		s := State{w: w, Page: i, names: tree{file: w.r.mem, limit: m.limit, root: m.root}}
		var f finding
		if err := guarded(func() error { f = checkState(w.r.mem, m, w.guid); return nil }); err != nil {
			f.broken = err
		}
		s.Txg, s.Err = f.rec.txg, f.err()
		s.Whole = s.Err == nil
		if len(states) > 0 && m.txid > newest {
			states = append([]State{s}, states...)
		} else {
			states = append(states, s)
		}
		newest = m.txid
	}
	return states
}

// Get returns the value of a key, nil when it is absent.
func (s State) Get(b Bucket, key []byte) (value []byte, err error) {
	err = guarded(func() error {
		sealed, err := s.names.lookup(b, key)
		if err != nil || sealed == nil {
			return err
		}
		value, _, err = unseal(append([]byte{}, sealed...), s.w.guid, b, key)
		return err
	})
	return value, err
}

// Each calls f with each key of a bucket whose page can be found, in ascending
// order, and its value, or what is wrong with it. What is below a page that cannot
// be read is passed over, and the error tells of the first such page.
func (s State) Each(b Bucket, f func(key, value []byte, damage error) error) error {
	var bad error
	var t tree
	err := guarded(func() (err error) { t, err = s.names.bucket(b); return err })
	if err != nil {
		return err
	}
	visit := func(p page) error {
		for i := range p.n {
			key := append([]byte{}, p.key(i)...)
			value, _, err := unseal(append([]byte{}, p.value(i)...), s.w.guid, b, key)
			if err := f(key, value, err); err != nil {
				return err
			}
		}
		return nil
	}
	if t.inline != nil {
		p, _, err := t.seek(nil)
		if err != nil {
			return err
		}
		return visit(p)
	}
	var walk func(id uint64, depth int) error
	walk = func(id uint64, depth int) error {
		var p page
		err := guarded(func() (err error) { p, err = readPage(t.file, id, t.limit); return err })
		if err == nil && depth == maxDepth {
			err = damaged("the tree of page %d is deeper than %d pages", t.root, maxDepth)
		}
		if err != nil {
			bad = cmp.Or(bad, err)
			return nil
		}
		if p.leaf {
			return visit(p)
		}
		for i := range p.n {
			if err := walk(p.child(i), depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(t.root, 0); err != nil {
		return err
	}
	return bad
}

// Carve calls f with each sealed value that lies anywhere in the file, used or
// not, in the order of the file: of one key there may be several of different
// transaction groups. Value and key are valid during the call. It believes no
// page; the seal makes a value known.
func (w *Wreck) Carve(f func(b Bucket, key, value []byte, txg uint64) error) error {
	pages := w.r.size / pageSize
	for id := int64(2); id < pages; id++ {
		err := guarded(func() error { return w.carvePage(w.r.mem[id*pageSize:w.r.size], f) })
		if err != nil {
			return err
		}
	}
	return nil
}

// carvePage looks at what the elements of a leaf name that mem begins with. A
// page that goes on in others is one that had a large value.
func (w *Wreck) carvePage(mem []byte, f func(b Bucket, key, value []byte, txg uint64) error) error {
	if len(mem) < headerSize || native.Uint16(mem[8:])&leafFlag == 0 {
		return nil
	}
	n := min(int(native.Uint16(mem[10:])), (min(len(mem), pageSize)-headerSize)/elemSize)
	for i := range n {
		at := headerSize + i*elemSize
		e := mem[at:]
		pos, klen, vlen := int64(native.Uint32(e[4:])), int64(native.Uint32(e[8:])), int64(native.Uint32(e[12:]))
		from := int64(at) + pos
		if klen == 0 || klen > MaxKey || vlen < sealSize || vlen > sealSize+MaxValue || from+klen+vlen > int64(len(mem)) {
			continue
		}
		key, sealed := mem[from:from+klen], mem[from+klen:from+klen+vlen]
		if native.Uint32(e)&bucketFlag != 0 { // a small bucket, whose only page is the value
			if err := w.carvePage(sealed[16:], f); err != nil {
				return err
			}
			continue
		}
		value, txg, err := unseal(sealed, w.guid, Bucket(sealed[3]), key)
		if err != nil || !Bucket(sealed[3]).valid() {
			continue
		}
		if err := f(Bucket(sealed[3]), key, value, txg); err != nil {
			return err
		}
	}
	return nil
}

// findGUID looks for a record of a commit, which names its pool: in small inline
// buckets, which lie within the values of others, so anywhere.
func (w *Wreck) findGUID() {
	_ = guarded(func() error { // without a guid no value will be known
		mark := append(sealMagic[:], sealVersion, byte(Txg))
		for rest := w.r.mem; ; {
			i := bytes.Index(rest, mark)
			if i < 0 || len(rest)-i < sealSize+recordSize {
				return nil
			}
			if rec, err := parseRecord(rest[i : i+sealSize+recordSize]); err == nil {
				w.guid = rec.guid
				return nil
			}
			rest = rest[i+1:]
		}
	})
}
