package memlayer

import (
	"syscall"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

func (d *dir) Unlink(name string) error {
	return d.remove(Call{Op: "Unlink", Name: name, Mutates: true}, false)
}

func (d *dir) Rmdir(name string) error {
	return d.remove(Call{Op: "Rmdir", Name: name, Mutates: true}, true)
}

func (d *dir) remove(c Call, asDir bool) error {
	return d.at(c, func(parent *inode) error {
		fs := d.fs
		i, err := fs.child(parent, c.Name)
		if err != nil {
			return err
		}
		if err := fs.mayDelete(parent, i, asDir); err != nil {
			return err
		}
		if asDir && len(i.entries) > 0 {
			return syscall.ENOTEMPTY
		}
		dir, name := parent.ino, c.Name
		fs.commit(func(s *state) { s.remove(dir, name) })
		fs.st.reap(i.ino)
		return nil
	})
}

// Rename checks in the order of do_renameat2, vfs_rename and ext4_rename2.
func (d *dir) Rename(oldName string, to layer.Dir, newName string, flags uint) error {
	if err := layer.CheckName(newName); err != nil {
		return err
	}
	t, ok := to.(*dir)
	c := Call{Op: "Rename", Name: oldName, Flag: int(flags), Mutates: true}
	if ok {
		c.To = t.join(newName)
	}
	return d.at(c, func(from *inode) error {
		fs := d.fs
		exchange, noReplace := flags&unix.RENAME_EXCHANGE != 0, flags&unix.RENAME_NOREPLACE != 0
		whiteout := flags&unix.RENAME_WHITEOUT != 0
		switch {
		case flags&^(unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE|unix.RENAME_WHITEOUT) != 0,
			exchange && (noReplace || whiteout):
			return syscall.EINVAL
		case !ok || t.fs != fs:
			return syscall.EXDEV
		case t.closed:
			return syscall.EBADF
		}
		into := t.i
		for _, parent := range []*inode{from, into} { // both are walked to before anything is looked up
			if err := fs.may(parent, mayExec); err != nil {
				return err
			}
		}
		i, err := fs.child(from, oldName)
		if err != nil {
			return err
		}
		over, err := fs.child(into, newName)
		switch {
		case err != nil && (err != syscall.ENOENT || into.dead()):
			return err
		case err == nil && noReplace:
			return syscall.EEXIST
		case err != nil && exchange:
			return syscall.ENOENT
		case i.isDir() && fs.st.below(into.ino, i.ino):
			return syscall.EINVAL
		case over != nil && over.isDir() && over != i && fs.st.below(from.ino, over.ino):
			if exchange {
				return syscall.EINVAL
			}
			return syscall.ENOTEMPTY
		case over == i:
			return nil // two names of one file: rename(2) does nothing
		}
		if err := d.mayRename(from, i, into, over, exchange); err != nil {
			return err
		}
		switch {
		case flags != 0 && fs.opts.NoRenameFlags:
			return syscall.EINVAL
		case over != nil && over.isDir() && len(over.entries) > 0 && !exchange:
			return syscall.ENOTEMPTY
		}
		f, t := from.ino, into.ino
		if exchange {
			fs.commit(func(s *state) { s.exchange(f, oldName, t, newName) })
			return nil
		}
		var white *spec
		if whiteout {
			if fs.opts.NoWhiteoutDevice {
				return syscall.EPERM
			}
			if err := fs.room(0, 1); err != nil {
				return err
			}
			sp := fs.inherit(from, unix.S_IFCHR)
			white = &sp
		}
		fs.commit(func(s *state) { s.rename(f, oldName, t, newName, white) })
		if over != nil {
			fs.st.reap(over.ino)
		}
		return nil
	})
}

func (d *dir) mayRename(from, i, into, over *inode, exchange bool) error {
	fs := d.fs
	if err := fs.mayDelete(from, i, i.isDir()); err != nil {
		return err
	}
	var err error
	switch {
	case over == nil:
		err = fs.mayCreate(into)
	case exchange:
		err = fs.mayDelete(into, over, over.isDir())
	default:
		err = fs.mayDelete(into, over, i.isDir())
	}
	if err != nil || from == into {
		return err
	}
	// The entry ".." of a directory that moves is written to.
	if i.isDir() {
		err = fs.may(i, mayWrite)
	}
	if err == nil && exchange && over.isDir() {
		err = fs.may(over, mayWrite)
	}
	return err
}
