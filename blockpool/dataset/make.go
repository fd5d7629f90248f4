package dataset

import (
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// A birth describes an object about to be made.
type birth struct {
	typ    uint32 // S_IFMT bits
	mode   uint32 // permission bits as asked for
	rdev   uint64
	target string // of a symbolic link
	caller Caller
}

// Create makes a regular file and returns its node with one reference.
func (fs *FS) Create(p *Node, name string, mode uint32, c Caller) (*Node, Attr, error) {
	return fs.make(p, name, birth{typ: unix.S_IFREG, mode: mode, caller: c})
}

// Mknod makes a regular file, FIFO, socket or device, as mknod(2) does.
func (fs *FS) Mknod(p *Node, name string, mode uint32, rdev uint64, c Caller) (*Node, Attr, error) {
	b := birth{typ: mode & unix.S_IFMT, mode: mode, rdev: rdev, caller: c}
	switch b.typ {
	case 0:
		b.typ = unix.S_IFREG
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK:
	case unix.S_IFDIR:
		return nil, Attr{}, unix.EPERM
	default:
		return nil, Attr{}, unix.EINVAL
	}
	if rdev > 1<<32-1 {
		return nil, Attr{}, unix.EINVAL
	}
	return fs.make(p, name, b)
}

// Mkdir makes a directory.
func (fs *FS) Mkdir(p *Node, name string, mode uint32, c Caller) (*Node, Attr, error) {
	return fs.make(p, name, birth{typ: unix.S_IFDIR, mode: mode, caller: c})
}

// Symlink makes a symbolic link to target.
func (fs *FS) Symlink(p *Node, name, target string, c Caller) (*Node, Attr, error) {
	switch {
	case target == "":
		return nil, Attr{}, unix.ENOENT
	case len(target) >= pathMax:
		return nil, Attr{}, unix.ENAMETOOLONG
	}
	return fs.make(p, name, birth{typ: unix.S_IFLNK, mode: 0o777, target: target, caller: c})
}

// make makes an object with a name: its inode, the entry, and what it inherits, in
// one batch.
func (fs *FS) make(p *Node, name string, b birth) (*Node, Attr, error) {
	if err := fs.mayChangeNames(p, name); err != nil {
		return nil, Attr{}, err
	}
	if err := p.lock(); err != nil {
		return nil, Attr{}, err
	}
	defer p.mu.Unlock()
	at, err := fs.freeSlotLocked(p, name)
	if err != nil {
		return nil, Attr{}, err
	}
	s := p.view.step()
	defer s.end()
	n, err := fs.bear(s, p, &b)
	if err != nil {
		return nil, Attr{}, err
	}
	in := s.edit(n)
	in.nlink, in.parent, in.pos = 1, p.object, at.pos
	if b.typ == unix.S_IFDIR {
		in.nlink = 2
	}
	s.enter(p, at.pos, entry{typ: b.typ, object: n.object, name: name})
	return fs.present(s, n, "make "+name)
}

// present commits the step that makes an object and lets others see its node.
func (fs *FS) present(s *step, n *Node, op string) (*Node, Attr, error) {
	if err := s.commit(op, n.object); err != nil {
		return nil, Attr{}, err
	}
	a := n.attr() // while nobody else knows the node
	return fs.nodes.add(n), a, nil
}

// mayChangeNames refuses what cannot be a change of a directory.
func (fs *FS) mayChangeNames(p *Node, names ...string) error {
	if p.IsDir() && (p.view == nil || p.view.readOnly.Load()) {
		return unix.EROFS
	}
	for _, name := range names {
		if err := checkName(name); err != nil {
			return err
		}
		if fs.reserved(p, name) {
			return unix.EROFS
		}
	}
	return nil
}

// freeSlotLocked returns the place for a new name in directory p, which is locked.
func (fs *FS) freeSlotLocked(p *Node, name string) (slot, error) {
	switch {
	case !p.in.isDir():
		return slot{}, unix.ENOTDIR
	case p.in.nlink == 0:
		return slot{}, unix.ENOENT // removed
	}
	s, err := p.view.findAmong(p.object, name) // nobody asks for what is there
	switch {
	case err != nil:
		return slot{}, err
	case s.found:
		return slot{}, unix.EEXIST
	case p.in.flags&flagImmutable != 0:
		return slot{}, unix.EPERM
	case s.full:
		return slot{}, failed("enter "+name, p.object, unix.ENOSPC)
	}
	return s, nil
}

// bear adds a new object without a name to a step, with what it takes over from
// directory p. Its node is in no table yet.
func (fs *FS) bear(s *step, p *Node, b *birth) (n *Node, err error) {
	v := p.view
	in := inode{
		mode: b.typ | b.mode&0o7777, uid: b.caller.UID, gid: b.caller.GID, rdev: uint32(b.rdev), gen: 1 + rand.Uint32N(1<<31),
		flags: inheritedFlags(p.in.flags, b.typ),
		atime: s.now, mtime: s.now, ctime: s.now, btime: s.now,
	}
	if p.in.mode&unix.S_ISGID != 0 {
		in.gid = p.in.gid
		if b.typ == unix.S_IFDIR {
			in.mode |= unix.S_ISGID
		}
	}
	acl, err := v.defaultACL(p)
	if err != nil {
		return nil, err
	}
	object, err := s.born()
	if err != nil {
		return nil, err
	}
	n = &Node{id: v.numberOf(object), object: object, view: v, noCaps: true}
	n.in = &in
	switch in := s.edit(n); {
	case b.typ == unix.S_IFLNK:
		in.size = int64(len(b.target))
		if len(b.target) <= maxInlineTarget {
			in.target = b.target
		} else {
			s.Write(object, 0, []byte(b.target))
			in.mapped = uint64((in.size + v.size - 1) / v.size)
		}
	case acl == nil:
		in.mode &^= b.caller.Umask & 0o777
	default:
		if err := s.inheritACL(n, acl); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// Tmpfile makes a regular file that has no name yet; Link can give it one.
//
// Crash before Link: the file goes at the next mount.
func (fs *FS) Tmpfile(p *Node, mode uint32, c Caller) (*Node, Attr, error) {
	if err := fs.mayChangeNames(p); err != nil {
		return nil, Attr{}, err
	}
	if err := p.rlock(); err != nil {
		return nil, Attr{}, err
	}
	defer p.mu.RUnlock()
	switch {
	case !p.in.isDir():
		return nil, Attr{}, unix.ENOTDIR
	case p.in.nlink == 0:
		return nil, Attr{}, unix.ENOENT
	case p.in.flags&flagImmutable != 0:
		return nil, Attr{}, unix.EPERM
	}
	s := p.view.step()
	defer s.end()
	n, err := fs.bear(s, p, &birth{typ: unix.S_IFREG, mode: mode, caller: c})
	if err != nil {
		return nil, Attr{}, err
	}
	n.linkable = true
	s.markOrphan(n)
	return fs.present(s, n, "make a file without a name")
}

// Link gives the object of a node, no directory, another name in directory p. The
// node has one more reference then: to the kernel the reply is that to a lookup.
func (fs *FS) Link(n, p *Node, name string) (Attr, error) {
	if n.IsDir() {
		return Attr{}, unix.EPERM
	}
	if err := fs.mayChangeNames(p, name); err != nil {
		return Attr{}, err
	}
	if n.view != p.view {
		return Attr{}, unix.EXDEV
	}
	unlock, err := lockAll(n, p)
	if err != nil {
		return Attr{}, err
	}
	defer unlock()
	at, err := fs.freeSlotLocked(p, name)
	switch {
	case err != nil:
		return Attr{}, err
	case n.in.flags&(flagImmutable|flagAppend) != 0:
		return Attr{}, unix.EPERM
	case n.in.nlink == 0 && !n.linkable:
		return Attr{}, unix.ENOENT
	case n.in.nlink >= maxLinks:
		return Attr{}, unix.EMLINK
	}
	s := p.view.step()
	in := s.change(n)
	in.nlink++
	if in.nlink == 1 {
		in.parent, in.pos = p.object, at.pos
		s.markOrphan(n)
	} else {
		s.Put(linkKey(n.object, p.object, at.pos), nil)
	}
	s.enter(p, at.pos, entry{typ: in.typ(), object: n.object, name: name})
	if err := s.commit("link "+name, n.object); err != nil {
		return Attr{}, err
	}
	n.linkable = false
	fs.nodes.ref(n)
	return n.attr(), nil
}
