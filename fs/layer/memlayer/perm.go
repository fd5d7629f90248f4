package memlayer

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// What inode_permission asks for, with the values of the permission bits.
const (
	mayExec  = 1
	mayWrite = 2
	mayRead  = 4
)

// may returns the error of inode_permission(): EPERM for writing to what is
// immutable, EACCES for what the mode or the ACL forbids.
func (fs *FS) may(i *inode, want uint32) error {
	if want&mayWrite != 0 && i.flags&unix.STATX_ATTR_IMMUTABLE != 0 {
		return syscall.EPERM
	}
	if !fs.opts.Unprivileged || fs.granted(i)&want == want {
		return nil
	}
	return syscall.EACCES
}

// granted returns the permissions of the caller to i (acl_permission_check).
func (fs *FS) granted(i *inode) uint32 {
	if fs.opts.UID == i.uid {
		granted := i.mode >> 6 & 7
		switch fs.current.Op {
		case "Link", "Rename", "Setxattr": // a host layer lends the owner the right
			granted |= mayWrite
		}
		return granted
	}
	if a, err := parseACL(i.xattrs[accessACL]); err == nil && a != nil && i.mode&0o070 != 0 {
		return a.granted(fs.opts.UID, fs.opts.GID, i.gid)
	}
	if fs.opts.GID == i.gid {
		return i.mode >> 3 & 7
	}
	return i.mode & 7
}

// owner reports whether the caller may change attributes of i
// (inode_owner_or_capable).
func (fs *FS) owner(i *inode) bool { return !fs.opts.Unprivileged || fs.opts.UID == i.uid }

// inGroup reports whether the caller may give i its group and keep set-group-ID
// (in_group_or_capable).
func (fs *FS) inGroup(i *inode) bool { return !fs.opts.Unprivileged || fs.opts.GID == i.gid }

// immutable and appendOnly are the flags of chattr(1) that forbid things; they
// have the values of FS_IMMUTABLE_FL and FS_APPEND_FL.
func immutable(i *inode) bool  { return i.flags&unix.STATX_ATTR_IMMUTABLE != 0 }
func appendOnly(i *inode) bool { return i.flags&unix.STATX_ATTR_APPEND != 0 }

// mayCreate returns the error of making an entry in d (may_create).
func (fs *FS) mayCreate(d *inode) error {
	if d.dead() {
		return syscall.ENOENT
	}
	return fs.may(d, mayWrite|mayExec)
}

// mayDelete returns the error of taking the entry of i out of d, as a
// directory or as something else (may_delete).
func (fs *FS) mayDelete(d, i *inode, asDir bool) error {
	if err := fs.may(d, mayWrite|mayExec); err != nil {
		return err
	}
	sticky := d.mode&unix.S_ISVTX != 0 && !fs.owner(d) && !fs.owner(i)
	switch {
	case appendOnly(d), sticky, appendOnly(i), immutable(i):
		return syscall.EPERM
	case asDir && !i.isDir():
		return syscall.ENOTDIR
	case !asDir && i.isDir():
		return syscall.EISDIR
	case d.dead():
		return syscall.ENOENT
	}
	return nil
}

// killOnWrite returns the mode that a regular file has after its content
// changed (setattr_should_drop_suidgid): CAP_FSETID keeps the bits.
func (fs *FS) killOnWrite(i *inode) uint32 {
	if !fs.opts.Unprivileged || !i.isRegular() {
		return i.mode
	}
	mode := i.mode &^ unix.S_ISUID
	if mode&unix.S_ISGID != 0 && (mode&unix.S_IXGRP != 0 || !fs.inGroup(i)) {
		mode &^= unix.S_ISGID
	}
	return mode
}

// content changes the content of a file by change, with what a write does to
// its attributes (file_modified): times, set-user-ID, capabilities.
func (fs *FS) content(i *inode, change func(*data)) {
	ino, mode := i.ino, fs.killOnWrite(i)
	fs.commit(func(s *state) {
		i := s.written(ino)
		i.mode = mode
		delete(i.xattrs, capability)
		change(&i.data)
	})
}
