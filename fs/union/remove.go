package union

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// target is what a name of a directory stands for while the directory is
// locked.
type target struct {
	node    *Node
	upper   bool // the upper has the name
	lower   bool // a lower layer shows the name too: removing takes a whiteout
	created bool // the node was looked up for this and has a reference to give back
}

// targetLocked finds what a name of p stands for; node is nil if it does not
// exist. The lock of p is held for writing.
func (fs *FS) targetLocked(p *Node, name string) (t target, err error) {
	d := p.dir
	e := d.table.get(name)
	if e == nil && d.table.complete {
		return target{}, nil
	}
	if e == nil || e.node == nil {
		part := 0
		if e != nil {
			part = int(e.part)
		}
		f, err := fs.resolve(p, name, part)
		if err != nil || f == nil {
			return target{}, err
		}
		if t.node, err = fs.attach(p, name, f); err != nil {
			return target{}, err
		}
		t.created = true
		e = d.table.get(name)
	} else {
		t.node = e.node
	}
	t.upper = e.part == 0 && d.upper.Load() != nil
	t.lower = e.part > 0
	if !t.lower {
		t.lower, err = fs.lowerHas(p, name)
	}
	return t, err
}

// done gives back what targetLocked took, once no lock is held.
func (t *target) done(fs *FS) {
	if t.created {
		fs.Forget(t.node, 1)
	}
}

// Unlink removes a name that is no directory. The object stays usable for who
// has its node.
func (fs *FS) Unlink(p *Node, name string) error {
	return fs.remove(p, name, func(t *target, up layer.Dir) error {
		if t.node.dir != nil {
			return unix.EISDIR
		}
		return fs.unlinkLocked(p, name, t, up)
	})
}

// Rmdir removes an empty directory.
func (fs *FS) Rmdir(p *Node, name string) error {
	err := fs.remove(p, name, func(t *target, up layer.Dir) error {
		if t.node.dir == nil {
			return unix.ENOTDIR
		}
		return fs.rmdirLocked(p, name, t, up)
	})
	if err == unix.ENOTEMPTY {
		// That nothing may be removed there counts before what it holds.
		flags, ferr := fs.Flags(p)
		if ferr == nil && flags&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0 {
			return unix.EPERM
		}
	}
	return err
}

func (fs *FS) remove(p *Node, name string, do func(*target, layer.Dir) error) error {
	if p.dir == nil {
		return unix.ENOTDIR
	}
	if err := layer.CheckName(name); err != nil {
		return err
	}
	if fs.upper == nil {
		return unix.EROFS
	}
	if err := fs.copyUpDir(p); err != nil {
		return err
	}
	var t target
	defer func() { t.done(fs) }()
	d := p.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	if t, err = fs.targetLocked(p, name); err != nil {
		return err
	}
	if t.node == nil {
		return unix.ENOENT
	}
	h, err := d.upper.Load().open(fs)
	if err != nil {
		return err
	}
	defer h.release()
	return do(&t, h.obj)
}

// unlinkLocked removes the name of an object that is no directory, without
// copying it up.
//
// Crash: the name is there or gone; each way is one system call in the upper.
func (fs *FS) unlinkLocked(p *Node, name string, t *target, up layer.Dir) error {
	n := t.node
	if t.upper {
		if err := fs.keepObject(n, up, name); err != nil {
			return err
		}
	}
	var err error
	if t.lower {
		err = fs.whiteOut(p, up, name, t.upper)
	} else {
		err = up.Unlink(name)
	}
	if err != nil {
		return err
	}
	if err := fs.dropLink(n, t.upper); err != nil {
		fs.unWhiteOut(up, name)
		return err
	}
	fs.gone(p, name, n)
	return nil
}

// gone takes a removed name out of the tables.
func (fs *FS) gone(p *Node, name string, n *Node) {
	p.dir.table.remove(name)
	p.dir.gen++
	if !n.dropPlace(p, name) {
		n.set(stateOrphan)
	}
	fs.linkGone(n)
}

// keepObject holds an upper object whose last known name is about to go.
func (fs *FS) keepObject(n *Node, up layer.Dir, name string) error {
	n.mu.Lock()
	others := n.ext != nil && (len(n.ext.aliases) > 0 || n.ext.pinObj != nil)
	n.mu.Unlock()
	if others {
		return nil
	}
	if !n.has(stateMetacopy) {
		if h := n.file.acquire(); h != nil {
			n.mu.Lock()
			defer n.mu.Unlock()
			e := n.extLocked()
			e.pinObj, e.pinFile = sharedObject{h.obj}, h
			return nil
		}
	}
	o, err := retryOpen(fs, func() (layer.Object, error) { return up.Lookup(name) })
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.extLocked().pinObj = o
	return nil
}

// rmdirLocked removes a directory that shows no name.
//
// Crash between taking an upper directory out and emptying it of its
// whiteouts: the rest lies in the work directory and is swept at the next
// mount.
func (fs *FS) rmdirLocked(p *Node, name string, t *target, up layer.Dir) error {
	d := t.node.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := fs.emptyLocked(t.node); err != nil {
		return err
	}
	if rd := d.upper.Load(); rd != nil {
		if err := rd.keep(fs); err != nil {
			return err
		}
	}
	if err := fs.takeDirOut(p, name, t, up); err != nil {
		return err
	}
	d.dead = true
	fs.gone(p, name, t.node)
	if t.upper {
		fs.limits.giveObject(unix.S_IFDIR)
	}
	return nil
}

// emptyLocked returns ENOTEMPTY if a directory, whose lock is held for writing,
// shows a name.
func (fs *FS) emptyLocked(n *Node) error {
	if err := fs.completeLocked(n); err != nil {
		return err
	}
	if n.dir.table.live > 0 {
		return unix.ENOTEMPTY
	}
	return nil
}

// takeDirOut takes an empty directory out of the upper and leaves a whiteout if
// a lower layer has the name.
func (fs *FS) takeDirOut(p *Node, name string, t *target, up layer.Dir) error {
	switch {
	case !t.upper:
		return fs.whiteOut(p, up, name, false)
	case !t.lower:
		err := up.Rmdir(name)
		if err != unix.ENOTEMPTY && err != unix.EEXIST {
			return err
		}
		tmp, err := fs.work.temp(func(d layer.Dir, tmp string) error {
			return up.Rename(name, d, tmp, 0)
		})
		if err != nil {
			return err
		}
		fs.work.remove(tmp)
		return nil
	case fs.opt.Whiteouts == WhiteoutAufs:
		if err := fs.whiteOutAufs(up, name, false); err != nil {
			return err
		}
		return fs.takeDirOut(p, name, &target{node: t.node, upper: true}, up)
	}
	if fs.opt.Whiteouts == WhiteoutXattr {
		if err := fs.allowXattrWhiteouts(p, up); err != nil {
			return err
		}
	}
	fs.stats.Whiteouts.Add(1)
	tmp, err := fs.work.temp(fs.makeWhiteout)
	if err != nil {
		return err
	}
	defer fs.work.remove(tmp)
	err = fs.work.dir.Rename(tmp, up, name, unix.RENAME_EXCHANGE)
	if err == unix.EINVAL { // the filesystem cannot exchange
		return fs.whiteOutDir(tmp, up, name)
	}
	return err
}

// whiteOutDir puts a whiteout from the work directory in the place of an upper
// directory, in two steps.
//
// Crash in between: the name shows what lower layers have there.
func (fs *FS) whiteOutDir(wh string, up layer.Dir, name string) error {
	old, err := fs.work.temp(func(d layer.Dir, tmp string) error { return up.Rename(name, d, tmp, 0) })
	if err != nil {
		return err
	}
	if err := fs.work.dir.Rename(wh, up, name, 0); err != nil {
		_ = fs.work.dir.Rename(old, up, name, 0)
		return err
	}
	fs.work.remove(old)
	return nil
}
