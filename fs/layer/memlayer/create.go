package memlayer

import (
	"strings"
	"syscall"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

func (d *dir) Mkdir(name string, mode uint32) error {
	return d.at(Call{Op: "Mkdir", Name: name, Mode: mode, Mutates: true}, func(i *inode) error {
		_, err := d.make(i, name, unix.S_IFDIR|mode&0o1777, 0, "")
		return err
	})
}

func (d *dir) Mknod(name string, mode uint32, rdev uint64) error {
	c := Call{Op: "Mknod", Name: name, Mode: mode, Off: int64(rdev), Mutates: true}
	return d.at(c, func(i *inode) error {
		typ := mode & unix.S_IFMT
		switch typ {
		case 0:
			typ = unix.S_IFREG
		case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
		case unix.S_IFCHR, unix.S_IFBLK:
			whiteout := typ == unix.S_IFCHR && rdev == 0
			if whiteout && d.fs.opts.NoWhiteoutDevice || !whiteout && d.fs.opts.Unprivileged {
				if _, err := d.fs.child(i, name); err == nil {
					return syscall.EEXIST
				}
				return syscall.EPERM
			}
		case unix.S_IFDIR:
			return syscall.EPERM
		default:
			return syscall.EINVAL
		}
		if typ != unix.S_IFCHR && typ != unix.S_IFBLK {
			rdev = 0
		}
		_, err := d.make(i, name, typ|mode&0o7777, rdev, "")
		return err
	})
}

func (d *dir) Symlink(target, name string) error {
	return d.at(Call{Op: "Symlink", Name: name, To: target, Mutates: true}, func(i *inode) error {
		switch {
		case strings.IndexByte(target, 0) >= 0:
			return syscall.EINVAL
		case target == "":
			return syscall.ENOENT
		case len(target) >= unix.PathMax:
			return syscall.ENAMETOOLONG
		}
		_, err := d.make(i, name, unix.S_IFLNK|0o777, 0, target)
		return err
	})
}

// TmpFile makes a file that Link can give its first name.
func (d *dir) TmpFile(mode uint32) (f layer.File, err error) {
	err = d.do(Call{Op: "TmpFile", Mode: mode, Mutates: true}, func(i *inode) error {
		fs := d.fs
		if err := fs.may(i, mayWrite|mayExec); err != nil {
			return err
		}
		if fs.opts.NoTmpFile {
			return syscall.EOPNOTSUPP
		}
		if i.dead() {
			return syscall.EPERM // __ext4_new_inode, where others have ENOENT or none
		}
		made, err := fs.add(i, "", unix.S_IFREG|mode&0o7777, 0, "")
		if err == nil {
			f = &file{fs.open(made, d.join("#tmpfile"), unix.O_RDWR, d.quiet)}
		}
		return err
	})
	return f, err
}

// make makes a child, in the order of checks that filename_create and
// may_create have.
func (d *dir) make(parent *inode, name string, mode uint32, rdev uint64, target string) (*inode, error) {
	switch _, err := d.fs.child(parent, name); err {
	case nil:
		return nil, syscall.EEXIST
	case syscall.ENOENT:
	default:
		return nil, err
	}
	if err := d.fs.mayCreate(parent); err != nil {
		return nil, err
	}
	return d.fs.add(parent, name, mode, rdev, target)
}

// add makes an inode in a directory, of which it has the space, the group and
// the ACLs; without a name it is one for TmpFile.
func (fs *FS) add(parent *inode, name string, mode uint32, rdev uint64, target string) (*inode, error) {
	sp := fs.inherit(parent, mode)
	sp.rdev, sp.target = rdev, target
	if err := fs.room((&inode{mode: mode, target: target}).blocks(), 1); err != nil {
		return nil, err
	}
	dir := parent.ino
	fs.commit(func(s *state) { s.create(dir, name, sp) })
	return fs.st.inodes[fs.st.next-1], nil
}

// inherit says what a new child of parent begins with (inode_init_owner,
// mode_strip_sgid, ext4_init_acl, ext4_mask_flags).
func (fs *FS) inherit(parent *inode, mode uint32) spec {
	sp := spec{uid: fs.opts.UID, gid: fs.opts.GID, xattrs: make(map[string][]byte)}
	isDir, isLink := mode&unix.S_IFMT == unix.S_IFDIR, mode&unix.S_IFMT == unix.S_IFLNK
	if parent.mode&unix.S_ISGID != 0 {
		const sgidExec = unix.S_ISGID | unix.S_IXGRP
		switch {
		case isDir:
			mode |= unix.S_ISGID
		case mode&sgidExec == sgidExec && !fs.inGroup(parent):
			mode &^= unix.S_ISGID
		}
		sp.gid = parent.gid
	}
	if def, err := parseACL(parent.xattrs[defaultACL]); err == nil && def != nil && !isLink {
		var access acl
		mode, access = def.inherit(mode)
		if access != nil {
			sp.xattrs[accessACL] = access.bytes()
		}
		if isDir {
			sp.xattrs[defaultACL] = def.bytes()
		}
	}
	sp.mode = mode
	sp.flags = parent.flags & flagsInherited
	switch {
	case isDir:
	case mode&unix.S_IFMT == unix.S_IFREG:
		sp.flags &^= flagDirsync
	default:
		sp.flags &= flagsOther
	}
	return sp
}

// Link names an inode once more. One whose last name is gone has no way back,
// unless TmpFile made it (vfs_link).
func (d *dir) Link(obj layer.Object, name string) error {
	var h *handle
	switch o := obj.(type) {
	case *object:
		h = o.handle
	case *file:
		h = o.handle
	case *dir:
		h = o.handle
	}
	return d.at(Call{Op: "Link", Name: name, To: pathOf(obj), Mutates: true}, func(parent *inode) error {
		fs := d.fs
		if h != nil && h.fs == fs && h.closed {
			return syscall.EBADF
		}
		switch _, err := fs.child(parent, name); err {
		case nil:
			return syscall.EEXIST
		case syscall.ENOENT:
		default:
			return err
		}
		if h == nil || h.fs != fs {
			return syscall.EXDEV
		}
		if err := fs.mayCreate(parent); err != nil {
			return err
		}
		i := h.i
		switch {
		case immutable(i), appendOnly(i), i.isDir():
			return syscall.EPERM
		case i.nlink == 0 && !i.linkable:
			return syscall.ENOENT
		case i.nlink >= fs.opts.MaxLinks:
			return syscall.EMLINK
		}
		dir, ino := parent.ino, i.ino
		fs.commit(func(s *state) { s.link(dir, name, ino) })
		return nil
	})
}
