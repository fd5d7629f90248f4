package dataset

import (
	"golang.org/x/sys/unix"
)

// Lookup finds a name in directory p and returns its node, with one more
// reference, and its attributes. ENOENT tells that the name does not exist.
func (fs *FS) Lookup(p *Node, name string) (*Node, Attr, error) {
	fs.stats.Lookups.Add(1)
	if err := checkName(name); err != nil {
		return nil, Attr{}, err
	}
	if p.view == nil || fs.reserved(p, name) {
		return fs.lookupVirtual(p, name)
	}
	if err := p.rlock(); err != nil {
		return nil, Attr{}, err
	}
	e, n, err := fs.childLocked(p, name)
	p.mu.RUnlock()
	if err != nil {
		return nil, Attr{}, err
	}
	if e.subvol {
		return fs.enterSubvolume(p, e.object)
	}
	a, err := fs.checkedAttr(p, name, e, n)
	if err != nil {
		fs.Forget(n, 1)
		return nil, Attr{}, err
	}
	return n, a, nil
}

// LookupID is Lookup for who needs no node: it returns the node's id, with one more
// reference to give back through [FS.ForgetID], and its attributes.
func (fs *FS) LookupID(p *Node, name string) (uint64, Attr, error) {
	n, a, err := fs.Lookup(p, name)
	if err != nil {
		return 0, Attr{}, err
	}
	return n.id, a, nil
}

// childLocked returns the entry that directory p, which is locked, has for a name,
// and the node of its object with one more reference; nil for a subvolume.
func (fs *FS) childLocked(p *Node, name string) (entry, *Node, error) {
	if !p.in.isDir() {
		return entry{}, nil, unix.ENOTDIR
	}
	s, err := p.view.find(p.object, name)
	if err != nil {
		return entry{}, nil, err
	}
	if !s.found {
		return entry{}, nil, unix.ENOENT
	}
	if s.entry.subvol {
		return s.entry, nil, nil
	}
	return s.entry, fs.nodes.grab(p.view, s.entry.object), nil
}

// checkedAttr returns the attributes of what an entry has led to. An entry and an
// inode that contradict each other are damage, unless both have just changed.
func (fs *FS) checkedAttr(p *Node, name string, e entry, n *Node) (Attr, error) {
	if err := n.rlock(); err != nil {
		return Attr{}, err
	}
	a, err := n.attr(), n.checkAgainst(p, e)
	n.mu.RUnlock()
	if err == nil {
		return a, nil
	}
	unlock, err := lockAll(p, n)
	if err != nil {
		return Attr{}, err
	}
	defer unlock()
	s, err := p.view.find(p.object, name)
	switch {
	case err != nil:
		return Attr{}, err
	case s.found && s.entry == e:
		err = n.checkAgainst(p, e)
	}
	return n.attr(), err
}

// checkAgainst compares a locked node with the entry that has led to it.
func (n *Node) checkAgainst(p *Node, e entry) error {
	var err error
	switch {
	case n.in.typ() != e.typ:
		err = damagedf("mode %o, but directory %d says %o", n.in.mode, p.object, e.typ)
	case n.in.nlink == 0:
		err = damagedf("no links, but directory %d has %q", p.object, e.name)
	case n.in.isDir() && n.in.parent != p.object:
		err = damagedf("a directory in %d, but directory %d has %q", n.in.parent, p.object, e.name)
	default:
		return nil
	}
	return failed("look up", n.object, err)
}

// GetAttr returns the attributes of a node.
func (fs *FS) GetAttr(n *Node) (Attr, error) {
	if err := n.rlock(); err != nil {
		return Attr{}, err
	}
	defer n.mu.RUnlock()
	return n.attr(), nil
}

// ParentIno returns the inode number of the directory that holds directory n, the
// root's own for the root.
func (fs *FS) ParentIno(n *Node) uint64 {
	if n.view == nil {
		return n.virtual.parentIno
	}
	if n.object == rootObject && n != fs.root {
		return n.view.parentIno.Load()
	}
	if n.rlock() != nil {
		return n.id
	}
	defer n.mu.RUnlock()
	return n.view.numberOf(n.in.parent)
}

// listChunk is how many entries of a directory are read at once.
const listChunk = 256

// ReadDir lists directory p from position pos, 0 being the start, by calling emit
// until it returns false. "." and ".." are not listed. Positions stay valid while
// the directory changes and over mounts: a name that is there all the time is
// listed exactly once.
func (fs *FS) ReadDir(p *Node, pos uint64, emit func(Listed) bool) error {
	if p.view == nil {
		return fs.readVirtual(p, pos, emit)
	}
	list := make([]Listed, 0, 16)
	for {
		var err error
		if list, err = fs.readChunk(p, pos, list[:0]); err != nil {
			return err
		}
		for _, e := range list {
			if !emit(e) {
				return nil
			}
			pos = e.Pos
		}
		if len(list) < listChunk {
			break
		}
	}
	if pos <= hiddenPos && fs.opt.Load().ShowHidden && fs.reserved(p, hiddenName) {
		emit(Listed{Name: hiddenName, Ino: virtualIno | virtualHidden, Type: unix.S_IFDIR, Pos: hiddenPos + 1})
	}
	return nil
}

// hiddenPos is the position of the hidden directory in a listing that shows it, behind
// all others.
const hiddenPos = 1 << 62

// readChunk appends entries from pos on to list.
func (fs *FS) readChunk(p *Node, pos uint64, list []Listed) ([]Listed, error) {
	if err := p.rlock(); err != nil {
		return nil, err
	}
	defer p.mu.RUnlock()
	if !p.in.isDir() {
		return nil, unix.ENOTDIR
	}
	v := p.view
	err := v.items(entryKey(p.object, pos), entryKey(p.object+1, 0), func(key, value []byte) (bool, error) {
		e, err := unpackEntry(value)
		if err != nil {
			return false, err
		}
		var dir, at uint64
		if !keyNumbers(key, &dir, &at) || at >= 1<<62 {
			return false, damagedf("key %x of a directory entry", key)
		}
		ino := v.numberOf(e.object)
		if e.subvol {
			ino = v.subvolumeIno(e.object)
		}
		list = append(list, Listed{Name: e.name, Ino: ino, Type: e.typ, Pos: at + 1})
		return len(list) < listChunk, nil
	})
	if err != nil {
		return nil, failed("list", p.object, err)
	}
	return list, nil
}

// Readlink returns the target of a symbolic link.
func (fs *FS) Readlink(n *Node) (target string, err error) {
	if err := n.rlock(); err != nil {
		return "", err
	}
	defer n.mu.RUnlock()
	if n.in.typ() != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	if n.in.target != "" || n.in.size == 0 {
		return n.in.target, nil
	}
	b := make([]byte, n.in.size)
	if err := n.view.tree.ReadObject(n.object, b, 0); err != nil {
		return "", failed("read the target", n.object, err)
	}
	return string(b), nil
}
