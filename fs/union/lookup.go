package union

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// Lookup finds a name in directory p and returns its node, with one more
// reference, and its attributes. ENOENT tells that the name does not exist.
func (fs *FS) Lookup(p *Node, name string) (*Node, Attr, error) {
	fs.stats.Lookups.Add(1)
	if p.dir == nil {
		return nil, Attr{}, unix.ENOTDIR
	}
	if err := layer.CheckName(name); err != nil {
		return nil, Attr{}, err
	}
	n, st, err := fs.lookup(p, name)
	if err != nil {
		return nil, Attr{}, err
	}
	if st == nil {
		a, err := fs.GetAttr(n)
		if err != nil {
			fs.Forget(n, 1)
			return nil, Attr{}, err
		}
		return n, a, nil
	}
	return n, fs.shown(n, *st), nil
}

// lookup returns the node of a name, with one more reference. The attributes
// come along where finding the node has told them.
func (fs *FS) lookup(p *Node, name string) (*Node, *layer.Stat, error) {
	n, _, st, err := fs.lookupEntry(p, name, false)
	return n, st, err
}

// lookupEntry is lookup, but where virtual allows it, and there is no node yet,
// it returns an id instead of one.
func (fs *FS) lookupEntry(p *Node, name string, virtual bool) (*Node, uint64, *layer.Stat, error) {
	d := p.dir
	for {
		d.mu.RLock()
		part := 0
		if e := d.table.get(name); e != nil {
			if e.node != nil {
				e.node.ref()
				n := e.node
				d.mu.RUnlock()
				return n, 0, nil, nil
			}
			part = int(e.part)
		} else if d.table.complete {
			d.mu.RUnlock()
			return nil, 0, nil, unix.ENOENT
		}
		f, err := fs.resolve(p, name, part)
		gen := d.gen
		d.mu.RUnlock()
		if err != nil {
			return nil, 0, nil, err
		}
		if f == nil {
			fs.missed(p, name, gen)
			return nil, 0, nil, unix.ENOENT
		}
		d.mu.Lock()
		if e := d.table.get(name); e != nil && e.node != nil {
			e.node.ref()
			n := e.node
			d.mu.Unlock()
			return n, 0, nil, nil
		}
		if d.gen != gen {
			d.mu.Unlock()
			continue
		}
		if virtual && f.mayBeVirtual(name) {
			id := fs.refEntry(p, name, f)
			d.mu.Unlock()
			return nil, id, &f.st, nil
		}
		n, err := fs.attach(p, name, f)
		d.mu.Unlock()
		if err == nil && n.isUpper() && !f.upper && n.dir == nil {
			return n, 0, nil, nil // copied up under another name
		}
		return n, 0, &f.st, err
	}
}

// missesBeforeListing bounds what is spent on absent names before the whole
// directory is listed, which answers all further ones for nothing.
const missesBeforeListing = 64

// missed notes that an absent name took a look into every part of a directory.
func (fs *FS) missed(p *Node, name string, gen uint64) {
	d := p.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	d.absent, d.absentGen = name, gen
	if !d.merged() {
		return
	}
	d.misses += 1 + len(d.lowers())
	if d.misses >= missesBeforeListing && !d.table.complete {
		// An error shows up again where it matters, in the next lookup.
		_ = fs.completeLocked(p)
		d.misses = 0
	}
}

// attach gives the found object its node, with one reference, and enters it
// into the table. The lock of p is held for writing.
func (fs *FS) attach(p *Node, name string, f *found) (*Node, error) {
	n, err := fs.nodeFor(p, name, f)
	if err != nil {
		return nil, err
	}
	fs.adopt(p, n, name, fs.partOf(p.dir, f.top.dir))
	return n, nil
}

// partOf returns the number of the part that a directory of a layer is.
func (fs *FS) partOf(d *dirNode, rd *realDir) int16 {
	for i, l := range d.lowers() {
		if l == rd {
			return int16(i + 1)
		}
	}
	return 0
}

// nodeFor returns the node of an object, new or, for one of several names, the
// one that is known, with one more reference.
func (fs *FS) nodeFor(p *Node, name string, f *found) (*Node, error) {
	switch {
	case f.isDir():
	case f.st.Nlink > 1 && (f.upper || fs.index != nil), f.upper && fs.hasKey(inoKey{f.st.Dev, f.st.Ino}):
		return fs.linkedNode(p, name, f)
	}
	return fs.newNode(p, name, f), nil
}

// newNode makes the node of a found object, with one reference. The lock of p is
// held.
func (fs *FS) newNode(p *Node, name string, f *found) *Node {
	n := &Node{parent: p, name: name, typ: f.st.Type()}
	if e := p.dir.table.get(name); e != nil && e.ino != 0 {
		// The number that was listed. Where the upper cannot note what an
		// object is a copy of, its own would be another one.
		n.ino.Store(e.ino)
	} else {
		n.ino.Store(fs.inoOf(f))
	}
	n.refs.Store(1)
	if f.isDir() {
		d := &dirNode{impure: f.upper && f.m.impure}
		d.setLowers(f.lowers)
		if f.upper {
			d.redirect.Store(f.m.redirect)
		}
		if f.upperDir != nil {
			d.upper.Store(f.upperDir)
		}
		n.dir = d
		fs.virtual.addDir(n)
		return n
	}
	if f.upper {
		n.set(stateUpper)
		if f.m.origin != nil {
			n.set(stateOrigin)
		}
	} else {
		n.lower = f.top.dir
		if f.top.name != name {
			n.extLocked().lowerName = f.top.name
		}
		if f.m.none {
			n.set(stateNoXattrs)
		}
	}
	if f.data.dir != nil {
		n.set(stateMetacopy)
		n.extLocked().data = f.data
	}
	return n
}

// inoOf returns the inode number that the union shows for an object: that of
// the lower object wherever there is or was one, so that it does not change
// when the object is copied up.
func (fs *FS) inoOf(f *found) uint64 {
	if f.isDir() && len(f.lowers) > 0 {
		return f.lowerIno
	}
	if f.upper && !f.isDir() {
		if ino, ok := fs.inos.fromOrigin(f.m.origin); ok {
			return ino
		}
	}
	return fs.inos.compose(f.st.Dev, f.st.Ino)
}

// GetAttr returns the attributes of a node.
func (fs *FS) GetAttr(n *Node) (Attr, error) {
	st, err := fs.stat(n)
	if err != nil {
		return Attr{}, err
	}
	return fs.shown(n, st), nil
}

// stat returns the attributes of the object that provides a node.
func (fs *FS) stat(n *Node) (layer.Stat, error) {
	if !n.has(stateMetacopy) { // whose open data is another object
		if h := n.file.acquire(); h != nil {
			defer h.release()
			return h.obj.Stat()
		}
	}
	var st layer.Stat
	err := fs.withObject(n, objectOps{
		dir:  func(d layer.Dir) (err error) { st, err = d.Stat(); return err },
		at:   func(d layer.Dir, name string) (err error) { st, err = d.StatAt(name); return err },
		open: func(o layer.Object) (err error) { st, err = o.Stat(); return err },
	})
	return st, err
}

// shown turns the attributes of an object into those of its node.
func (fs *FS) shown(n *Node, st layer.Stat) Attr {
	st.Ino = n.Ino()
	st.MountRoot = false
	switch {
	case fs.opt.StaticNlink:
		st.Nlink = 1
	case n.dir != nil:
		if n.dir.merged() && n.dir.upper.Load() != nil || len(n.dir.lowers()) > 1 {
			st.Nlink = 1 // as overlayfs: nobody has counted
		}
	default:
		st.Nlink = fs.shownNlink(n, st.Nlink)
	}
	if n.has(stateMetacopy) {
		st.Blocks = (st.Size + 511) / 512
	}
	return st
}

// objectOps are ways to do one thing to an object, whatever kind of handle
// leads to it. at and dir may be nil where open serves.
type objectOps struct {
	dir  func(layer.Dir) error                // an open directory
	at   func(d layer.Dir, name string) error // by name, below an open directory
	open func(layer.Object) error             // an open object
}

func (ops objectOps) onDir(d layer.Dir) error {
	if ops.dir != nil {
		return ops.dir(d)
	}
	return ops.open(d)
}

func (ops objectOps) onName(d layer.Dir, name string) error {
	if ops.at != nil {
		return ops.at(d, name)
	}
	o, err := d.Lookup(name)
	if err != nil {
		return err
	}
	defer o.Close()
	return ops.open(o)
}

// withObject does something to the topmost object of a node, wherever it is
// now.
func (fs *FS) withObject(n *Node, ops objectOps) error {
	if n.dir != nil {
		rd := n.dir.upper.Load()
		if rd == nil {
			n.dir.mu.RLock()
			if lowers := n.dir.lowers(); len(lowers) > 0 {
				rd = lowers[0]
			}
			n.dir.mu.RUnlock()
		}
		if rd == nil {
			return unix.ESTALE
		}
		h, err := rd.open(fs)
		if err != nil {
			return err
		}
		defer h.release()
		return ops.onDir(h.obj)
	}
	for {
		if !n.has(stateUpper) {
			at := n.lowerPlace()
			if at.dir == nil {
				return unix.ESTALE
			}
			h, err := at.dir.open(fs)
			if err != nil {
				return err
			}
			defer h.release()
			return ops.onName(h.obj, at.name)
		}
		if done, err := fs.withUpperFile(n, ops); done {
			return err
		}
	}
}

// withUpperFile does something to an upper object that is no directory; false
// tells that it moved meanwhile.
func (fs *FS) withUpperFile(n *Node, ops objectOps) (bool, error) {
	n.mu.Lock()
	p, name := n.parent, n.name
	var pin layer.Object
	if n.ext != nil {
		pin = n.ext.pinObj
	}
	n.mu.Unlock()
	if pin != nil {
		return true, ops.open(pin)
	}
	if p == nil {
		return true, unix.ESTALE
	}
	p.dir.mu.RLock()
	defer p.dir.mu.RUnlock()
	if q, qname := n.where(); q != p || qname != name {
		return false, nil
	}
	h, err := p.dir.upper.Load().open(fs)
	if err != nil {
		return true, err
	}
	defer h.release()
	return true, ops.onName(h.obj, name)
}

// Readlink returns the target of a symbolic link.
func (fs *FS) Readlink(n *Node) (target string, err error) {
	if n.typ != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	err = fs.withObject(n, objectOps{
		at:   func(d layer.Dir, name string) (err error) { target, err = d.ReadlinkAt(name); return err },
		open: func(o layer.Object) (err error) { target, err = o.Readlink(); return err },
	})
	return target, err
}

// retryOpen opens something, and once more after closing idle handles when
// the process or the system has run out of descriptors.
func retryOpen[T any](fs *FS, open func() (T, error)) (T, error) {
	v, err := open()
	if err == unix.EMFILE || err == unix.ENFILE {
		fs.handles.shrink(64)
		return open()
	}
	return v, err
}
