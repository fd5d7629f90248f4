package meta

import (
	"fmt"
)

// A finding is what a check of a whole file has found.
type finding struct {
	meta metaPage
	rec  record // zero when it cannot be read

	// broken is damage of the file's structure: bbolt must not touch it.
	broken error
	// values is the first damage of a value, or a digest that does not come
	// out; the rest of the file can be used.
	values error
	// lost is damage of the other meta page. The next commit overwrites it, but
	// it may be that of a later commit: power that fails while it is written
	// leaves the same as damage that comes afterwards.
	lost error
	// bad counts damaged values.
	bad int
}

// err returns why the file is not what a commit left, nil when it is.
func (f *finding) err() error {
	if f.broken != nil {
		return f.broken
	}
	return f.values
}

// checkFile reads all of a file: pages, free list, seals, and the digest that
// proves that no entry is missing or stale. A zero guid is that of the file.
//
// The free list must be the exact rest of what the trees use. A list that had
// too much would make bbolt overwrite live pages, so a file with a wrong one is
// broken although all its values are right.
func checkFile(file []byte, guid GUID) (f finding) {
	m, lost, err := newestMeta(file)
	if err != nil {
		return finding{lost: lost, broken: err}
	}
	f = checkState(file, m, guid)
	f.lost = lost
	return f
}

// checkState does the same for what one of the meta pages leads to. The other
// state of a file is whole too as long as nothing was written since.
func checkState(file []byte, m metaPage, guid GUID) (f finding) {
	f.meta = m
	c := checker{finding: &f, used: make([]bool, f.meta.limit), guid: guid}
	if f.meta.limit < 4 {
		f.broken = damaged("only %d pages", f.meta.limit)
		return f
	}
	c.used[0], c.used[1] = true, true
	names := tree{file: file, limit: f.meta.limit, root: f.meta.root}
	if f.broken = c.record(names); f.broken != nil {
		return f
	}
	if f.broken = c.names(names); f.broken != nil {
		return f
	}
	if f.broken = c.freelist(file); f.broken != nil {
		return f
	}
	if f.values == nil && (c.sum.entries != f.rec.entries || c.sum.digest != f.rec.digest) {
		f.values = damaged("%d entries with digest %016x, where %d with %016x were committed",
			c.sum.entries, c.sum.digest, f.rec.entries, f.rec.digest)
	}
	return f
}

type checker struct {
	*finding
	guid GUID
	used []bool // pages that have been reached
	sum  record // entries and digest so far
}

func (c *checker) record(names tree) error {
	sealed, err := names.lookup(Txg, recordKey)
	if err != nil {
		return err
	}
	if sealed == nil {
		return damaged("no transaction group")
	}
	if c.rec, err = parseRecord(sealed); err != nil {
		return err
	}
	if c.guid == (GUID{}) {
		c.guid = c.rec.guid
	}
	return nil
}

// names walks the tree of bucket names and each bucket below it.
func (c *checker) names(names tree) error {
	return c.walk(names, func(leaf page, i int) error {
		b, ok := bucketByName[string(leaf.key(i))]
		if !ok {
			return damaged("bucket %q is not known", leaf.key(i))
		}
		sub, err := names.bucketAt(leaf, i)
		if err != nil {
			return err
		}
		err = c.walk(sub, func(leaf page, i int) error { return c.entry(b, leaf, i) })
		if err != nil {
			return fmt.Errorf("bucket %v: %w", b, err)
		}
		return nil
	})
}

func (c *checker) entry(b Bucket, leaf page, i int) error {
	key, sealed := leaf.key(i), leaf.value(i)
	if leaf.isBucket(i) {
		return damaged("key %x is a bucket", key)
	}
	if _, _, err := unseal(sealed, c.guid, b, key); err != nil {
		c.bad++
		if c.values == nil {
			c.values = err
		}
	}
	if b != Txg {
		c.sum = c.sum.replace(key, nil, sealed)
	} else if string(key) != string(recordKey) {
		return damaged("key %x is not one that a commit writes", key)
	}
	return nil
}

// walk visits every element of a tree's leaves, and marks its pages.
func (c *checker) walk(t tree, visit func(leaf page, i int) error) error {
	if t.inline != nil {
		leaf, _, err := t.seek(nil)
		if err != nil {
			return err
		}
		return eachElem(leaf, visit)
	}
	return c.walkPage(t, t.root, nil, nil, 0, visit)
}

func eachElem(leaf page, visit func(leaf page, i int) error) error {
	for i := range leaf.n {
		if err := visit(leaf, i); err != nil {
			return err
		}
	}
	return nil
}

// walkPage visits page id, whose keys begin with first and end before behind,
// where those are not nil.
func (c *checker) walkPage(t tree, id uint64, first, behind []byte, depth int, visit func(page, int) error) error {
	if depth == maxDepth {
		return damaged("the tree of page %d is deeper than %d pages", t.root, maxDepth)
	}
	p, err := readPage(t.file, id, t.limit)
	if err != nil {
		return err
	}
	if err := c.mark(id, p.next); err != nil {
		return err
	}
	if err := checkRange(p, id, first, behind); err != nil {
		return err
	}
	if p.leaf {
		return eachElem(p, visit)
	}
	for i := range p.n {
		end := behind
		if i+1 < p.n {
			end = p.key(i + 1)
		}
		if err := c.walkPage(t, p.child(i), p.key(i), end, depth+1, visit); err != nil {
			return err
		}
	}
	return nil
}

// checkRange fails unless the keys of page id begin with first and end before
// behind, where those are not nil. An empty page is right only as a root.
func checkRange(p page, id uint64, first, behind []byte) error {
	if first == nil {
		return nil
	}
	if p.n == 0 || string(p.key(0)) != string(first) {
		return damaged("page %d does not begin with the key of its parent", id)
	}
	if behind != nil && string(p.key(p.n-1)) >= string(behind) {
		return damaged("page %d has keys of the page behind it", id)
	}
	return nil
}

func (c *checker) mark(from, to uint64) error {
	if to > uint64(len(c.used)) {
		return damaged("pages %d to %d of %d", from, to, len(c.used))
	}
	for id := from; id < to; id++ {
		if c.used[id] {
			return damaged("page %d is used twice", id)
		}
		c.used[id] = true
	}
	return nil
}

// freelist marks the free pages, and what they are listed in; then no page may
// be left.
func (c *checker) freelist(file []byte) error {
	id := c.meta.freelist
	if id < 2 || id >= c.meta.limit {
		return damaged("a free list in page %d of %d", id, c.meta.limit)
	}
	b := file[id*pageSize : c.meta.limit*pageSize]
	overflow := uint64(native.Uint32(b[12:]))
	if native.Uint64(b) != id || native.Uint16(b[8:]) != freelistFlag || overflow >= c.meta.limit-id {
		return damaged("page %d is no free list", id)
	}
	if err := c.mark(id, id+overflow+1); err != nil {
		return fmt.Errorf("free list: %w", err)
	}
	n, off := uint64(native.Uint16(b[10:])), uint64(headerSize)
	if n == 0xFFFF { // then the number is the first item
		n, off = native.Uint64(b[off:]), off+8
	}
	if room := (overflow+1)*pageSize - off; n > room/8 {
		return damaged("a free list of %d pages in %d bytes", n, room)
	}
	for i := range n {
		free := native.Uint64(b[off+8*i:])
		if free < 2 || free >= c.meta.limit {
			return damaged("free page %d of %d", free, c.meta.limit)
		}
		if err := c.mark(free, free+1); err != nil {
			return fmt.Errorf("free list: %w", err)
		}
	}
	for id, used := range c.used {
		if !used {
			return damaged("page %d is neither used nor free", id)
		}
	}
	return nil
}
