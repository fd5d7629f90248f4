package union

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

const renameFlags = unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE | unix.RENAME_WHITEOUT

// Rename moves a name, with the flags of renameat2(2). A directory with lower
// parts moves by a redirect, or fails with EXDEV where redirects are off.
func (fs *FS) Rename(op *Node, oname string, np *Node, nname string, flags uint) error {
	if err := fs.checkRename(op, oname, np, nname, flags); err != nil {
		return err
	}
	if err := fs.copyUpDir(op); err != nil {
		return err
	}
	if err := fs.copyUpDir(np); err != nil {
		return err
	}
	for {
		// The objects that move are copied up before anything is locked; if
		// others have taken their places meanwhile, it starts again.
		src, err := fs.prepareMove(op, oname)
		if err != nil {
			return err
		}
		var dst *Node
		if flags&unix.RENAME_EXCHANGE != 0 {
			if dst, err = fs.prepareMove(np, nname); err != nil {
				fs.Forget(src, 1)
				return err
			}
		}
		r := renaming{fs: fs, op: op, oname: oname, np: np, nname: nname, flags: flags}
		done, err := r.run(src, dst)
		fs.Forget(src, 1)
		if dst != nil {
			fs.Forget(dst, 1)
		}
		r.src.done(fs)
		r.dst.done(fs)
		if done {
			return err
		}
	}
}

func (fs *FS) checkRename(op *Node, oname string, np *Node, nname string, flags uint) error {
	if op.dir == nil || np.dir == nil {
		return unix.ENOTDIR
	}
	if fs.upper == nil {
		return unix.EROFS
	}
	if flags&^uint(renameFlags) != 0 || flags&unix.RENAME_EXCHANGE != 0 && flags&(unix.RENAME_NOREPLACE|unix.RENAME_WHITEOUT) != 0 {
		return unix.EINVAL
	}
	if err := layer.CheckName(oname); err != nil {
		return err
	}
	return fs.checkNewName(nname)
}

// prepareMove looks an object up that is to change its name and copies it up.
func (fs *FS) prepareMove(p *Node, name string) (*Node, error) {
	n, _, err := fs.lookup(p, name)
	if err != nil {
		return nil, err
	}
	if n.dir != nil && n.dir.merged() && !fs.opt.Redirect {
		err = unix.EXDEV
	} else {
		err = fs.copyUp(n, wantMeta)
	}
	if err != nil {
		fs.Forget(n, 1)
		return nil, err
	}
	return n, nil
}

// renaming is one rename under way.
type renaming struct {
	fs           *FS
	op, np       *Node
	oname, nname string
	flags        uint
	src, dst     target
	oup, nup     layer.Dir
}

func (r *renaming) exchange() bool { return r.flags&unix.RENAME_EXCHANGE != 0 }

// run does the rename under all locks. It returns false if src or, for an
// exchange, dst no longer has its name.
func (r *renaming) run(src, dst *Node) (bool, error) {
	fs := r.fs
	defer fs.lockParents(r.op, r.np)()
	if r.np.dir.dead {
		return true, unix.ENOENT
	}
	var err error
	if r.src, err = fs.targetLocked(r.op, r.oname); err != nil {
		return true, err
	}
	if r.src.node != src {
		return false, nil
	}
	if r.dst, err = fs.targetLocked(r.np, r.nname); err != nil {
		return true, err
	}
	if dst != nil && r.dst.node != dst {
		return false, nil
	}
	if err := r.allowed(); err != nil {
		return true, err
	}
	if r.src.node == r.dst.node && !r.exchange() {
		return true, nil // two names of one file: nothing to do (rename(2))
	}
	oh, err := r.op.dir.upper.Load().open(fs)
	if err != nil {
		return true, err
	}
	defer oh.release()
	nh, err := r.np.dir.upper.Load().open(fs)
	if err != nil {
		return true, err
	}
	defer nh.release()
	r.oup, r.nup = oh.obj, nh.obj
	return true, r.move()
}

// lockParents locks the directories of a rename, in the order that the package
// comment gives, and returns what unlocks them.
func (fs *FS) lockParents(op, np *Node) (unlock func()) {
	if op == np {
		op.dir.mu.Lock()
		return op.dir.mu.Unlock
	}
	fs.rename.Lock()
	first, second := op, np
	if isAncestor(np, op) || !isAncestor(op, np) && np.id < op.id {
		first, second = np, op
	}
	first.dir.mu.Lock()
	second.dir.mu.Lock()
	return func() {
		second.dir.mu.Unlock()
		first.dir.mu.Unlock()
		fs.rename.Unlock()
	}
}

// isAncestor reports whether a is on the way from n to the root. Nothing moves
// meanwhile: directories only change their parent under FS.rename.
func isAncestor(a, n *Node) bool {
	for n != nil {
		if n == a {
			return true
		}
		n, _ = n.where()
	}
	return false
}

// allowed checks what POSIX wants of source and target.
func (r *renaming) allowed() error {
	src, dst := r.src.node, r.dst.node
	switch {
	case dst == nil && r.exchange():
		return unix.ENOENT
	case dst != nil && r.flags&unix.RENAME_NOREPLACE != 0:
		return unix.EEXIST
	case src.dir != nil && isAncestor(src, r.np):
		return unix.EINVAL
	case dst != nil && dst.dir != nil && isAncestor(dst, r.op):
		if r.exchange() {
			return unix.EINVAL
		}
		return unix.ENOTEMPTY
	case dst == nil || r.exchange():
		return nil
	case src.dir != nil && dst.dir == nil:
		return unix.ENOTDIR
	case src.dir == nil && dst.dir != nil:
		return unix.EISDIR
	}
	return nil
}

// move changes the upper and then the tables.
//
// A mark that is written before the one step that moves (redirect, opaque,
// impure) changes nothing of what is shown at the old name, so a crash in
// between leaves the old tree.
func (r *renaming) move() error {
	fs := r.fs
	if !r.src.upper {
		if err := fs.linkAlias(r.src.node, r.op, r.oname); err != nil {
			return err
		}
		r.src.upper = true
	}
	if r.exchange() && !r.dst.upper {
		if err := fs.linkAlias(r.dst.node, r.np, r.nname); err != nil {
			return err
		}
		r.dst.upper = true
	}
	if err := r.mark(r.src.node, upperRef{r.oup, r.oname}, r.np, r.nup); err != nil {
		return err
	}
	if r.exchange() {
		if err := r.mark(r.dst.node, upperRef{r.nup, r.nname}, r.op, r.oup); err != nil {
			return err
		}
		if err := r.physical(func() error { return r.oup.Rename(r.oname, r.nup, r.nname, unix.RENAME_EXCHANGE) }); err != nil {
			return err
		}
		r.swapped()
		return nil
	}
	restore := func() {}
	if d := r.dst.node; d != nil && d.dir != nil {
		d.dir.mu.Lock()
		defer d.dir.mu.Unlock()
		old, err := r.clearTarget(d)
		if err != nil {
			return err
		}
		if old != "" {
			defer fs.work.remove(old)
			restore = func() { r.restoreTarget(old) }
		}
	}
	if d := r.dst.node; d != nil && d.dir == nil {
		if r.dst.upper {
			if err := fs.keepObject(d, r.nup, r.nname); err != nil {
				return err
			}
		}
	}
	if err := r.replace(); err != nil {
		restore()
		return err
	}
	if d := r.dst.node; d != nil && d.dir == nil {
		_ = fs.dropLink(d, r.dst.upper) // too late to go back
	}
	r.moved()
	return nil
}

// upperRef is a name in an open directory of the upper.
type upperRef struct {
	dir  layer.Dir
	name string
}

// mark prepares an object, which lies at a place in the upper, for its new one
// in directory p.
func (r *renaming) mark(n *Node, at upperRef, p *Node, up layer.Dir) error {
	fs := r.fs
	if n.has(stateOrigin) || n.dir != nil && n.dir.merged() {
		if err := fs.setImpure(p.dir, up); err != nil {
			return err
		}
	}
	if n.has(stateMetacopy) {
		return fs.redirectDataAt(n, at)
	}
	if n.dir == nil {
		return nil
	}
	if n.dir.merged() {
		return fs.setRedirect(n, r.op == r.np)
	}
	if p.dir.merged() {
		return fs.setOpaque(n)
	}
	return nil
}

func (fs *FS) redirectDataAt(n *Node, at upperRef) error {
	o, err := at.dir.Lookup(at.name)
	if err != nil {
		return err
	}
	defer o.Close()
	return fs.redirectData(n, o)
}

// setOpaque keeps a directory without lower parts from being merged with what
// lower layers have at its new place.
func (fs *FS) setOpaque(n *Node) error {
	rd := n.dir.upper.Load()
	if rd.opaque {
		return nil
	}
	h, err := rd.open(fs)
	if err != nil {
		return err
	}
	defer h.release()
	if err := fs.markOpaque(h.obj); err != nil {
		return err
	}
	rd.opaque = true
	return nil
}

// setRedirect notes in the upper part of a directory where its lower parts are.
// As in the kernel the note is the name alone while the parent stays the same,
// else the path from the root.
func (fs *FS) setRedirect(n *Node, sameDir bool) error {
	d := n.dir
	if old := d.redirect.Load(); old != nil && (old.Absolute || sameDir) {
		return nil
	}
	red := whiteout.Redirect{}
	if sameDir {
		_, name := n.where()
		red.Path = []string{name}
	} else {
		red.Absolute, red.Path = true, originPath(n)
	}
	value := red.Encode()
	if len(value) > redirectMax {
		return unix.EXDEV
	}
	h, err := d.upper.Load().open(fs)
	if err != nil {
		return err
	}
	defer h.release()
	if err := h.obj.Setxattr(fs.opt.Prefix.Redirect(), []byte(value), 0); err != nil {
		return err
	}
	fs.stats.Redirects.Add(1)
	d.redirect.Store(&red)
	return nil
}

// redirectMax bounds the value of a redirect, which many filesystems keep in
// one block together with all other xattrs.
const redirectMax = 2048

// originPath returns the path at which the lower layers have a directory, from
// the names and redirects of its ancestors.
func originPath(n *Node) []string {
	var rev []string
	for {
		p, name := n.where()
		if p == nil {
			break
		}
		if r := n.dir.redirect.Load(); r != nil {
			if r.Absolute {
				for i := len(r.Path) - 1; i >= 0; i-- {
					rev = append(rev, r.Path[i])
				}
				break
			}
			name = r.Path[0]
		}
		rev = append(rev, name)
		n = p
	}
	for i, j := 0, len(rev)-1; i < j; i, j = i+1, j-1 {
		rev[i], rev[j] = rev[j], rev[i]
	}
	return rev
}

// clearTarget makes sure that a target directory is empty, also of whiteouts,
// so that the source can be renamed over it. Its lock is held for writing. It
// returns the name in the work directory to which it has moved a directory full
// of whiteouts, "" where that was not needed.
//
// Crash after the exchange: the target is an empty opaque directory, as it was
// to the eye. In aufs format, where an opaque directory is not empty, the target
// is gone.
func (r *renaming) clearTarget(n *Node) (old string, err error) {
	fs := r.fs
	if err := fs.emptyLocked(n); err != nil {
		return "", err
	}
	if !r.dst.upper {
		return "", nil
	}
	rd := n.dir.upper.Load()
	if err := rd.keep(fs); err != nil {
		return "", err
	}
	h, err := rd.open(fs)
	if err != nil {
		return "", err
	}
	defer h.release()
	list, err := h.obj.ReadDir()
	if err != nil || len(list) == 0 {
		return "", err
	}
	if fs.opt.Whiteouts == WhiteoutAufs {
		return r.takeTargetOut()
	}
	st, err := h.obj.Stat()
	if err != nil {
		return "", err
	}
	tmp, err := fs.work.temp(func(d layer.Dir, tmp string) error { return d.Mkdir(tmp, st.Mode&0o7777) })
	if err != nil {
		return "", err
	}
	err = r.exchangeForEmpty(tmp, h.obj, &st, n)
	if err == nil {
		return tmp, nil
	}
	fs.work.remove(tmp)
	if err == unix.EINVAL { // the filesystem cannot exchange
		return "", fs.emptyInPlace(rd, h.obj, list)
	}
	return "", err
}

// emptyInPlace removes the whiteouts of a directory that shows nothing, once it
// is opaque.
//
// Crash at any time: the directory is as empty as it was to the eye.
func (fs *FS) emptyInPlace(rd *realDir, dir layer.Dir, list []layer.Dirent) error {
	if err := fs.markOpaque(dir); err != nil {
		return err
	}
	rd.opaque = true
	for _, e := range list {
		if err := dir.Unlink(e.Name); err != nil {
			return err
		}
	}
	return nil
}

// exchangeForEmpty makes a new directory like the target and puts it in its
// place.
func (r *renaming) exchangeForEmpty(tmp string, old layer.Dir, st *layer.Stat, n *Node) error {
	fs := r.fs
	empty, err := fs.work.dir.OpenDir(tmp)
	if err != nil {
		return err
	}
	defer empty.Close()
	if err := fs.copyAttributes(empty, old, st, n); err != nil {
		return err
	}
	if err := fs.markOpaque(empty); err != nil {
		return err
	}
	return fs.work.dir.Rename(tmp, r.nup, r.nname, unix.RENAME_EXCHANGE)
}

// takeTargetOut moves the target into the work directory, hidden by an aufs
// whiteout, and returns its name there.
func (r *renaming) takeTargetOut() (string, error) {
	if err := r.fs.whiteOutAufs(r.nup, r.nname, false); err != nil {
		return "", err
	}
	tmp, err := r.fs.work.temp(func(d layer.Dir, tmp string) error {
		return r.nup.Rename(r.nname, d, tmp, 0)
	})
	if err != nil {
		r.fs.unWhiteOut(r.nup, r.nname)
		return "", err
	}
	return tmp, nil
}

// restoreTarget puts a target back that clearTarget has moved away. If that
// fails, the target is another empty directory, or none.
func (r *renaming) restoreTarget(old string) {
	fs := r.fs
	if fs.opt.Whiteouts != WhiteoutAufs {
		_ = fs.work.dir.Rename(old, r.nup, r.nname, unix.RENAME_EXCHANGE)
		return
	}
	if fs.work.dir.Rename(old, r.nup, r.nname, 0) == nil {
		fs.unWhiteOut(r.nup, r.nname)
	}
}

// replace moves the source to its new name, over whatever the upper has there,
// and leaves a whiteout at the old one if a lower layer shows it.
func (r *renaming) replace() error {
	fs := r.fs
	leave := r.src.lower || r.flags&unix.RENAME_WHITEOUT != 0
	whited := false // a whiteout is in the way
	if r.dst.node == nil {
		var err error
		if whited, err = fs.takenByWhiteout(r.nup, r.nname); err != nil {
			return err
		}
	}
	isDir := r.src.node.dir != nil
	return r.physical(func() error {
		switch {
		case fs.opt.Whiteouts != WhiteoutDevice && leave:
			return r.leaveWhiteout(whited)
		case whited && leave:
			// The whiteout in the way is the one to leave.
			return r.oup.Rename(r.oname, r.nup, r.nname, unix.RENAME_EXCHANGE)
		case leave:
			err := r.oup.Rename(r.oname, r.nup, r.nname, unix.RENAME_WHITEOUT)
			if err == unix.EINVAL || err == unix.EPERM { // older kernels, other filesystems
				return r.leaveWhiteout(whited)
			}
			return err
		case whited && isDir:
			return fs.overWhiteout(r.oup, r.oname, r.nup, r.nname, true)
		default:
			return r.oup.Rename(r.oname, r.nup, r.nname, 0)
		}
	})
}

// physical runs the step that moves. Names of upper directories change with it,
// so nobody may open one by its name meanwhile.
func (r *renaming) physical(step func() error) error {
	fs := r.fs
	src, dst := r.src.node.dir, (*dirNode)(nil)
	if r.exchange() && r.dst.node != nil {
		dst = r.dst.node.dir
	}
	if src == nil && dst == nil {
		return step()
	}
	fs.paths.Lock()
	defer fs.paths.Unlock()
	if err := step(); err != nil {
		return err
	}
	if src != nil {
		rd := src.upper.Load()
		rd.parent, rd.name = r.np.dir.upper.Load(), r.nname
	}
	if dst != nil {
		rd := dst.upper.Load()
		rd.parent, rd.name = r.op.dir.upper.Load(), r.oname
	}
	return nil
}

// moved brings the tables up to date after a rename.
func (r *renaming) moved() {
	fs := r.fs
	if n := r.dst.node; n != nil {
		if n.dir != nil {
			n.dir.dead = true
		}
		fs.gone(r.np, r.nname, n)
		if r.dst.upper && n.dir != nil {
			fs.limits.giveObject(unix.S_IFDIR)
		}
	}
	src := r.src.node
	r.op.dir.table.remove(r.oname)
	r.np.dir.table.put(entry{name: r.nname, node: src, typ: uint16(src.typ)})
	r.op.dir.gen++
	r.np.dir.gen++
	src.movePlace(r.op, r.oname, r.np, r.nname)
	fs.dropAufsAfter(r.np, r.nup, r.nname)
}

// swapped brings the tables up to date after an exchange.
func (r *renaming) swapped() {
	a, b := r.src.node, r.dst.node
	r.op.dir.table.put(entry{name: r.oname, node: b, typ: uint16(b.typ)})
	r.np.dir.table.put(entry{name: r.nname, node: a, typ: uint16(a.typ)})
	r.op.dir.gen++
	r.np.dir.gen++
	if a == b {
		return
	}
	a.movePlace(r.op, r.oname, r.np, r.nname)
	b.movePlace(r.np, r.nname, r.op, r.oname)
}

// dropAufsAfter removes a .wh. mark that an object has come to lie beside. In
// one layer the object wins, so a mark that stays is only clutter.
func (fs *FS) dropAufsAfter(p *Node, up layer.Dir, name string) {
	_ = fs.dropAufsIfAny(p.dir.upper.Load(), up, name)
}
