package dataset

import (
	"encoding/binary"
	"math"

	"golang.org/x/sys/unix"
)

// Names of the attributes that hold POSIX ACLs.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

func isACL(attr string) bool { return attr == aclAccess || attr == aclDefault }

// An acl is a POSIX ACL. Its packed form is that of the kernel's attribute
// (linux/posix_acl_xattr.h): a version, then for each entry tag, permissions and
// id, all little-endian.
type acl []aclEntry

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

const (
	aclVersion   = 2
	aclHeader    = 4
	aclEntrySize = 8

	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

// unpackACL reads an ACL and refuses with EINVAL what is none
// (posix_acl_from_xattr and posix_acl_valid in fs/posix_acl.c).
func unpackACL(b []byte) (acl, error) {
	if len(b) < aclHeader || (len(b)-aclHeader)%aclEntrySize != 0 || binary.LittleEndian.Uint32(b) != aclVersion {
		return nil, unix.EINVAL
	}
	var a acl
	for b = b[aclHeader:]; len(b) > 0; b = b[aclEntrySize:] {
		a = append(a, aclEntry{
			tag: binary.LittleEndian.Uint16(b), perm: binary.LittleEndian.Uint16(b[2:]), id: binary.LittleEndian.Uint32(b[4:]),
		})
	}
	if len(a) > 0 && !a.valid() {
		return nil, unix.EINVAL
	}
	return a, nil
}

// valid tells whether the entries are in their order: owner, users, group, groups,
// mask, others, with a mask where there are users or groups.
func (a acl) valid() bool {
	last, named := uint16(0), false
	for _, e := range a {
		if e.perm > 7 {
			return false
		}
		switch e.tag {
		case aclUserObj, aclGroupObj, aclMask, aclOther:
			if last >= e.tag {
				return false
			}
		case aclUser, aclGroup:
			if last > e.tag || last < e.tag>>1 || e.id == math.MaxUint32 {
				return false
			}
			named = true
		default:
			return false
		}
		if e.tag == aclOther && (last < aclGroupObj || named && last != aclMask) {
			return false
		}
		last = e.tag
	}
	return last == aclOther && a.entry(aclUserObj) != nil && a.entry(aclGroupObj) != nil
}

func (a acl) pack() []byte {
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range a {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// entry returns the entry with a tag, nil if there is none.
func (a acl) entry(tag uint16) *aclEntry {
	for i := range a {
		if a[i].tag == tag {
			return &a[i]
		}
	}
	return nil
}

// class returns the entry that the group bits of the mode stand for: the mask where
// there is one (acl(5), "CORRESPONDENCE BETWEEN ACL ENTRIES AND FILE PERMISSION
// BITS").
func (a acl) class() *aclEntry {
	if m := a.entry(aclMask); m != nil {
		return m
	}
	return a.entry(aclGroupObj)
}

// mode returns the permission bits that stand for an ACL.
func (a acl) mode() uint32 {
	return uint32(a.entry(aclUserObj).perm)<<6 | uint32(a.class().perm)<<3 | uint32(a.entry(aclOther).perm)
}

// minimal tells whether the permission bits say it all.
func (a acl) minimal() bool { return len(a) == 3 }

// limit narrows an ACL to permission bits (posix_acl_create_masq).
func (a acl) limit(mode uint32) {
	a.entry(aclUserObj).perm &= uint16(mode >> 6 & 7)
	a.class().perm &= uint16(mode >> 3 & 7)
	a.entry(aclOther).perm &= uint16(mode & 7)
}

// chmod makes an ACL say what permission bits say (__posix_acl_chmod_masq).
func (a acl) chmod(mode uint32) {
	a.entry(aclUserObj).perm = uint16(mode >> 6 & 7)
	a.class().perm = uint16(mode >> 3 & 7)
	a.entry(aclOther).perm = uint16(mode & 7)
}

// setACL returns what is stored when an ACL is set, nil for nothing, and brings the
// mode in step with it (posix_acl_update_mode).
func setACL(in *inode, attr string, value []byte) ([]byte, error) {
	if in.typ() == unix.S_IFLNK {
		return nil, unix.EOPNOTSUPP
	}
	var a acl
	if len(value) > 0 {
		var err error
		if a, err = unpackACL(value); err != nil {
			return nil, err
		}
	}
	switch {
	case len(a) == 0:
		return nil, nil
	case attr == aclDefault && !in.isDir():
		return nil, unix.EACCES
	case attr == aclDefault:
		return value, nil
	}
	in.mode = in.mode&^0o777 | a.mode()
	if a.minimal() {
		return nil, nil
	}
	return value, nil
}

// readACL returns an ACL of an object, nil if it has none.
func (v *view) readACL(object uint64, attr string) (at xattrSlot, a acl, err error) {
	at, err = v.findXattr(object, attr)
	if err != nil || !at.found {
		return at, nil, err
	}
	b, err := v.value(object, &at.xattr)
	if err != nil {
		return at, nil, err
	}
	a, err = unpackACL(b)
	if err != nil || len(a) == 0 {
		return at, nil, failed("read "+attr, object, damagedf("not an ACL"))
	}
	return at, a, nil
}

// defaultACL returns the ACL that new objects in a directory inherit, nil if there
// is none.
func (v *view) defaultACL(p *Node) (acl, error) {
	if p.in.xattrs == 0 {
		return nil, nil
	}
	_, a, err := v.readACL(p.object, aclDefault)
	return a, err
}

// chmodACL keeps the access ACL of a node in step with a new mode.
func (s *step) chmodACL(n *Node, mode uint32) error {
	if n.in.xattrs == 0 {
		return nil
	}
	at, a, err := s.v.readACL(n.object, aclAccess)
	if err != nil || a == nil {
		return err
	}
	a.chmod(mode)
	return s.putXattr(n, at, aclAccess, a.pack())
}

// inheritACL gives a new object the default ACL of its directory, in which the
// umask does not count: the mode asked for and the ACL limit each other (acl(5),
// "OBJECT CREATION AND DEFAULT ACLs").
func (s *step) inheritACL(n *Node, def acl) error {
	in := s.edit(n)
	access := append(acl(nil), def...)
	access.limit(in.mode)
	in.mode = in.mode&^0o777 | access.mode()
	at := xattrSlot{pos: s.v.super.position(aclAccess)}
	if !access.minimal() {
		if err := s.putXattr(n, at, aclAccess, access.pack()); err != nil {
			return err
		}
	}
	if !in.isDir() {
		return nil
	}
	other := xattrSlot{pos: s.v.super.position(aclDefault)}
	if other.pos == at.pos && in.xattrs > 0 {
		other.pos++ // the names have the same hash
	}
	return s.putXattr(n, other, aclDefault, def.pack())
}
