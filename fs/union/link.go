package union

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// Link gives the object of a node, no directory, another name in directory p. The
// node has one more reference then: to the kernel the reply is that to a lookup.
func (fs *FS) Link(n, p *Node, name string) (Attr, error) {
	if p.dir == nil {
		return Attr{}, unix.ENOTDIR
	}
	if n.dir != nil {
		return Attr{}, unix.EPERM
	}
	if fs.upper == nil {
		return Attr{}, unix.EROFS
	}
	if err := fs.checkNewName(name); err != nil {
		return Attr{}, err
	}
	if n.wasLower() {
		return Attr{}, unix.ENOENT
	}
	if err := fs.copyUpDir(p); err != nil {
		return Attr{}, err
	}
	if err := fs.copyUp(n, wantMeta); err != nil {
		return Attr{}, err
	}
	if n.wasLower() { // by now
		return Attr{}, unix.ENOENT
	}
	obj, err := fs.objectOf(n)
	if err != nil {
		return Attr{}, err
	}
	defer obj.Close()
	if n.has(stateMetacopy) {
		if err := fs.redirectData(n, obj); err != nil {
			return Attr{}, err
		}
	}
	if err := fs.linkObject(n, obj, p, name); err != nil {
		return Attr{}, err
	}
	a, err := fs.GetAttr(n)
	if err != nil {
		fs.Forget(n, 1)
	}
	return a, err
}

// wasLower reports whether a file of a lower layer has lost its last name. It gets
// no other one, as in any filesystem. Of files of the upper their own filesystem
// knows which were removed, and which were made without a name.
func (n *Node) wasLower() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.parent == nil && n.lower != nil
}

// objectOf returns a handle of the node's own upper object.
func (fs *FS) objectOf(n *Node) (obj layer.Object, err error) {
	err = fs.withObject(n, objectOps{
		at:   func(d layer.Dir, name string) (err error) { obj, err = d.Lookup(name); return err },
		open: func(o layer.Object) error { obj = sharedObject{o}; return nil },
	})
	return obj, err
}

// linkObject enters the new name: in its place, or over a whiteout by way of
// the work directory.
//
// Crash after linking into the work directory: one name too many, swept at the
// next mount.
func (fs *FS) linkObject(n *Node, obj layer.Object, p *Node, name string) error {
	d := p.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return unix.ENOENT
	}
	if exists, err := fs.existsLocked(p, name); err != nil {
		return err
	} else if exists {
		return unix.EEXIST
	}
	st, err := obj.Stat()
	if err != nil {
		return err
	}
	h, err := d.upper.Load().open(fs)
	if err != nil {
		return err
	}
	defer h.release()
	if n.has(stateOrigin) {
		if err := fs.setImpure(d, h.obj); err != nil {
			return err
		}
	}
	if err := fs.linkPlain(obj, h.obj, name); err != nil {
		return err
	}
	fs.dropAufsAfter(p, h.obj, name)
	n.ref()
	fs.registerLinked(n, st)
	d.table.put(entry{name: name, node: n, typ: uint16(n.typ)})
	d.gen++
	n.addPlace(p, name)
	return nil
}

// linkPlain links an object to a name that nobody sees, and that a whiteout may
// have.
func (fs *FS) linkPlain(obj layer.Object, up layer.Dir, name string) error {
	obj = unshared(obj)
	err := up.Link(obj, name)
	if err != unix.EEXIST {
		return err
	}
	tmp, err := fs.work.temp(func(w layer.Dir, tmp string) error { return w.Link(obj, tmp) })
	if err != nil {
		return err
	}
	if err := fs.work.dir.Rename(tmp, up, name, 0); err != nil {
		fs.work.remove(tmp)
		return err
	}
	return nil
}

func (fs *FS) dropAufsIfAny(rd *realDir, up layer.Dir, name string) error {
	if fs.opt.Whiteouts != WhiteoutAufs && rd.noAufs.Load() {
		return nil
	}
	return fs.dropAufsWhiteout(rd, up, name)
}
