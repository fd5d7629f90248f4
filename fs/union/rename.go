package union

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
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
