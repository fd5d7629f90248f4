package union

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// dataWanted says how much of a file's data a copy-up has to bring along.
type dataWanted int64

const (
	wantNone dataWanted = 0  // nothing: the file is truncated right away
	wantMeta dataWanted = -1 // nothing if metacopy is on, else all
	wantAll  dataWanted = 1<<63 - 1
)

// copyUp makes sure that the object of a node is in the upper, so that it can
// be changed. want bounds the data of a regular file that is needed there.
func (fs *FS) copyUp(n *Node, want dataWanted) error {
	if fs.upper == nil {
		return unix.EROFS
	}
	if n.dir != nil {
		return fs.copyUpDir(n)
	}
	if n.has(stateUpper) && (want == wantMeta || !n.has(stateMetacopy)) {
		return nil
	}
	n.cow.Lock()
	defer n.cow.Unlock()
	if n.has(stateUpper) {
		if want == wantMeta || !n.has(stateMetacopy) {
			return nil
		}
		return fs.copyUpData(n, want)
	}
	if p, _ := n.where(); p != nil {
		if err := fs.copyUpDir(p); err != nil {
			return err
		}
	}
	fs.stats.CopyUps.Add(1)
	if n.typ == unix.S_IFREG {
		return fs.copyUpRegular(n, want)
	}
	return fs.copyUpSpecial(n)
}

// copyUpDir copies a directory up, its parents first.
//
// Crash after the mkdir: a directory in the work directory, swept at the next
// mount. Crash after the rename: an upper directory that merges with the lower
// ones and shows the same.
func (fs *FS) copyUpDir(n *Node) error {
	for n.dir.upper.Load() == nil {
		p, name := n.where()
		if p == nil {
			return unix.ENOENT // removed while in use
		}
		if err := fs.copyUpDir(p); err != nil {
			return err
		}
		if done, err := fs.copyUpDirIn(n, p, name); done || err != nil {
			return err
		}
	}
	return nil
}

func (fs *FS) copyUpDirIn(n, p *Node, name string) (bool, error) {
	p.dir.mu.Lock()
	defer p.dir.mu.Unlock()
	if q, qname := n.where(); q != p || qname != name {
		return false, nil
	}
	if n.dir.upper.Load() != nil {
		return true, nil
	}
	fs.stats.CopyUps.Add(1)
	src, err := n.dir.lowers()[0].open(fs)
	if err != nil {
		return true, err
	}
	defer src.release()
	st, err := src.obj.Stat()
	if err != nil {
		return true, err
	}
	if err := fs.limits.takeObject(unix.S_IFDIR); err != nil {
		return true, err
	}
	published := false
	tmp, err := fs.work.temp(func(d layer.Dir, name string) error { return d.Mkdir(name, 0o700) })
	defer func() {
		if !published {
			fs.limits.giveObject(unix.S_IFDIR)
			fs.work.remove(tmp)
		}
	}()
	if err != nil {
		return true, err
	}
	dst, err := fs.work.dir.OpenDir(tmp)
	if err != nil {
		return true, err
	}
	defer dst.Close()
	if err := fs.copyAttributes(dst, src.obj, &st, n, false); err != nil {
		return true, err
	}
	up := p.dir.upper.Load()
	origin := fs.opt.Whiteouts != WhiteoutAufs // which may be on a filesystem without xattrs
	err = fs.inParent(p, origin, func(d layer.Dir) error { return fs.work.dir.Rename(tmp, d, name, 0) })
	if err != nil {
		return true, err
	}
	published = true
	n.dir.upper.Store(&realDir{br: up.br, parent: up, name: name})
	fs.entryIsUpper(p, name)
	return true, nil
}

// entryIsUpper notes that the object of a name is in the upper now; the lock of
// p is held for writing.
func (fs *FS) entryIsUpper(p *Node, name string) {
	if e := p.dir.table.get(name); e != nil {
		e.part = 0
	}
	p.dir.gen++
}

// inParent publishes something that is not new to the union in the upper part
// of p: the directory keeps its times, and is marked to hold what came from
// elsewhere. The lock of p is held for writing.
//
// Crash before the times are set back: the directory shows the time of the
// copy-up.
func (fs *FS) inParent(p *Node, origin bool, publish func(layer.Dir) error) error {
	h, err := p.dir.upper.Load().open(fs)
	if err != nil {
		return err
	}
	defer h.release()
	if origin {
		if err := fs.setImpure(p.dir, h.obj); err != nil {
			return err
		}
	}
	st, err := h.obj.Stat()
	if err != nil {
		return err
	}
	err = publish(h.obj)
	// As in the kernel, a copy-up does not fail for the sake of a time.
	_ = h.obj.SetTimes(st.Atime, st.Mtime)
	return err
}

// copyUpRegular stages a copy of a regular file and publishes it.
func (fs *FS) copyUpRegular(n *Node, want dataWanted) error {
	src, data, err := fs.sourceOf(n, want)
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	size := min(int64(want), st.Size)
	meta := fs.sparesData(want) && st.Size > 0
	switch {
	case meta:
		size = 0
	case want == wantMeta:
		size = st.Size
	}
	taken := sizeBlocks(size)
	if err := fs.limits.take(taken, 1); err != nil {
		return err
	}
	given := false
	defer func() {
		if !given {
			fs.limits.give(taken, 1)
		}
	}()
	born := fs.birthMode(&st)
	s, err := fs.work.tempFile(born)
	if err != nil {
		return err
	}
	defer s.discard()
	switch {
	case size == 0:
	case data != nil:
		moved, err := fs.copyData(s.file, data, &st, size)
		if err != nil {
			return err
		}
		fs.stats.CopyUpBytes.Add(uint64(moved))
	default:
		moved, err := fs.copyFrom(n, s.file, size)
		if err != nil {
			return err
		}
		fs.stats.CopyUpBytes.Add(uint64(moved))
	}
	if meta {
		if err := fs.markMetacopy(n, s.file, st.Size); err != nil {
			return err
		}
		fs.stats.MetaCopyUps.Add(1)
	}
	if err := fs.copyAttributes(s.file, src, &st, n, born == st.Mode&0o7777 && !fs.work.acl); err != nil {
		return err
	}
	if err := fs.syncStaged(s.file, size); err != nil {
		return err
	}
	taken = fs.limits.settle(s.file, taken)
	if err := fs.publishRegular(n, s, meta, &st); err != nil {
		return err
	}
	given = true
	return nil
}

// sparesData tells whether a copy-up may leave all data where it is.
func (fs *FS) sparesData(want dataWanted) bool {
	return want == wantMeta && fs.opt.Metacopy && fs.opt.Whiteouts != WhiteoutAufs
}

// sourceOf opens the lower object of a regular file to be copied from. Where that
// object has the data, and the data is wanted, it comes back open, as data too:
// one descriptor then does for all of it, often one that a reader has left open.
func (fs *FS) sourceOf(n *Node, want dataWanted) (src layer.Object, data layer.File, err error) {
	if want != wantNone && !fs.sparesData(want) && !n.has(stateMetacopy) {
		// What cannot be read may have no data to copy.
		if h, err := fs.openData(n, false); err == nil {
			return heldFile{h.obj, h}, h.obj, nil
		}
	}
	at := n.lowerPlace()
	dir, err := at.dir.open(fs)
	if err != nil {
		return nil, nil, err
	}
	defer dir.release()
	src, err = dir.obj.Lookup(at.name)
	return src, nil, err
}

// heldFile is an open file of the cache of handles; closing it gives it back.
type heldFile struct {
	layer.Object
	handle *handle[layer.File]
}

func (f heldFile) Close() error {
	f.handle.release()
	return nil
}

// copyFrom copies the data of a node that is not in the upper.
func (fs *FS) copyFrom(n *Node, dst layer.File, size int64) (int64, error) {
	h, err := fs.openData(n, false)
	if err != nil {
		return 0, err
	}
	defer h.release()
	st, err := h.obj.Stat()
	if err != nil {
		return 0, err
	}
	return fs.copyData(dst, h.obj, &st, min(size, st.Size))
}

// publishRegular gives a staged copy the name that the node has by now, and
// makes it the node's object.
//
// Crash before the link: the copy is gone, or swept from the work directory.
// Crash after it: the upper file is whole and hides the lower one by its name.
func (fs *FS) publishRegular(n *Node, s *stagedFile, meta bool, lower *layer.Stat) error {
	for {
		p, name := n.where()
		if p == nil {
			fs.becomeUpper(n, s.handOver(), meta, true)
			return nil
		}
		if err := fs.copyUpDir(p); err != nil {
			return err
		}
		done, err := func() (bool, error) {
			p.dir.mu.Lock()
			defer p.dir.mu.Unlock()
			if q, qname := n.where(); q != p || qname != name {
				return false, nil
			}
			ino, err := fs.ownIno(n, s.file, lower)
			if err != nil {
				return true, err
			}
			x, err := fs.indexStaged(n, s.file, lower)
			if err != nil {
				return true, err
			}
			err = fs.inParent(p, n.has(stateOrigin), func(d layer.Dir) error {
				if err := s.publish(d, name, false); err != nil {
					return err
				}
				err := x.published()
				if err != nil {
					_ = d.Unlink(name)
				}
				return err
			})
			if err != nil {
				x.drop()
				return true, err
			}
			fs.renumber(n, p, ino)
			x.enter()
			fs.becomeUpper(n, s.handOver(), meta, x != nil)
			fs.entryIsUpper(p, name)
			return true, nil
		}()
		if done {
			return err
		}
	}
}

// ownIno returns the inode number of the copy of one of several names: its own
// where the names are not kept together (index=off), because the others still
// show the lower inode, and one number would say that they are one file.
func (fs *FS) ownIno(n *Node, copy layer.Object, lower *layer.Stat) (uint64, error) {
	if fs.index != nil || lower.Nlink <= 1 || lower.IsDir() {
		return n.Ino(), nil
	}
	st, err := copy.Stat()
	if err != nil {
		return 0, err
	}
	return fs.inos.compose(st.Dev, st.Ino), nil
}

// renumber gives a node in directory p another inode number.
func (fs *FS) renumber(n, p *Node, ino uint64) {
	if n.ino.Swap(ino) != ino && fs.relisted != nil {
		fs.relisted(p)
	}
}

// becomeUpper makes an open copy the node's object. keep holds it for good,
// because no single name leads to it.
func (fs *FS) becomeUpper(n *Node, f layer.File, meta, keep bool) {
	if meta {
		n.mu.Lock()
		e := n.extLocked()
		if e.data.dir == nil {
			e.data = n.lowerPlaceLocked()
		}
		if keep {
			e.pinObj = f
		}
		n.mu.Unlock()
		n.set(stateMetacopy)
		n.set(stateUpper)
		if !keep {
			f.Close() // reads go on with the lower data
		}
		return
	}
	h := n.file.replace(fs.handles, f)
	if keep {
		n.mu.Lock()
		e := n.extLocked()
		e.pinObj, e.pinFile = sharedObject{f}, h
		n.mu.Unlock()
	} else {
		h.release()
	}
	n.set(stateUpper)
	n.clear(stateMetacopy | stateNoXattrs)
}

// sharedObject is an object that someone else closes.
type sharedObject struct{ layer.Object }

func (sharedObject) Close() error { return nil }

// unshared returns the object itself, which other layers' methods want to see.
func unshared(o layer.Object) layer.Object {
	for {
		switch s := o.(type) {
		case sharedObject:
			o = s.Object
		case *appendFile:
			o = s.File
		default:
			return o
		}
	}
}

// copyUpData completes a metacopy file in the upper.
//
// Crash while copying: the mark still says that the data is elsewhere. Crash
// before the mark is gone: the file is cut to the size wanted, and its data is
// still elsewhere. Crash after it: the data had been made durable before.
func (fs *FS) copyUpData(n *Node, want dataWanted) error {
	var f layer.File
	err := fs.withObject(n, objectOps{
		at:   func(d layer.Dir, name string) (err error) { f, err = d.OpenFile(name, unix.O_RDWR, 0); return err },
		open: func(o layer.Object) (err error) { f, err = o.Reopen(unix.O_RDWR); return err },
	})
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	restore, err := keepAcrossWriting(f, &st)
	if err != nil {
		f.Close()
		return err
	}
	size := min(int64(want), st.Size)
	if err := fs.limits.take(sizeBlocks(size), 0); err != nil {
		f.Close()
		return err
	}
	if err := fs.fillMetacopy(n, f, &st, size, restore); err != nil {
		// Still a metacopy file: none of its own data counts, and if
		// dropping it fails, it only takes up space. What cannot be given
		// back leaves less privilege.
		_ = f.Truncate(0)
		_ = f.Truncate(st.Size)
		_ = restore()
		_ = f.SetTimes(st.Atime, st.Mtime)
		f.Close()
		fs.limits.give(sizeBlocks(size), 0)
		return err
	}
	fs.limits.settle(f, objectBytes(&st)+sizeBlocks(size))
	// Without the other mark this one means nothing.
	_ = f.Removexattr(fs.opt.Prefix.Redirect())
	n.clear(stateMetacopy)
	n.file.replace(fs.handles, f).release()
	return nil
}

// fillMetacopy copies the first size bytes of the data into a metacopy file
// with attributes st, and makes it an ordinary one of that size. restore gives back
// what writing takes away.
func (fs *FS) fillMetacopy(n *Node, f layer.File, st *layer.Stat, size int64, restore func() error) error {
	moved, err := fs.copyFrom(n, f, size)
	if err != nil {
		return err
	}
	fs.stats.CopyUpBytes.Add(uint64(moved))
	if size < st.Size {
		if err := f.Truncate(size); err != nil {
			return err
		}
	}
	if err := restore(); err != nil {
		return err
	}
	// Writing the data changed the times that the file had.
	if err := f.SetTimes(st.Atime, st.Mtime); err != nil {
		return err
	}
	if err := fs.syncStaged(f, size); err != nil {
		return err
	}
	if err := f.Removexattr(fs.opt.Prefix.Metacopy()); err != nil && err != unix.ENODATA {
		return err
	}
	return nil
}
