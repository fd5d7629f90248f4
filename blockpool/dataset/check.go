package dataset

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// Check looks at every item of a tree that nobody changes and calls report with
// what contradicts something else; an error of report ends it and is returned. It
// needs no memory for what it has seen: each item tells what has to be elsewhere,
// both ways.
func Check(t Tree, report func(object uint64, problem string) error) error {
	c := checker{v: &view{tree: t, size: int64(t.RecordSize())}, report: report}
	b, err := t.Item(superKey())
	if err != nil {
		return failed("check", 0, err)
	}
	if c.v.super, err = unpackSuper(b); err != nil {
		return failed("check", 0, err)
	}
	const chunk = 512
	from := appendKey(blockpool.ItemCounted)
	for {
		var keys, values [][]byte
		err := c.v.items(from, nil, func(key, value []byte) (bool, error) {
			keys, values = append(keys, bytes.Clone(key)), append(values, bytes.Clone(value))
			return len(keys) < chunk, nil
		})
		if err != nil {
			return failed("check", 0, err)
		}
		for i := range keys {
			if err := c.item(keys[i], values[i]); err != nil {
				return err
			}
		}
		if len(keys) < chunk {
			return nil
		}
		from = append(keys[len(keys)-1], 0)
	}
}

type checker struct {
	v      *view
	report func(object uint64, problem string) error
}

func (c *checker) problem(object uint64, format string, args ...any) error {
	return c.report(object, fmt.Sprintf(format, args...))
}

// item checks one item. An error is one of reading or of report.
func (c *checker) item(key, value []byte) error {
	var object, pos uint64
	switch key[0] {
	case keyInode:
		if keyNumbers(key, &object) && object >= rootObject && object <= blockpool.MaxObject {
			return c.inode(object, value)
		}
	case keyEntry:
		if keyNumbers(key, &object, &pos) {
			return c.entry(place{object, pos}, value)
		}
	case keyXattr:
		if keyNumbers(key, &object, &pos) {
			return c.xattr(object, pos, value)
		}
	case keyOrphan:
		if keyNumbers(key, &object) && len(value) == 1 {
			return c.orphan(object, value[0])
		}
	case keyLink:
		var at place
		if keyNumbers(key, &object, &at.dir, &at.pos) {
			return c.link(object, at)
		}
	case keySuper:
		if len(key) == 1 {
			return nil
		}
	}
	return c.problem(0, "there is an item %x that means nothing", key)
}

// lookInode returns the inode of an object, nil after a problem was reported.
func (c *checker) lookInode(object uint64, why string) (*inode, error) {
	b, err := c.v.tree.Item(inodeKey(object))
	if err != nil {
		return nil, failed("check", object, err)
	}
	if b == nil {
		return nil, c.problem(object, "%s, but there is no inode", why)
	}
	in, err := unpackInode(b)
	if err != nil {
		return nil, nil // reported with the inode itself
	}
	return &in, nil
}

// lookEntry returns an entry, nil after a problem was reported.
func (c *checker) lookEntry(object uint64, at place) (*entry, error) {
	b, err := c.v.tree.Item(entryKey(at.dir, at.pos))
	if err != nil {
		return nil, failed("check", object, err)
	}
	if b == nil {
		return nil, c.problem(object, "its name in directory %d at %d is not there", at.dir, at.pos)
	}
	e, err := unpackEntry(b)
	if err != nil {
		return nil, nil // reported with the entry itself
	}
	return &e, nil
}

func (c *checker) inode(object uint64, value []byte) error {
	in, err := unpackInode(value)
	if err != nil {
		return c.problem(object, "the inode cannot be read: %v", err)
	}
	if err := c.data(object, &in); err != nil {
		return err
	}
	if in.typ() == 0 {
		return c.value(object, &in)
	}
	if err := c.count(object, &in, keyXattr, uint64(in.xattrs), "attributes"); err != nil {
		return err
	}
	if in.nlink == 0 || in.trim {
		if b, err := c.v.tree.Item(orphanKey(object)); err != nil {
			return failed("check", object, err)
		} else if b == nil {
			return c.problem(object, "something is to be removed, but there is no orphan item")
		}
	}
	switch {
	case in.isDir():
		return c.dir(object, &in)
	case in.nlink == 0:
		return nil
	}
	if err := c.name(object, &in, place{in.parent, in.pos}); err != nil {
		return err
	}
	return c.count(object, &in, keyLink, uint64(in.nlink)-1, "further names")
}

// data compares the records of an object with what the inode tells.
func (c *checker) data(object uint64, in *inode) error {
	n, err := c.v.countRecords(object, 0, maxRecords)
	if err != nil {
		return err
	}
	if n != in.mapped {
		return c.problem(object, "%d records are there, the inode says %d", n, in.mapped)
	}
	if in.trim {
		return nil
	}
	end := c.v.records(in.size)
	if in.isDir() {
		end = 0
	}
	if n, err = c.v.countRecords(object, end, maxRecords); err != nil {
		return err
	}
	if n > 0 {
		return c.problem(object, "%d records are behind the size of %d", n, in.size)
	}
	if in.size%c.v.size == 0 || in.isDir() {
		return nil
	}
	b := make([]byte, int64(end)*c.v.size-in.size)
	if err := c.v.tree.ReadObject(object, b, in.size); err != nil {
		return c.problem(object, "its last record cannot be read: %v", err)
	}
	if len(bytes.TrimLeft(b, "\x00")) > 0 {
		return c.problem(object, "there is something behind the size of %d", in.size)
	}
	return nil
}

// count compares how many items of a kind an object has with what it should.
func (c *checker) count(object uint64, in *inode, kind byte, want uint64, what string) error {
	var n uint64
	err := c.v.items(appendKey(kind, object), appendKey(kind, object+1), func(_, _ []byte) (bool, error) {
		n++
		return true, nil
	})
	if err != nil {
		return failed("check", object, err)
	}
	if n != want {
		return c.problem(object, "%d %s are there, the inode says %d", n, what, want)
	}
	return nil
}

// name checks that an object has a name where it says.
func (c *checker) name(object uint64, in *inode, at place) error {
	e, err := c.lookEntry(object, at)
	if e == nil || err != nil {
		return err
	}
	if e.subvol || e.object != object || e.typ != in.typ() {
		return c.problem(object, "what directory %d has at %d is not its name", at.dir, at.pos)
	}
	return nil
}

func (c *checker) dir(object uint64, in *inode) error {
	var names, dirs uint64
	err := c.v.items(entryKey(object, 0), entryKey(object+1, 0), func(_, value []byte) (bool, error) {
		names++
		if e, err := unpackEntry(value); err == nil && e.typ == unix.S_IFDIR {
			dirs++
		}
		return true, nil
	})
	switch {
	case err != nil:
		return failed("check", object, err)
	case uint64(in.size) != names:
		return c.problem(object, "%d names are there, the inode says %d", names, in.size)
	case in.nlink == 0:
		return nil
	case uint64(in.nlink) != 2+dirs:
		return c.problem(object, "%d directories are in it, but there are %d links", dirs, in.nlink)
	case object == rootObject:
		return nil
	}
	if err := c.name(object, in, place{in.parent, in.pos}); err != nil {
		return err
	}
	var way cycle
	for up := in.parent; up != rootObject; {
		b, err := c.v.tree.Item(inodeKey(up))
		if err != nil {
			return failed("check", object, err)
		}
		p, err := unpackInode(b)
		if err != nil || !p.isDir() || way.closed(up) {
			return c.problem(object, "no way leads to the root")
		}
		up = p.parent
	}
	return nil
}

// value checks an object that has the value of an attribute.
func (c *checker) value(object uint64, in *inode) error {
	found := false
	err := c.v.eachXattr(in.parent, 0, lastPos, func(_ uint64, x xattr) bool {
		found = x.object == object
		return !found
	})
	if err == nil && !found {
		return c.problem(object, "it is the value of no attribute of object %d", in.parent)
	}
	return nil // what cannot be read is reported with the attribute
}

func (c *checker) entry(at place, value []byte) error {
	e, err := unpackEntry(value)
	if err != nil {
		return c.problem(at.dir, "the entry at %d cannot be read: %v", at.pos, err)
	}
	if at.pos-at.pos%collisions != c.v.super.position(e.name) {
		return c.problem(at.dir, "%q is at the wrong position", e.name)
	}
	dir, err := c.lookInode(at.dir, fmt.Sprintf("it has %q", e.name))
	if dir == nil || err != nil {
		return err
	}
	if !dir.isDir() {
		return c.problem(at.dir, "it has %q, but is no directory", e.name)
	}
	if e.subvol {
		return nil
	}
	in, err := c.lookInode(e.object, fmt.Sprintf("directory %d has it as %q", at.dir, e.name))
	if in == nil || err != nil {
		return err
	}
	if in.parent == at.dir && in.pos == at.pos {
		return nil
	}
	b, err := c.v.tree.Item(linkKey(e.object, at.dir, at.pos))
	if err != nil {
		return failed("check", e.object, err)
	}
	if b == nil || in.isDir() {
		return c.problem(e.object, "directory %d has it as %q, of which it does not know", at.dir, e.name)
	}
	return nil
}

func (c *checker) xattr(object, pos uint64, value []byte) error {
	x, err := unpackXattr(value)
	if err != nil {
		return c.problem(object, "the attribute at %d cannot be read: %v", pos, err)
	}
	if pos-pos%collisions != c.v.super.position(x.name) {
		return c.problem(object, "attribute %q is at the wrong position", x.name)
	}
	in, err := c.lookInode(object, "it has attribute "+x.name)
	if in == nil || err != nil {
		return err
	}
	if x.object == 0 {
		return nil
	}
	if _, err := c.v.readValueInode(object, &x); err != nil {
		return c.problem(object, "attribute %q: %v", x.name, err)
	}
	return nil
}

func (c *checker) orphan(object uint64, kind byte) error {
	in, err := c.lookInode(object, "there is an orphan item")
	if in == nil || err != nil {
		return err
	}
	if (kind != orphanRemove || in.nlink != 0) && (kind != orphanTrim || in.nlink == 0 || !in.trim) {
		return c.problem(object, "orphan item %d, but there are %d links", kind, in.nlink)
	}
	return nil
}

func (c *checker) link(object uint64, at place) error {
	in, err := c.lookInode(object, "it has a further name")
	if in == nil || err != nil {
		return err
	}
	if in.isDir() || in.parent == at.dir && in.pos == at.pos {
		return c.problem(object, "its only name is a further one")
	}
	return c.name(object, in, at)
}
