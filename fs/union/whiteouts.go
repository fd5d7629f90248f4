package union

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// takenByWhiteout reports whether a name that nobody sees is taken in the upper
// by the mark of its deletion: also where such marks are not written now, since
// an earlier mount may have.
func (fs *FS) takenByWhiteout(up layer.Dir, name string) (bool, error) {
	switch _, err := up.StatAt(name); err {
	case nil:
		return true, nil
	case unix.ENOENT:
		return false, nil
	default:
		return false, err
	}
}

// overWhiteout moves an object to a name which a whiteout may have. A directory
// cannot be renamed over one (swap): the two change places, and the whiteout
// goes afterwards.
//
// Crash after the exchange: a whiteout in the work directory, swept at the next
// mount. Where the filesystem cannot exchange, a crash after the whiteout has
// gone shows what lower layers have.
func (fs *FS) overWhiteout(from layer.Dir, oldName string, to layer.Dir, newName string, swap bool) error {
	if !swap {
		return from.Rename(oldName, to, newName, 0)
	}
	err := from.Rename(oldName, to, newName, unix.RENAME_EXCHANGE)
	if err == unix.EINVAL { // the filesystem cannot exchange
		if err := to.Unlink(newName); err != nil {
			return err
		}
		if err := from.Rename(oldName, to, newName, 0); err != nil {
			_ = fs.makeWhiteout(to, newName)
			return err
		}
		return nil
	}
	if err != nil {
		return err
	}
	// Done. A whiteout that stays is of a name that no lower layer shows, or
	// lies in the work directory.
	_ = from.Unlink(oldName)
	return nil
}

// whiteOut hides a name of p that lower layers have; replace tells that the
// upper has an object of that name, no directory, which goes in the same step.
// The lock of p is held for writing.
func (fs *FS) whiteOut(p *Node, up layer.Dir, name string, replace bool) error {
	fs.stats.Whiteouts.Add(1)
	switch fs.opt.Whiteouts {
	case WhiteoutAufs:
		return fs.whiteOutAufs(up, name, replace)
	case WhiteoutXattr:
		if err := fs.allowXattrWhiteouts(p, up); err != nil {
			return err
		}
	}
	if !replace {
		return fs.makeWhiteout(up, name)
	}
	tmp, err := fs.work.temp(fs.makeWhiteout)
	if err != nil {
		return err
	}
	if err := fs.work.dir.Rename(tmp, up, name, 0); err != nil {
		fs.work.remove(tmp)
		return err
	}
	return nil
}

// makeWhiteout makes the mark under a free name. Marks are names of one inode,
// as the kernel does it, so that a removed tree costs directory entries only.
func (fs *FS) makeWhiteout(d layer.Dir, name string) error {
	fs.whiteoutMu.Lock()
	defer fs.whiteoutMu.Unlock()
	if fs.whiteoutObj != nil {
		err := d.Link(fs.whiteoutObj, name)
		switch err {
		case unix.EMLINK, unix.EPERM, unix.EXDEV, unix.EOPNOTSUPP:
		case unix.ENOENT: // its last name has gone meanwhile
		default:
			return err
		}
		fs.whiteoutObj.Close()
		fs.whiteoutObj = nil
	}
	if err := fs.newWhiteout(d, name); err != nil {
		return err
	}
	if o, err := d.Lookup(name); err == nil {
		fs.whiteoutObj = o
	}
	return nil
}

func (fs *FS) newWhiteout(d layer.Dir, name string) error {
	if fs.opt.Whiteouts == WhiteoutDevice {
		return d.Mknod(name, unix.S_IFCHR, 0)
	}
	s, err := fs.work.tempFile(0o600)
	if err != nil {
		return err
	}
	defer s.discard()
	if err := s.file.Setxattr(fs.opt.Prefix.Whiteout(), []byte("y"), 0); err != nil {
		return err
	}
	return s.publish(d, name, false)
}

// allowXattrWhiteouts marks the upper part of a directory as one whose empty
// files may be whiteouts.
func (fs *FS) allowXattrWhiteouts(p *Node, up layer.Dir) error {
	rd := p.dir.upper.Load()
	if rd.xattrWhiteouts {
		return nil
	}
	if err := up.Setxattr(fs.opt.Prefix.Opaque(), []byte("x"), 0); err != nil {
		return err
	}
	rd.xattrWhiteouts = true
	return nil
}

// dropXattrWhiteouts removes the whiteouts of a directory below which no layer has
// anything. It keeps its times.
//
// Crash at any time: the others are left, and hide nothing.
func (fs *FS) dropXattrWhiteouts(dir layer.Dir) error {
	st, err := dir.Stat()
	if err != nil {
		return err
	}
	list, err := dir.ReadDir()
	if err != nil {
		return err
	}
	for _, e := range list {
		if st, err := dir.StatAt(e.Name); err != nil || !st.IsRegular() || st.Size > 0 {
			if err != nil {
				return err
			}
			continue
		}
		m, err := fs.readMarks(childXattrs{dir, e.Name})
		if err == nil && m.whiteout {
			err = dir.Unlink(e.Name)
		}
		if err != nil {
			return err
		}
	}
	// A wrong time would be no harm that is worth failing for.
	_ = dir.SetTimes(st.Atime, st.Mtime)
	return nil
}

// whiteOutAufs writes .wh.NAME, then removes the object.
//
// Crash in between: the object and its whiteout in one layer, which shows the
// object: nothing has happened yet.
func (fs *FS) whiteOutAufs(up layer.Dir, name string, replace bool) error {
	wh, err := whiteout.AufsWhiteoutName(name)
	if err != nil {
		return unix.ENAMETOOLONG
	}
	f, err := up.OpenFile(wh, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o444)
	if err != nil && err != unix.EEXIST {
		return err
	}
	if err == nil {
		f.Close()
	}
	if replace {
		return up.Unlink(name)
	}
	return nil
}

// unWhiteOut takes a whiteout back that hides a name which the upper does not
// have. If that fails the name stays deleted.
func (fs *FS) unWhiteOut(up layer.Dir, name string) {
	if fs.opt.Whiteouts == WhiteoutAufs {
		if wh, err := whiteout.AufsWhiteoutName(name); err == nil {
			name = wh
		}
	}
	_ = up.Unlink(name)
}

// dropAufsWhiteout removes the .wh. mark of a name that exists again.
func (fs *FS) dropAufsWhiteout(rd *realDir, up layer.Dir, name string) error {
	if !fs.mayHaveAufs(rd, up) {
		return nil
	}
	wh, err := whiteout.AufsWhiteoutName(name)
	if err != nil {
		return nil
	}
	if err := up.Unlink(wh); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}
