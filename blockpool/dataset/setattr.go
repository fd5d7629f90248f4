package dataset

import (
	"golang.org/x/sys/unix"
)

// SetAttr changes attributes of a node, all in one batch, and returns them all.
func (fs *FS) SetAttr(n *Node, c Change) (Attr, error) {
	v, err := n.lockWritable()
	if err != nil {
		return Attr{}, err
	}
	defer n.mu.Unlock()
	if c == (Change{}) {
		return n.attr(), nil
	}
	if err := c.allowed(n.in); err != nil {
		return Attr{}, err
	}
	s := v.step()
	defer s.end()
	if err := s.setOwnerAndMode(n, &c); err != nil {
		return Attr{}, err
	}
	pending := false
	if c.Size != nil && *c.Size != n.in.size {
		if pending, err = s.resize(n, *c.Size); err != nil {
			return Attr{}, err
		}
	}
	in := s.change(n)
	if c.Size != nil {
		in.mtime = s.now
	}
	setTime(&in.atime, c.Atime, s.now)
	setTime(&in.mtime, c.Mtime, s.now)
	if err := s.commit("set attributes", n.object); err != nil {
		return Attr{}, err
	}
	if pending {
		// What cannot go now goes before the file grows, or at the next mount.
		_ = n.trimLocked()
	}
	return n.attr(), nil
}

// allowed refuses what cannot be set on an object.
func (c *Change) allowed(in *inode) error {
	switch {
	case c.Size != nil && in.isDir():
		return unix.EISDIR
	case c.Size != nil && (!in.isFile() || *c.Size < 0):
		return unix.EINVAL
	case c.Mode != nil && in.typ() == unix.S_IFLNK:
		return unix.EOPNOTSUPP
	case in.flags&flagImmutable != 0:
		return unix.EPERM
	case in.flags&flagAppend != 0:
		if c.Mode != nil || c.UID != nil || c.GID != nil || c.Size != nil || fixesTime(c.Atime) || fixesTime(c.Mtime) {
			return unix.EPERM
		}
	}
	for _, t := range []*Time{c.Atime, c.Mtime} {
		if t != nil && t.Nsec >= 1e9 && t.Nsec != unix.UTIME_NOW && t.Nsec != unix.UTIME_OMIT {
			return unix.EINVAL
		}
	}
	return nil
}

// fixesTime tells whether a time is set to anything but now.
func fixesTime(t *Time) bool {
	return t != nil && t.Nsec != unix.UTIME_NOW && t.Nsec != unix.UTIME_OMIT
}

func setTime(to *Time, t *Time, now Time) {
	switch {
	case t == nil || t.Nsec == unix.UTIME_OMIT:
	case t.Nsec == unix.UTIME_NOW:
		*to = now
	default:
		*to = *t
	}
}

// setOwnerAndMode sets owner, group and permission bits. What gets another owner, or
// is cut, loses suid, sgid and capabilities, as with chown(2) and truncate(2).
func (s *step) setOwnerAndMode(n *Node, c *Change) error {
	in := s.change(n)
	chown := c.UID != nil || c.GID != nil
	if c.UID != nil {
		in.uid = *c.UID
	}
	if c.GID != nil {
		in.gid = *c.GID
	}
	if !in.isDir() && (chown || c.KillPriv) {
		in.mode = withoutPriv(in.mode)
	}
	if chown || c.KillPriv || c.Size != nil {
		if err := s.dropCaps(n); err != nil {
			return err
		}
	}
	if c.Mode == nil {
		return nil
	}
	in.mode = in.typ() | *c.Mode&0o7777
	return s.chmodACL(n, in.mode)
}

// withoutPriv returns a mode without the bits that make a file run as someone
// else.
func withoutPriv(mode uint32) uint32 {
	mode &^= unix.S_ISUID
	if mode&unix.S_IXGRP != 0 {
		mode &^= unix.S_ISGID
	}
	return mode
}

// capability is the attribute that gives a program capabilities.
const capability = "security.capability"

// dropCaps takes the capabilities of a program away, which has changed.
func (s *step) dropCaps(n *Node) error {
	if n.noCaps || n.in.isDir() || s.edit(n).xattrs == 0 {
		return nil
	}
	at, err := s.v.findXattr(n.object, capability)
	if err != nil {
		return err
	}
	if !at.found {
		n.noCaps = true
		return nil
	}
	return s.removeXattr(n, at)
}
