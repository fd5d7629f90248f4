package dataset

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// A view is a tree as part of a mount: the dataset itself, or another one that a
// path leads into.
type view struct {
	fs       *FS
	tree     Tree
	id       uint64 // number of the tree in the numbers of nodes; 0: the dataset itself
	super    superblock
	size     int64 // of records, in bytes
	readOnly atomic.Bool
	in       *view // of another tree: the one that it is nested in; nil: a snapshot's
	reclaim  reclaimer

	// parentIno is what ".." of the root of another tree shows.
	parentIno atomic.Uint64
	// users counts nodes of another tree and those who are about to make some;
	// from 0 it rises under FS.viewMu only.
	users atomic.Int64
	// maxInodes is how many objects there may be, 0: no bound.
	maxInodes atomic.Uint64
	// writable tells that the tree was looked through for being written to. Under
	// FS.viewMu, but for start.
	writable bool
	// gone tells that the tree was taken away from under its nodes.
	gone atomic.Bool

	renames sync.Mutex // directories move to others one at a time

	// objects counts them, those about to be made included.
	objects atomic.Int64

	allocMu sync.Mutex
	next    uint64 // the object that is given out next
	wrapped bool   // next goes through numbers that were in use
}

func (fs *FS) newView(tree Tree, id uint64) *view {
	v := &view{fs: fs, tree: tree, id: id, size: int64(tree.RecordSize())}
	v.reclaim.init(v)
	return v
}

// start reads what the tree says of itself, and what a crash has left.
func (v *view) start() error {
	b, err := v.tree.Item(superKey())
	if err == nil && b == nil {
		err = damagedf("no filesystem")
	}
	if err == nil {
		v.super, err = unpackSuper(b)
	}
	if err != nil {
		return failed("read the superblock", 0, err)
	}
	return v.limit()
}

// A Limited tree bounds its objects where it is nested in another one.
type Limited interface{ MaxInodes() uint64 }

// limit has the view do what the options and the tree say of changes.
func (v *view) limit() error {
	o := v.fs.opt.Load()
	limit := uint64(0)
	if t, ok := v.tree.(Limited); ok && v != v.fs.main {
		limit = t.MaxInodes()
	} else if v == v.fs.main {
		limit = o.MaxInodes
	}
	if v.maxInodes.Swap(limit) == 0 && limit > 0 && v.writable {
		if err := v.recountObjects(); err != nil {
			return err
		}
	}
	readOnly := o.ReadOnly || v.tree.ReadOnly()
	if !readOnly && !v.writable {
		if err := v.prepare(); err != nil {
			return err
		}
		v.writable = true
	}
	v.readOnly.Store(readOnly)
	if readOnly && v.writable {
		v.reclaim.settle() // what was removed before
	}
	return nil
}

// prepare makes a tree ready to be written to: it finds out what numbers are free, and
// removes what a crash has left.
func (v *view) prepare() error {
	last, err := v.lastObject()
	if err != nil {
		return failed("find the last object", 0, err)
	}
	v.next = last + 1
	if err := v.countObjects(); err != nil {
		return failed("count the objects", 0, err)
	}
	return v.recover()
}

// countObjects makes objects right. The pool tells what is durable, and an earlier
// mount may have left changes that are on their way: where the number matters, it
// waits for them.
func (v *view) countObjects() error {
	if v.maxObjects() < math.MaxInt64 {
		var nothing blockpool.Batch
		if err := v.tree.ShareRecords(v.fs.ctx, &nothing, v.tree, blockpool.Share{SrcObject: rootObject, DstObject: rootObject}); err != nil {
			return err
		}
	}
	v.objects.Store(int64(min(v.tree.Objects(), blockpool.MaxObject)))
	return nil
}

// recountObjects makes objects right in a mount that could do without. What comes or
// goes meanwhile is counted if it is quiet for a moment; else it is right again at the
// next mount.
func (v *view) recountObjects() error {
	for range 3 {
		before, count := v.objects.Load(), int64(0)
		err := v.items(inodeKey(rootObject), appendKey(keyInode+1), func(_, _ []byte) (bool, error) {
			count++
			return true, nil
		})
		if err != nil {
			return failed("count the objects", 0, err)
		}
		if v.objects.Add(count-before) == count {
			break
		}
	}
	return nil
}

// maxObjects returns how many objects there may be.
func (v *view) maxObjects() int64 {
	if limit := v.maxInodes.Load(); limit > 0 {
		return int64(min(limit, math.MaxInt64))
	}
	return math.MaxInt64
}

// maxSize is how long a file can be.
func (v *view) maxSize() int64 { return min(maxRecords, math.MaxInt64/v.size) * v.size }

// numberOf returns the number that an object of the tree has in the mount.
func (v *view) numberOf(object uint64) uint64 { return v.id<<objectBits | object }

// objectBits is how many bits of the number of a node are the object's.
const objectBits = 31

// errStop ends a walk that has seen enough.
var errStop = errors.New("enough")

// items walks items until f returns false.
func (v *view) items(from, to []byte, f func(key, value []byte) (more bool, err error)) error {
	err := v.tree.Items(from, to, func(key, value []byte) error {
		more, err := f(key, value)
		if err == nil && !more {
			err = errStop
		}
		return err
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// lastObject returns the highest number of an object, 0 where there is none. The
// tree has no way to look from behind, but it can tell whether there is one from a
// number on.
func (v *view) lastObject() (uint64, error) {
	low, high := uint64(0), uint64(blockpool.MaxObject) // the last one is at least low, at most high
	for low < high {
		mid := low + (high-low+1)/2
		found := uint64(0)
		err := v.items(inodeKey(mid), appendKey(keyInode+1), func(key, _ []byte) (bool, error) {
			if !keyNumbers(key, &found) || found > blockpool.MaxObject {
				return false, damagedf("key %x of an inode", key)
			}
			return false, nil
		})
		if err != nil {
			return 0, err
		}
		if found == 0 {
			high = mid - 1
		} else {
			low = found
		}
	}
	return low, nil
}

// allocate returns the number of an object that there is not: one that was never
// in use since the mount, as long as there is any. ENOSPC tells that all are taken.
func (v *view) allocate() (uint64, error) {
	v.allocMu.Lock()
	defer v.allocMu.Unlock()
	for round := 0; round < 2; round++ {
		if v.next <= blockpool.MaxObject {
			object := v.next
			if !v.wrapped {
				v.next++
				return object, nil
			}
			object, err := v.freeFrom(object)
			if err != nil {
				return 0, err
			}
			if object <= blockpool.MaxObject {
				v.next = object + 1
				return object, nil
			}
		}
		v.next, v.wrapped = rootObject+1, true
	}
	return 0, unix.ENOSPC
}

// freeFrom returns the first number from object on that is not in use, above
// MaxObject if all are.
func (v *view) freeFrom(object uint64) (uint64, error) {
	err := v.items(inodeKey(object), appendKey(keyInode+1), func(key, _ []byte) (bool, error) {
		var taken uint64
		if !keyNumbers(key, &taken) {
			return false, damagedf("key %x of an inode", key)
		}
		for object < taken && v.fs.nodes.get(v.numberOf(object)) != nil {
			object++
		}
		if object == taken {
			object++
		}
		return object > taken, nil
	})
	for err == nil && v.fs.nodes.get(v.numberOf(object)) != nil {
		object++
	}
	return object, err
}

// readInode returns the inode of an object, as the tree has it. Without one it is
// damage, as something has led to it.
func (v *view) readInode(object uint64) (inode, error) {
	b, err := v.tree.Item(inodeKey(object))
	if err != nil {
		return inode{}, failed("read the inode", object, err)
	}
	if b == nil {
		return inode{}, failed("read the inode", object, damagedf("there is none"))
	}
	in, err := unpackInode(b)
	if err != nil {
		return inode{}, failed("read the inode", object, err)
	}
	if in.size > v.maxSize() || in.trim && in.isDir() {
		return inode{}, failed("read the inode", object, damagedf("%d bytes", in.size))
	}
	return in, nil
}

// A slot is where a name is found among those with the same hash, or could be put.
type slot struct {
	entry entry
	pos   uint64 // of the entry, or the lowest that is free
	found bool
	full  bool // no position is free
}

// find looks for a name in a directory. That it is there, and that no other one has
// its hash, is what it is quick to see.
func (v *view) find(dir uint64, name string) (s slot, err error) {
	s.pos = v.super.position(name)
	b, err := v.tree.Item(entryKey(dir, s.pos))
	if err != nil {
		return s, failed("look for "+name, dir, err)
	}
	if b != nil {
		if e, err := unpackEntry(b); err == nil && e.name == name {
			return slot{entry: e, pos: s.pos, found: true}, nil
		}
	}
	return v.findAmong(dir, name)
}

// findAmong looks for a name in a directory, and for a free position, among those
// with the same hash.
func (v *view) findAmong(dir uint64, name string) (s slot, err error) {
	s.pos = v.super.position(name)
	end := s.pos + collisions
	free := s.pos
	err = v.items(entryKey(dir, s.pos), entryKey(dir, end), func(key, value []byte) (bool, error) {
		e, err := unpackEntry(value)
		if err != nil {
			return false, err
		}
		var d, pos uint64
		if !keyNumbers(key, &d, &pos) {
			return false, damagedf("key %x of a directory entry", key)
		}
		if pos == free {
			free++
		}
		if e.name == name {
			s.entry, s.pos, s.found = e, pos, true
		}
		return !s.found, nil
	})
	if err != nil {
		return s, failed("look for "+name, dir, err)
	}
	if !s.found {
		s.pos, s.full = free, free == end
	}
	return s, nil
}

// A cycle finds out that a way leads in circles, without remembering it (Brent, "An
// improved Monte Carlo factorization algorithm").
type cycle struct{ mark, steps, limit uint64 }

// closed reports whether the way, which comes to an object, was there before. It
// says so after some rounds.
func (c *cycle) closed(object uint64) bool {
	if object == c.mark {
		return true
	}
	if c.steps++; c.steps >= c.limit {
		c.mark, c.steps, c.limit = object, 0, 2*c.limit+1
	}
	return false
}
