package memlayer

import (
	"encoding/binary"
	"syscall"

	"golang.org/x/sys/unix"
)

// Names of the ACL xattrs, whose value is defined in linux/posix_acl_xattr.h.
const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// Tags of entries, in the order in which an ACL holds them.
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

type acl []aclEntry

// parseACL reads the value of an ACL xattr. No entries is no ACL, and that is
// how one is removed; EINVAL is a value that posix_acl_valid refuses.
func parseACL(value []byte) (acl, error) {
	if len(value) == 0 {
		return nil, nil
	}
	switch {
	case len(value) < 4:
		return nil, syscall.EINVAL
	case binary.LittleEndian.Uint32(value) != 2: // POSIX_ACL_XATTR_VERSION
		return nil, syscall.EOPNOTSUPP
	case (len(value)-4)%8 != 0:
		return nil, syscall.EINVAL
	}
	var a acl
	for b := value[4:]; len(b) > 0; b = b[8:] {
		e := aclEntry{binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])}
		if e.tag != aclUser && e.tag != aclGroup {
			e.id = ^uint32(0)
		}
		a = append(a, e)
	}
	if len(a) > 0 && !a.valid() {
		return nil, syscall.EINVAL
	}
	return a, nil
}

// valid checks the order and the presence of entries (posix_acl_valid).
func (a acl) valid() bool {
	var seen, last uint16
	for _, e := range a {
		named := e.tag == aclUser || e.tag == aclGroup
		switch {
		case e.perm&^7 != 0, e.tag&(e.tag-1) != 0, e.tag == 0, e.tag > aclOther:
			return false
		case e.tag < last, e.tag == last && !named, named && e.id == ^uint32(0):
			return false
		}
		last = e.tag
		seen |= e.tag
	}
	need := uint16(aclUserObj | aclGroupObj | aclOther)
	if seen&(aclUser|aclGroup) != 0 {
		need |= aclMask
	}
	return seen&need == need
}

func (a acl) bytes() []byte {
	b := le32(nil, 2)
	for _, e := range a {
		b = append(b, byte(e.tag), byte(e.tag>>8), byte(e.perm), byte(e.perm>>8))
		b = le32(b, e.id)
	}
	return b
}

// find returns the entry of a tag that occurs at most once, nil without one.
func (a acl) find(tag uint16) *aclEntry {
	for n := range a {
		if a[n].tag == tag {
			return &a[n]
		}
	}
	return nil
}

// groupClass is the entry that the group bits of the mode stand for.
func (a acl) groupClass() *aclEntry {
	if m := a.find(aclMask); m != nil {
		return m
	}
	return a.find(aclGroupObj)
}

// mode returns the permission bits that the ACL shows as, and whether they
// say all that it says (posix_acl_equiv_mode).
func (a acl) mode() (bits uint32, all bool) {
	bits = uint32(a.find(aclUserObj).perm)<<6 | uint32(a.groupClass().perm)<<3 | uint32(a.find(aclOther).perm)
	return bits, len(a) == 3
}

// withMode returns a copy for permission bits (posix_acl_chmod).
func (a acl) withMode(mode uint32) acl {
	c := append(acl(nil), a...)
	c.find(aclUserObj).perm = uint16(mode >> 6 & 7)
	c.groupClass().perm = uint16(mode >> 3 & 7)
	c.find(aclOther).perm = uint16(mode & 7)
	return c
}

// inherit returns the permission bits and the ACL, nil if the bits say it all,
// of a file made with mode below this default ACL (posix_acl_create).
func (a acl) inherit(mode uint32) (uint32, acl) {
	bits, _ := a.mode()
	mode &= bits | ^uint32(0o777)
	c := a.withMode(mode)
	if _, all := c.mode(); all {
		return mode, nil
	}
	return mode, c
}

// granted is posix_acl_permission for a caller who is not the owner: the
// permissions that some entry for him grants.
func (a acl) granted(uid, gid, fileGID uint32) uint32 {
	mask := uint32(7)
	if m := a.find(aclMask); m != nil {
		mask = uint32(m.perm)
	}
	var inGroup bool
	var group uint32
	for _, e := range a {
		switch {
		case e.tag == aclUser && e.id == uid:
			return uint32(e.perm) & mask
		case e.tag == aclGroupObj && gid == fileGID, e.tag == aclGroup && e.id == gid:
			inGroup = true
			group |= uint32(e.perm)
		}
	}
	if inGroup {
		return group & mask
	}
	return uint32(a.find(aclOther).perm)
}

// setACL changes an ACL and with it the mode (set_posix_acl, ext4_set_acl).
func (fs *FS) setACL(i *inode, name string, value []byte) error {
	a, err := parseACL(value)
	switch {
	case err != nil:
		return err
	case fs.opts.NoACLs || i.typ() == unix.S_IFLNK:
		return syscall.EOPNOTSUPP
	case immutable(i) || appendOnly(i):
		return syscall.EPERM
	case name == defaultACL && !i.isDir():
		if a != nil {
			return syscall.EACCES
		}
		return nil
	case !fs.owner(i):
		return syscall.EPERM
	}
	mode := i.mode
	if name == accessACL && a != nil {
		bits, all := a.mode()
		mode = mode&^0o777 | bits
		if all {
			a = nil
		}
		if !fs.inGroup(i) {
			mode &^= unix.S_ISGID
		}
	}
	ino := i.ino
	fs.commit(func(s *state) {
		i := s.changed(ino)
		i.mode = mode
		if a == nil {
			delete(i.xattrs, name)
		} else {
			i.xattrs[name] = a.bytes()
		}
	})
	return nil
}
