package memlayer

import (
	"syscall"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

func (h *handle) Chmod(mode uint32) error {
	return h.do(Call{Op: "Chmod", Mode: mode, Mutates: true}, func(i *inode) error {
		fs := h.fs
		switch {
		case immutable(i) || appendOnly(i):
			return syscall.EPERM
		case i.typ() == unix.S_IFLNK:
			return syscall.EOPNOTSUPP
		case !fs.owner(i):
			return syscall.EPERM
		}
		mode &= 0o7777
		if !fs.inGroup(i) {
			mode &^= unix.S_ISGID
		}
		ino := i.ino
		fs.commit(func(s *state) {
			i := s.changed(ino)
			i.mode = i.typ() | mode
			if a, err := parseACL(i.xattrs[accessACL]); err == nil && a != nil {
				i.xattrs[accessACL] = a.withMode(mode).bytes()
			}
		})
		return nil
	})
}

// Chown clears the set-user-ID bit of everything but directories, for root
// too and also when nothing else changes (chown_common).
func (h *handle) Chown(uid, gid int) error {
	return h.do(Call{Op: "Chown", Mutates: true}, func(i *inode) error {
		fs := h.fs
		if immutable(i) || appendOnly(i) {
			return syscall.EPERM
		}
		newUID, newGID := i.uid, i.gid
		if uid != -1 {
			newUID = uint32(uid)
		}
		if gid != -1 {
			newGID = uint32(gid)
		}
		if fs.opts.Unprivileged && (uid != -1 && (fs.opts.UID != i.uid || newUID != i.uid) ||
			gid != -1 && (fs.opts.UID != i.uid || newGID != i.gid && newGID != fs.opts.GID)) {
			return syscall.EPERM
		}
		mode := i.mode
		if !i.isDir() {
			mode &^= unix.S_ISUID
			if mode&unix.S_IXGRP != 0 || !fs.inGroup(i) {
				mode &^= unix.S_ISGID
			}
		}
		ino := i.ino
		fs.commit(func(s *state) {
			i := s.changed(ino)
			i.mode, i.uid, i.gid = mode, newUID, newGID
			if !i.isDir() {
				delete(i.xattrs, capability)
			}
		})
		return nil
	})
}

func (h *handle) SetTimes(atime, mtime layer.Time) error {
	return h.do(Call{Op: "SetTimes", Mutates: true}, func(i *inode) error {
		fs := h.fs
		if !validTime(atime) || !validTime(mtime) {
			return syscall.EINVAL
		}
		if atime.Nsec == unix.UTIME_OMIT && mtime.Nsec == unix.UTIME_OMIT {
			return nil
		}
		now := atime.Nsec == unix.UTIME_NOW && mtime.Nsec == unix.UTIME_NOW
		switch {
		case immutable(i), appendOnly(i) && !now, !fs.owner(i) && !now:
			return syscall.EPERM
		case !fs.owner(i):
			if err := fs.may(i, mayWrite); err != nil {
				return err
			}
		}
		ino := i.ino
		fs.commit(func(s *state) {
			i := s.changed(ino)
			setTime(&i.atime, atime, i.ctime)
			setTime(&i.mtime, mtime, i.ctime)
		})
		return nil
	})
}

func validTime(t layer.Time) bool {
	return t.Nsec < 1_000_000_000 || t.Nsec == unix.UTIME_NOW || t.Nsec == unix.UTIME_OMIT
}

// setTime keeps to what the inode can hold: 34 bits of seconds, the first
// quarter of them before 1970 (ext4.h, EXT4_TIMESTAMP_MIN and EXTRA_MAX).
func setTime(to *layer.Time, t, now layer.Time) {
	const minSec, maxSec = -1 << 31, 1<<34 - 1<<31 - 1
	switch {
	case t.Nsec == unix.UTIME_OMIT:
	case t.Nsec == unix.UTIME_NOW:
		*to = now
	case t.Sec <= minSec:
		*to = layer.Time{Sec: minSec}
	case t.Sec >= maxSec:
		*to = layer.Time{Sec: maxSec}
	default:
		*to = t
	}
}

// Flags of chattr(1), from linux/fs.h: what can be set, what needs a
// capability, what children take over, and what shows that a file has extents.
const (
	flagsSettable  = 0x0001_04fb // SECRM UNRM SYNC IMMUTABLE APPEND NODUMP NOATIME DIRSYNC…
	flagsGuarded   = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND
	flagsInherited = 0x0001_00cb
	flagsOther     = 0x0000_00c0 // what other types than files and directories keep
	flagDirsync    = 0x0001_0000
	flagExtents    = 0x0008_0000
)

func (h *handle) getFlags() (flags uint32, err error) {
	err = h.do(Call{Op: "Flags"}, func(i *inode) error {
		if i.isDir() {
			if err := h.fs.may(i, mayRead|mayExec); err != nil {
				return err
			}
		}
		flags = i.flags | flagExtents
		return nil
	})
	return flags, err
}

func (h *handle) setFlags(flags uint32) error {
	return h.do(Call{Op: "SetFlags", Mutates: true}, func(i *inode) error {
		fs := h.fs
		if i.isDir() {
			if err := fs.may(i, mayRead|mayExec); err != nil {
				return err
			}
		}
		flags &^= flagExtents
		switch {
		case flags&^flagsSettable != 0:
			return syscall.EOPNOTSUPP
		case !fs.owner(i), fs.opts.Unprivileged && (flags^i.flags)&flagsGuarded != 0:
			return syscall.EPERM
		}
		if !i.isDir() {
			flags &^= flagDirsync
		}
		ino := i.ino
		fs.commit(func(s *state) { s.changed(ino).flags = flags })
		return nil
	})
}
