package union

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// leaveWhiteout moves the source to its new name and leaves a whiteout at the
// old one, where the filesystem cannot do both in one step or would leave a
// device. What comes before the move changes nothing that is shown, and a move
// without a whiteout is taken back: else a deleted or moved name would be
// there twice.
func (r *renaming) leaveWhiteout(whited bool) error {
	fs := r.fs
	switch fs.opt.Whiteouts {
	case WhiteoutAufs:
		return r.leaveAufs(whited)
	case WhiteoutXattr:
		if err := fs.allowXattrWhiteouts(r.op, r.oup); err != nil {
			return err
		}
	}
	fs.stats.Whiteouts.Add(1)
	switch {
	case r.dst.node != nil && r.dst.upper:
		return r.tradeForTarget()
	case r.dst.node == nil && (whited || fs.opt.Whiteouts != WhiteoutXattr || !r.np.dir.upper.Load().opaque):
		return r.tradeForWhiteout(whited)
	}
	if err := r.oup.Rename(r.oname, r.nup, r.nname, 0); err != nil {
		return err
	}
	return r.whiteOutBehind()
}

// leaveAufs writes the mark first: beside an object it means nothing. whited tells
// that an earlier mount has left a whiteout of another kind at the new name.
func (r *renaming) leaveAufs(whited bool) error {
	if err := r.fs.whiteOutAufs(r.oup, r.oname, false); err != nil {
		return err
	}
	err := r.fs.overWhiteout(r.oup, r.oname, r.nup, r.nname, whited && r.src.node.dir != nil)
	if err != nil {
		r.fs.unWhiteOut(r.oup, r.oname)
	}
	return err
}

// tradeForWhiteout makes the object and a whiteout at its new name, which
// nobody sees, change places. A directory that is marked opaque cannot be marked
// to hold xattr whiteouts and so has none in the way.
//
// Crash before the exchange: a whiteout of a name that is not shown.
func (r *renaming) tradeForWhiteout(whited bool) error {
	err := r.readyToTrade(whited)
	if err != nil {
		return err
	}
	fs := r.fs
	err = r.oup.Rename(r.oname, r.nup, r.nname, unix.RENAME_EXCHANGE)
	if err == unix.EINVAL { // the filesystem cannot exchange
		err = fs.overWhiteout(r.oup, r.oname, r.nup, r.nname, r.src.node.dir != nil)
		if err == nil {
			return r.whiteOutBehind()
		}
	}
	if err != nil && !whited {
		_ = r.nup.Unlink(r.nname)
	}
	return err
}

// readyToTrade makes sure that there is a whiteout at the new name, and that it
// counts as one at the old name too.
func (r *renaming) readyToTrade(whited bool) error {
	fs := r.fs
	if whited {
		st, err := r.nup.StatAt(r.nname)
		if err == nil && st.IsRegular() { // of an earlier mount, maybe
			err = fs.allowXattrWhiteouts(r.op, r.oup)
		}
		return err
	}
	if fs.opt.Whiteouts == WhiteoutXattr {
		if err := fs.allowXattrWhiteouts(r.np, r.nup); err != nil {
			return err
		}
	}
	return fs.makeWhiteout(r.nup, r.nname)
}

// tradeForTarget makes the object and its target change places, and puts a
// whiteout over the target.
//
// Crash after the exchange: each is there under the other's name.
func (r *renaming) tradeForTarget() error {
	fs := r.fs
	tmp, err := fs.work.temp(fs.makeWhiteout)
	if err != nil {
		return err
	}
	defer fs.work.remove(tmp) // by then the target, if that is a directory
	err = r.oup.Rename(r.oname, r.nup, r.nname, unix.RENAME_EXCHANGE)
	if err == unix.EINVAL { // the filesystem cannot exchange
		return r.replaceStepwise(tmp)
	}
	if err != nil {
		return err
	}
	flags := uint(0)
	if r.dst.node.dir != nil {
		flags = unix.RENAME_EXCHANGE
	}
	err = fs.work.dir.Rename(tmp, r.oup, r.oname, flags)
	if err != nil {
		_ = r.oup.Rename(r.oname, r.nup, r.nname, unix.RENAME_EXCHANGE)
	}
	return err
}

// replaceStepwise is tradeForTarget in single renames: the target goes to the
// work directory, so that it can come back.
//
// Crash in between: the target is missing, or the object is missing at its old
// name, where lower layers show through.
func (r *renaming) replaceStepwise(wh string) error {
	work := r.fs.work
	old, err := work.temp(func(d layer.Dir, tmp string) error { return r.nup.Rename(r.nname, d, tmp, 0) })
	if err != nil {
		return err
	}
	if err = r.oup.Rename(r.oname, r.nup, r.nname, 0); err == nil {
		if err = work.dir.Rename(wh, r.oup, r.oname, 0); err == nil {
			work.remove(old)
			return nil
		}
		_ = r.nup.Rename(r.nname, r.oup, r.oname, 0)
	}
	_ = work.dir.Rename(old, r.nup, r.nname, 0)
	return err
}

// whiteOutBehind leaves the whiteout in a step of its own, after the move to a
// name that the upper did not have.
//
// Crash before it: the object has its new name, and the old one shows what the
// lower layers have there.
func (r *renaming) whiteOutBehind() error {
	err := r.fs.makeWhiteout(r.oup, r.oname)
	if err != nil {
		_ = r.nup.Rename(r.nname, r.oup, r.oname, 0)
	}
	return err
}
