package dataset

import (
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

const renameFlags = unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE | unix.RENAME_WHITEOUT

// Rename moves a name, with the flags of renameat2(2), in one batch. Between trees
// it is EXDEV.
func (fs *FS) Rename(op *Node, oname string, np *Node, nname string, flags uint) error {
	if !op.IsDir() || !np.IsDir() {
		return unix.ENOTDIR
	}
	if flags&^uint(renameFlags) != 0 || flags&unix.RENAME_EXCHANGE != 0 && flags&(unix.RENAME_NOREPLACE|unix.RENAME_WHITEOUT) != 0 {
		return unix.EINVAL
	}
	if err := fs.mayChangeNames(op, oname); err != nil {
		return err
	}
	if err := fs.mayChangeNames(np, nname); err != nil {
		return err
	}
	if op.view != np.view {
		return unix.EXDEV
	}
	r := renaming{fs: fs, v: op.view, op: op, np: np, oname: oname, nname: nname, flags: flags}
	err := r.run()
	if err == errNeedsTurn {
		r.v.renames.Lock()
		defer r.v.renames.Unlock()
		r.turn = true
		err = r.run()
	}
	return err
}

// errNeedsTurn says that a directory moves to another one, which one at a time may
// do, so that the way from a directory to the root stays what it is.
const errNeedsTurn = unix.ERESTART

// A renaming is one rename under way.
type renaming struct {
	fs           *FS
	v            *view
	op, np       *Node
	oname, nname string
	flags        uint
	turn         bool // view.renames is held

	from, to slot
	src, dst *Node // nil: a subvolume, or for dst nothing
}

func (r *renaming) exchange() bool { return r.flags&unix.RENAME_EXCHANGE != 0 }

func (r *renaming) run() error {
	return r.fs.withFound([]*Node{r.op, r.np}, r.find, func([]*Node) error {
		if done, err := r.allowed(); done || err != nil {
			return err
		}
		s := r.v.step()
		defer s.end()
		if err := r.move(s); err != nil {
			return err
		}
		return s.commit("rename "+r.oname+" to "+r.nname, r.from.entry.object)
	})
}

// find looks for source and target.
func (r *renaming) find() (found []*Node, err error) {
	r.src, r.dst = nil, nil
	if r.from, found, err = r.fs.takenLocked(r.op, r.oname); err != nil {
		return found, err
	}
	if len(found) > 0 {
		r.src = found[0]
	}
	if r.np.in.nlink == 0 {
		return found, unix.ENOENT
	}
	var more []*Node
	r.to, more, err = r.fs.takenLocked(r.np, r.nname)
	if err == unix.ENOENT && !r.exchange() {
		err = nil
	}
	if len(more) > 0 {
		r.dst = more[0]
	}
	return append(found, more...), err
}

func (r *renaming) movesDir() bool {
	return r.op != r.np && (r.from.entry.typ == unix.S_IFDIR || r.exchange() && r.to.entry.typ == unix.S_IFDIR)
}

// allowed checks what POSIX wants of source and target; done tells that there is
// nothing to do.
func (r *renaming) allowed() (done bool, err error) {
	if r.movesDir() && !r.turn {
		return false, errNeedsTurn
	}
	if r.src != nil {
		if err := r.src.checkAgainst(r.op, r.from.entry); err != nil {
			return false, err
		}
		if err := r.notInto(r.src, r.np, unix.EINVAL); err != nil {
			return false, err
		}
	}
	if r.dst != nil {
		if err := r.dst.checkAgainst(r.np, r.to.entry); err != nil {
			return false, err
		}
		inside := unix.ENOTEMPTY
		if r.exchange() {
			inside = unix.EINVAL
		}
		if err := r.notInto(r.dst, r.op, inside); err != nil {
			return false, err
		}
	}
	if r.to.found && r.flags&unix.RENAME_NOREPLACE != 0 {
		return false, unix.EEXIST
	}
	if r.src != nil && r.src == r.dst && !r.exchange() {
		return true, nil // two names of one file: nothing to do (rename(2))
	}
	if r.op == r.np && r.oname == r.nname {
		return true, nil // also for a subvolume, and for an exchange
	}
	if !r.to.found && r.to.full {
		return false, failed("enter "+r.nname, r.np.object, unix.ENOSPC)
	}
	if err := r.flagsAllow(); err != nil {
		return false, err
	}
	if !r.to.found || r.exchange() {
		return false, nil
	}
	srcDir, dstDir := r.from.entry.typ == unix.S_IFDIR, r.to.entry.typ == unix.S_IFDIR
	switch {
	case srcDir && !dstDir:
		return false, unix.ENOTDIR
	case !srcDir && dstDir:
		return false, unix.EISDIR
	case r.to.entry.subvol:
		return false, unix.EBUSY
	case dstDir:
		return false, r.dst.emptyLocked()
	}
	return false, nil
}

// flagsAllow asks the flags of chattr(1).
func (r *renaming) flagsAllow() error {
	const fixed = flagImmutable | flagAppend
	bad := r.op.in.flags & fixed
	if r.src != nil {
		bad |= r.src.in.flags & fixed
	}
	if r.dst != nil {
		bad |= (r.dst.in.flags | r.np.in.flags) & fixed
	}
	if r.exchange() {
		bad |= r.np.in.flags & fixed
	}
	if bad != 0 || r.np.in.flags&flagImmutable != 0 {
		return unix.EPERM
	}
	return nil
}

// notInto returns an errno if a directory n is p, or is on the way from p to the
// root. Nothing moves meanwhile, as this is the one whose turn it is.
func (r *renaming) notInto(n, p *Node, inside unix.Errno) error {
	if !n.in.isDir() || !r.movesDir() && n != p {
		return nil
	}
	object, parent := p.object, p.in.parent
	for way := (cycle{}); ; {
		switch {
		case object == n.object:
			return inside
		case object == rootObject:
			return nil
		case way.closed(object):
			return failed("find the way to the root", p.object, damagedf("there is none"))
		}
		in, err := r.v.readInode(parent)
		if err != nil {
			return err
		}
		object, parent = parent, in.parent
	}
}

// move puts all that changes into a step.
func (r *renaming) move(s *step) error {
	moved := r.from.entry
	moved.name = r.nname
	if r.exchange() {
		other := r.to.entry
		other.name = r.oname
		if moved.typ != other.typ || r.op != r.np {
			r.recount(s, moved.typ, other.typ)
		}
		r.touchParents(s)
		s.Put(entryKey(r.np.object, r.to.pos), moved.pack())
		s.Put(entryKey(r.op.object, r.from.pos), other.pack())
		r.exchangeLinks(s)
		return nil
	}
	if r.to.found {
		s.Frees = true
		s.lose(r.np, r.to.entry.typ) // the entry becomes another one below
		if err := s.unname(r.dst, r.np.object, r.to.pos); err != nil {
			return err
		}
	}
	s.lose(r.op, moved.typ)
	s.enter(r.np, r.to.pos, moved)
	if r.src != nil {
		s.moveLink(r.src, r.op.object, r.from.pos, r.np.object, r.to.pos)
	}
	if r.flags&unix.RENAME_WHITEOUT != 0 {
		return r.whiteout(s)
	}
	s.Delete(entryKey(r.op.object, r.from.pos))
	return nil
}

// recount moves what directories that change places count for their parents.
func (r *renaming) recount(s *step, moved, other uint32) {
	count := func(p *Node, gained, lost uint32) {
		in := s.edit(p)
		if gained == unix.S_IFDIR {
			in.nlink++
		}
		if lost == unix.S_IFDIR {
			in.nlink = max(2, in.nlink-1)
		}
	}
	count(r.np, moved, other)
	count(r.op, other, moved)
}

func (r *renaming) touchParents(s *step) {
	for _, p := range []*Node{r.op, r.np} {
		s.change(p).mtime = s.now
	}
}

func (r *renaming) exchangeLinks(s *step) {
	if r.src == r.dst {
		return // two names of one file stay where they are, or two subvolumes
	}
	if r.src != nil {
		s.moveLink(r.src, r.op.object, r.from.pos, r.np.object, r.to.pos)
	}
	if r.dst != nil {
		s.moveLink(r.dst, r.np.object, r.to.pos, r.op.object, r.from.pos)
	}
}

// whiteout leaves a character device 0:0 at the old name, as overlayfs wants it
// (RENAME_WHITEOUT).
func (r *renaming) whiteout(s *step) error {
	object, err := s.born()
	if err != nil {
		return err
	}
	in := inode{
		mode: unix.S_IFCHR, nlink: 1, gen: 1 + rand.Uint32N(1<<31), parent: r.op.object, pos: r.from.pos,
		atime: s.now, mtime: s.now, ctime: s.now, btime: s.now,
	}
	s.Put(inodeKey(object), in.pack())
	s.enter(r.op, r.from.pos, entry{typ: unix.S_IFCHR, object: object, name: r.oname})
	return nil
}
