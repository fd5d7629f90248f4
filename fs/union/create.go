package union

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// birth describes an object about to be made.
type birth struct {
	typ    uint32 // S_IFMT bits
	mode   uint32 // permission bits as asked for
	rdev   uint64
	target string // of a symbolic link
	caller Caller
	// hidden tells that a .wh. name hides what lower layers have: a new
	// directory must go on doing so.
	hidden bool
}

// Create makes a regular file and returns its node with one reference.
func (fs *FS) Create(p *Node, name string, mode uint32, c Caller) (*Node, Attr, error) {
	return fs.make(p, name, birth{typ: unix.S_IFREG, mode: mode, caller: c})
}

// Mknod makes a regular file, FIFO, socket or device, as mknod(2) does.
func (fs *FS) Mknod(p *Node, name string, mode uint32, rdev uint64, c Caller) (*Node, Attr, error) {
	b := birth{typ: mode & unix.S_IFMT, mode: mode, rdev: rdev, caller: c}
	if b.typ == 0 {
		b.typ = unix.S_IFREG
	}
	if b.typ == unix.S_IFCHR && rdev == 0 {
		return nil, Attr{}, unix.EPERM // it would read as a whiteout
	}
	return fs.make(p, name, b)
}

// Mkdir makes a directory.
func (fs *FS) Mkdir(p *Node, name string, mode uint32, c Caller) (*Node, Attr, error) {
	return fs.make(p, name, birth{typ: unix.S_IFDIR, mode: mode, caller: c})
}

// Symlink makes a symbolic link to target.
func (fs *FS) Symlink(p *Node, name, target string, c Caller) (*Node, Attr, error) {
	return fs.make(p, name, birth{typ: unix.S_IFLNK, mode: 0o777, target: target, caller: c})
}

// checkNewName refuses what cannot be made: on top of impossible names those
// that would read as marks of a union.
func (fs *FS) checkNewName(name string) error {
	if err := layer.CheckName(name); err != nil {
		return err
	}
	if kind, _ := whiteout.ParseAufsName(name); kind != whiteout.NotMark {
		return unix.EPERM
	}
	if fs.opt.Whiteouts == WhiteoutAufs {
		if _, err := whiteout.AufsWhiteoutName(name); err != nil {
			return unix.ENAMETOOLONG
		}
	}
	return nil
}

func (fs *FS) make(p *Node, name string, b birth) (*Node, Attr, error) {
	if p.dir == nil {
		return nil, Attr{}, unix.ENOTDIR
	}
	if fs.upper == nil {
		return nil, Attr{}, unix.EROFS
	}
	if err := fs.checkNewName(name); err != nil {
		return nil, Attr{}, err
	}
	if err := fs.copyUpDir(p); err != nil {
		return nil, Attr{}, err
	}
	d := p.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return nil, Attr{}, unix.ENOENT
	}
	if exists, err := fs.existsLocked(p, name); err != nil || exists {
		if err == nil {
			err = unix.EEXIST
		}
		return nil, Attr{}, err
	}
	h, err := d.upper.Load().open(fs)
	if err != nil {
		return nil, Attr{}, err
	}
	defer h.release()
	inherit, err := fs.inheritance(p, h.obj, &b)
	if err != nil {
		return nil, Attr{}, err
	}
	if err := fs.limits.takeObject(b.typ); err != nil {
		return nil, Attr{}, err
	}
	n, st, err := fs.makeIn(p, h.obj, name, &b, inherit)
	if err != nil {
		fs.limits.giveObject(b.typ)
		return nil, Attr{}, err
	}
	return n, fs.shown(n, st), nil
}

// existsLocked reports whether p, whose lock is held, has the name.
func (fs *FS) existsLocked(p *Node, name string) (bool, error) {
	d := p.dir
	if d.table.get(name) != nil {
		return true, nil
	}
	if d.table.complete || d.absent == name && d.absentGen == d.gen {
		return false, nil
	}
	f, err := fs.resolve(p, name, 0)
	return f != nil, err
}

// makeIn makes the object: in its place if that gives it the right owner and
// nothing is in the way, else staged and renamed.
//
// Crash after making it in its place: it is there. Crash while it is staged:
// it is swept from the work directory at the next mount.
func (fs *FS) makeIn(p *Node, up layer.Dir, name string, b *birth, in *inheritance) (*Node, layer.Stat, error) {
	if b.typ == unix.S_IFDIR && p.dir.merged() {
		h, err := fs.probeAufs(p.dir.upper.Load(), up, name, false)
		if err != nil {
			return nil, layer.Stat{}, err
		}
		b.hidden = h.kind == hitWhiteout
	}
	direct := b.caller.UID == fs.self.UID && (in.setgid || b.caller.GID == fs.self.GID) && !b.hidden
	if direct {
		f, err := fs.makeDirect(up, name, b, in)
		if err == nil {
			return fs.born(p, up, name, b, f, false)
		}
		if err != unix.EEXIST {
			return nil, layer.Stat{}, err
		}
		// Nobody sees the name, yet the upper has it: a whiteout.
	}
	f, over, err := fs.makeStaged(p, up, name, b, in)
	if err != nil {
		return nil, layer.Stat{}, err
	}
	return fs.born(p, up, name, b, f, over)
}

// makeDirect makes the object in the upper. A regular file comes back open.
func (fs *FS) makeDirect(up layer.Dir, name string, b *birth, in *inheritance) (layer.File, error) {
	switch b.typ {
	case unix.S_IFREG:
		return retryOpen(fs, func() (layer.File, error) {
			return up.OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, in.mode)
		})
	case unix.S_IFDIR:
		return nil, up.Mkdir(name, in.mode)
	case unix.S_IFLNK:
		return nil, up.Symlink(b.target, name)
	default:
		return nil, up.Mknod(name, b.typ|in.mode, b.rdev)
	}
}

// makeStaged makes the object in the work directory and moves it to its name,
// over a whiteout or not.
func (fs *FS) makeStaged(p *Node, up layer.Dir, name string, b *birth, in *inheritance) (f layer.File, over bool, err error) {
	tmp, err := fs.work.temp(func(d layer.Dir, tmp string) (err error) {
		f, err = fs.makeDirect(d, tmp, b, in)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	fail := func(err error) (layer.File, bool, error) {
		if f != nil {
			f.Close()
		}
		fs.work.remove(tmp)
		return nil, false, err
	}
	if err := fs.dressStaged(tmp, f, b, in); err != nil {
		return fail(err)
	}
	taken, err := fs.takenByWhiteout(up, name)
	if err != nil {
		return fail(err)
	}
	if b.typ == unix.S_IFDIR && p.dir.merged() && (taken || b.hidden) {
		dir, err := fs.work.dir.OpenDir(tmp)
		if err != nil {
			return fail(err)
		}
		err = fs.markOpaque(dir)
		dir.Close()
		if err != nil {
			return fail(err)
		}
	}
	if err := fs.overWhiteout(fs.work.dir, tmp, up, name, b.typ == unix.S_IFDIR && taken); err != nil {
		return fail(err)
	}
	return f, taken, nil
}

// dressStaged gives a staged object what it would have got by birth in its
// directory.
func (fs *FS) dressStaged(tmp string, f layer.File, b *birth, in *inheritance) error {
	var o layer.Object = f
	if f == nil {
		var err error
		if o, err = fs.work.dir.Lookup(tmp); err != nil {
			return err
		}
		defer o.Close()
	}
	return fs.dress(o, b, in)
}

func (fs *FS) dress(o layer.Object, b *birth, in *inheritance) error {
	gid := b.caller.GID
	mode := in.mode
	if in.setgid {
		gid = in.gid
		if b.typ == unix.S_IFDIR {
			mode |= unix.S_ISGID
		}
	}
	if err := fs.chownNew(o, b.caller.UID, gid); err != nil {
		return err
	}
	if b.typ == unix.S_IFLNK {
		return nil
	}
	if in.acl != nil {
		access, m, err := in.acl.inherit(mode)
		if err != nil {
			return err
		}
		mode = m
		if access != nil {
			if err := o.Setxattr(aclAccess, access, 0); err != nil {
				return err
			}
		}
		if b.typ == unix.S_IFDIR {
			if err := o.Setxattr(aclDefault, in.acl.raw, 0); err != nil {
				return err
			}
		}
	}
	// chown(2) may have cleared bits, and the work directory gave none.
	if mode&(unix.S_ISUID|unix.S_ISGID) != 0 || in.acl != nil {
		return o.Chmod(mode)
	}
	return nil
}

// born enters a new object into the tables; over tells that it took the place
// of a whiteout.
func (fs *FS) born(p *Node, up layer.Dir, name string, b *birth, f layer.File, over bool) (*Node, layer.Stat, error) {
	var st layer.Stat
	var err error
	if f != nil {
		st, err = f.Stat()
	} else {
		st, err = up.StatAt(name)
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		fs.unmake(p, up, name, b, over)
		return nil, st, err
	}
	upDir := p.dir.upper.Load()
	found := found{st: st, upper: true, top: lowerRef{upDir, name}}
	if b.typ == unix.S_IFDIR {
		found.upperDir = &realDir{br: upDir.br, parent: upDir, name: name, opaque: (over || b.hidden) && p.dir.merged()}
		found.upperDir.noAufs.Store(true)
	}
	n := fs.newNode(p, name, &found)
	if n.dir != nil {
		// Nothing is below a new directory, so all its names are known.
		n.dir.table.complete = true
	}
	fs.nodes.add(n)
	if f != nil {
		n.file.put(fs.handles, f).release()
	}
	p.dir.table.put(entry{name: name, node: n, typ: uint16(n.typ)})
	p.dir.gen++
	fs.dropAufsAfter(p, up, name)
	return n, st, nil
}

// unmake takes a new object away that could not be shown to who made it. What
// fails here stays, and is seen by the next mount.
func (fs *FS) unmake(p *Node, up layer.Dir, name string, b *birth, over bool) {
	switch {
	case b.typ == unix.S_IFDIR:
		_ = fs.takeDirOut(p, name, &target{upper: true, lower: over}, up)
	case over:
		_ = fs.whiteOut(p, up, name, true)
	default:
		_ = up.Unlink(name)
	}
}

// Tmpfile makes a regular file that has no name yet; Link can give it one.
func (fs *FS) Tmpfile(p *Node, mode uint32, c Caller) (*Node, Attr, error) {
	if p.dir == nil {
		return nil, Attr{}, unix.ENOTDIR
	}
	if fs.upper == nil {
		return nil, Attr{}, unix.EROFS
	}
	if err := fs.copyUpDir(p); err != nil {
		return nil, Attr{}, err
	}
	up, err := p.dir.upper.Load().open(fs)
	if err != nil {
		return nil, Attr{}, err
	}
	defer up.release()
	b := birth{typ: unix.S_IFREG, mode: mode, caller: c}
	p.dir.mu.Lock()
	in, err := fs.inheritance(p, up.obj, &b)
	p.dir.mu.Unlock()
	if err != nil {
		return nil, Attr{}, err
	}
	if err := fs.limits.takeObject(unix.S_IFREG); err != nil {
		return nil, Attr{}, err
	}
	f, err := fs.work.dir.TmpFile(in.mode)
	if err != nil {
		fs.limits.giveObject(unix.S_IFREG)
		return nil, Attr{}, err
	}
	st, err := func() (layer.Stat, error) {
		if err := fs.dress(f, &b, in); err != nil {
			return layer.Stat{}, err
		}
		return f.Stat()
	}()
	if err != nil {
		f.Close()
		fs.limits.giveObject(unix.S_IFREG)
		return nil, Attr{}, err
	}
	n := &Node{typ: unix.S_IFREG}
	n.ino.Store(fs.inos.compose(st.Dev, st.Ino))
	n.refs.Store(1)
	n.set(stateUpper | stateOrphan)
	n.ext = &nodeExt{pinObj: sharedObject{f}, pinFile: n.file.put(fs.handles, f)}
	fs.nodes.add(n)
	return n, fs.shown(n, st), nil
}
