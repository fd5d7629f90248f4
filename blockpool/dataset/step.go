package dataset

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// A step is what one operation changes: a batch, and the inodes that are others
// once the batch was applied. All nodes in it are locked, and of one tree.
type step struct {
	blockpool.Batch
	v     *view
	now   Time
	edits []*edit
	// What is shared in the same step, if from is set.
	from  Tree
	share blockpool.Share
	// objects is how many are made, which are counted already, see born; deaths
	// how many are removed, which count until that was done.
	objects, deaths int64
}

type edit struct {
	n    *Node
	in   inode
	gone bool // the object goes
}

func (v *view) step() *step { return &step{v: v, now: v.fs.now()} }

// edit returns the inode of a node as it will be, to be changed.
func (s *step) edit(n *Node) *inode { return &s.editOf(n).in }

func (s *step) editOf(n *Node) *edit {
	for _, e := range s.edits {
		if e.n == n {
			return e
		}
	}
	e := &edit{n: n, in: *n.in}
	s.edits = append(s.edits, e)
	return e
}

// change is edit for what moves the time of the last change.
func (s *step) change(n *Node) *inode {
	in := s.edit(n)
	in.ctime = s.now
	return in
}

// commit applies the step. When it fails nothing has changed. The error tells which
// operation failed on which object.
func (s *step) commit(op string, object uint64) error {
	for _, e := range s.edits {
		if e.gone {
			s.die(e.n.object)
		} else {
			s.Put(inodeKey(e.n.object), e.in.pack())
		}
	}
	if err := s.v.apply(s); err != nil {
		return failed(op, object, err)
	}
	s.v.objects.Add(-s.deaths)
	s.objects, s.deaths = 0, 0
	for _, e := range s.edits {
		e.n.setLocked(&e.in)
		e.n.gone = e.gone
	}
	return nil
}

// apply hands a step to the tree. Where there is no room, it waits for what is
// being given back, and tries once more.
func (v *view) apply(s *step) error {
	v.fs.stats.Batches.Add(1)
	err := v.applyOnce(s)
	if err != nil && noRoom(err) && v.reclaim.settle() {
		err = v.applyOnce(s)
	}
	return err
}

func (v *view) applyOnce(s *step) error {
	if s.from != nil {
		return v.tree.ShareRecords(v.fs.ctx, &s.Batch, s.from, s.share)
	}
	return v.tree.Apply(v.fs.ctx, &s.Batch)
}

// born allots the object of a new inode, where the limit allows one more. It is
// counted at once, and not any more if the step comes to its end without being
// committed.
func (s *step) born() (object uint64, err error) {
	v := s.v
	if v.objects.Add(1) > v.maxObjects() && !(v.reclaim.settle() && v.objects.Load() <= v.maxObjects()) {
		err = unix.EDQUOT
	} else if object, err = v.allocate(); err == nil {
		s.objects++
		return object, nil
	}
	v.objects.Add(-1)
	return 0, failed("make an object", 0, err)
}

// die removes the inode of an object, and counts it once the step is committed.
func (s *step) die(object uint64) {
	s.Delete(inodeKey(object))
	s.deaths++
}

// end uncounts what a step would have made that was not committed.
func (s *step) end() { s.v.objects.Add(-s.objects) }

// enter gives a directory one more entry.
func (s *step) enter(p *Node, pos uint64, e entry) {
	in := s.change(p)
	in.mtime = s.now
	in.size++
	if e.typ == unix.S_IFDIR {
		in.nlink++
	}
	s.Put(entryKey(p.object, pos), e.pack())
}

// leave takes an entry of a directory away.
func (s *step) leave(p *Node, pos uint64, typ uint32) {
	s.lose(p, typ)
	s.Delete(entryKey(p.object, pos))
}

// lose counts an entry that a directory has no more.
func (s *step) lose(p *Node, typ uint32) {
	in := s.change(p)
	in.mtime = s.now
	in.size = max(0, in.size-1)
	if typ == unix.S_IFDIR {
		in.nlink = max(2, in.nlink-1)
	}
}
