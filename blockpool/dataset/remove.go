package dataset

import (
	"golang.org/x/sys/unix"
)

// Unlink removes a name that is no directory. The object stays usable for who has
// its node.
func (fs *FS) Unlink(p *Node, name string) error {
	return fs.remove(p, name, func(n *Node) error {
		if n.in.isDir() {
			return unix.EISDIR
		}
		return nil
	})
}

// Rmdir removes an empty directory. A nested subvolume is EBUSY: it goes with its
// tree.
func (fs *FS) Rmdir(p *Node, name string) error {
	return fs.remove(p, name, func(n *Node) error {
		if !n.in.isDir() {
			return unix.ENOTDIR
		}
		return n.emptyLocked()
	})
}

// emptyLocked returns ENOTEMPTY for a directory that has entries. Entries count,
// not the size that the inode tells: they would be lost.
func (n *Node) emptyLocked() error {
	err := n.view.items(entryKey(n.object, 0), entryKey(n.object+1, 0), func(_, _ []byte) (bool, error) {
		return false, unix.ENOTEMPTY
	})
	if err != nil && err != unix.ENOTEMPTY {
		return failed("look into the directory", n.object, err)
	}
	return err
}

// remove takes a name away, if the flags of chattr(1) and then allowed say so: what may
// not go says that, and not what else is in the way (may_delete in fs/namei.c).
func (fs *FS) remove(p *Node, name string, allowed func(n *Node) error) error {
	if err := fs.mayChangeNames(p, name); err != nil {
		return err
	}
	var at slot
	find := func() (found []*Node, err error) {
		at, found, err = fs.takenLocked(p, name)
		if err == nil && at.entry.subvol {
			err = unix.EBUSY
		}
		return found, err
	}
	return fs.withFound([]*Node{p}, find, func(found []*Node) error {
		n := found[0]
		if err := n.checkAgainst(p, at.entry); err != nil {
			return err
		}
		if err := mayGo(p, n); err != nil {
			return err
		}
		if err := allowed(n); err != nil {
			return err
		}
		s := p.view.step()
		s.Frees = true
		s.leave(p, at.pos, at.entry.typ)
		if err := s.unname(n, p.object, at.pos); err != nil {
			return err
		}
		return s.commit("remove "+name, n.object)
	})
}

// takenLocked returns the place of a name in directory p, which is locked, and the
// node that it leads to, with one more reference; none for a subvolume.
func (fs *FS) takenLocked(p *Node, name string) (slot, []*Node, error) {
	if !p.in.isDir() {
		return slot{}, nil, unix.ENOTDIR
	}
	at, err := p.view.find(p.object, name)
	switch {
	case err != nil:
		return at, nil, err
	case !at.found:
		return at, nil, unix.ENOENT
	case at.entry.subvol:
		return at, nil, nil
	}
	return at, []*Node{fs.nodes.grab(p.view, at.entry.object)}, nil
}

// mayGo asks the flags of chattr(1) whether n may lose a name in p.
func mayGo(p, n *Node) error {
	if (p.in.flags|n.in.flags)&(flagImmutable|flagAppend) != 0 {
		return unix.EPERM
	}
	return nil
}

// unname takes the name at a position of a directory away from an object, whose
// entry the step has removed. Without a name an object that nobody else uses goes at
// once, if that is little work; else it is an orphan.
//
// Crash before the last user is gone: an orphan, which the next mount removes.
func (s *step) unname(n *Node, dir, pos uint64) error {
	in := s.change(n)
	if !in.isDir() && in.nlink > 1 {
		in.nlink--
		return s.dropLink(n, in, dir, pos)
	}
	in.nlink = 0
	if s.v.fs.nodes.alone(n) && in.mapped <= maxDrop && in.xattrs == 0 && !in.trim {
		s.editOf(n).gone = true
		if in.mapped > 0 {
			s.Zero(n.object, 0, toEnd)
		}
		return nil
	}
	s.markOrphan(n)
	return nil
}

// markOrphan says what the next mount has to remove of an object, after a change of
// its links or its tail.
func (s *step) markOrphan(n *Node) {
	switch in := s.edit(n); {
	case in.nlink == 0:
		s.Put(orphanKey(n.object), []byte{orphanRemove})
	case in.trim:
		s.Put(orphanKey(n.object), []byte{orphanTrim})
	default:
		s.Delete(orphanKey(n.object))
	}
}

// dropLink forgets one name of an object with several. If the inode tells of that
// one, another one takes its place.
func (s *step) dropLink(n *Node, in *inode, dir, pos uint64) error {
	if in.parent != dir || in.pos != pos {
		s.Delete(linkKey(n.object, dir, pos))
		return nil
	}
	found, err := s.nextLink(n, in)
	if err == nil && !found {
		err = damagedf("%d links, and no further name", in.nlink+1)
	}
	if err != nil {
		return failed("remove a link", n.object, err)
	}
	s.Delete(linkKey(n.object, in.parent, in.pos))
	return nil
}

// nextLink has an inode tell the name behind the one that it tells, or the first one
// where that is the last. Names mostly go in the order of a listing, which is that of
// their items too: so the next one is near. In front of it are all that went before,
// and each look from there would pass them one by one until their txg is written.
func (s *step) nextLink(n *Node, in *inode) (found bool, err error) {
	first, told, end := linkKey(n.object, 0, 0), linkKey(n.object, in.parent, in.pos), linkKey(n.object+1, 0, 0)
	take := func(key, _ []byte) (bool, error) {
		var object uint64
		if found = keyNumbers(key, &object, &in.parent, &in.pos); !found {
			return false, damagedf("key %x of a link", key)
		}
		return false, nil
	}
	if err = s.v.items(told, end, take); err == nil && !found {
		err = s.v.items(first, told, take)
	}
	return found, err
}

// moveLink notes that a name of an object is at another place.
func (s *step) moveLink(n *Node, dir, pos, toDir, toPos uint64) {
	in := s.change(n)
	if in.parent == dir && in.pos == pos {
		in.parent, in.pos = toDir, toPos
		return
	}
	s.Delete(linkKey(n.object, dir, pos))
	s.Put(linkKey(n.object, toDir, toPos), nil)
}
