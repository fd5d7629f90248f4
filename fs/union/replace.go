package union

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

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
	if err := fs.copyAttributes(empty, old, st, n, false); err != nil {
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
// and leaves a whiteout at the old one if a lower layer shows it. Where none does,
// RENAME_WHITEOUT asks for nothing that anybody could see.
func (r *renaming) replace() error {
	fs := r.fs
	leave := r.src.lower
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
		case leave && (whited || fs.opt.Whiteouts != WhiteoutDevice):
			return r.leaveWhiteout(whited)
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
