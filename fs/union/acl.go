package union

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// Names of the xattrs that hold POSIX ACLs.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// defaultACLState caches whether a directory has a default ACL.
type defaultACLState int8

const (
	aclUnknown defaultACLState = iota
	aclNone
	aclPresent
)

// inheritance is what a new object takes over from its directory.
type inheritance struct {
	mode   uint32 // permission bits, the umask applied if it counts
	setgid bool   // the directory hands its group on
	gid    uint32
	acl    *posixACL // the default ACL, nil if there is none
}

// inheritance finds out what a new object in p takes over: the umask counts
// only where the directory has no default ACL (acl(5)). The lock of p is held
// for writing.
func (fs *FS) inheritance(p *Node, up layer.Dir, b *birth) (*inheritance, error) {
	in := &inheritance{mode: b.mode & 0o7777}
	st, err := up.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_ISGID != 0 {
		in.setgid, in.gid = true, st.GID
	}
	if b.typ == unix.S_IFLNK {
		return in, nil
	}
	if p.dir.acl != aclNone {
		p.dir.acl = aclPresent
		err := readSized(func(buf []byte) (int, error) { return up.Getxattr(aclDefault, buf) }, func(v []byte) (err error) {
			in.acl, err = parseACL(v)
			return err
		})
		switch err {
		case nil:
		case unix.ENODATA, unix.EOPNOTSUPP:
			p.dir.acl = aclNone
		default:
			return nil, err
		}
	}
	if in.acl == nil {
		in.mode &^= b.caller.Umask
	}
	return in, nil
}

// posixACL is a POSIX ACL in the form of its xattr (linux/posix_acl_xattr.h): a
// version, then entries of tag, permissions and id, all little-endian.
type posixACL struct {
	raw     []byte
	entries []aclEntry
}

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

const (
	aclVersion   = 2
	aclHeader    = 4
	aclEntrySize = 8

	aclUserObj  = 0x01
	aclGroupObj = 0x04
	aclMask     = 0x10
	aclOther    = 0x20
)

func parseACL(v []byte) (*posixACL, error) {
	if len(v) < aclHeader || (len(v)-aclHeader)%aclEntrySize != 0 || binary.LittleEndian.Uint32(v) != aclVersion {
		return nil, fmt.Errorf("default ACL of %d bytes cannot be read: %w", len(v), unix.EINVAL)
	}
	a := &posixACL{raw: append([]byte(nil), v...)}
	for e := v[aclHeader:]; len(e) > 0; e = e[aclEntrySize:] {
		a.entries = append(a.entries, aclEntry{
			tag: binary.LittleEndian.Uint16(e), perm: binary.LittleEndian.Uint16(e[2:]), id: binary.LittleEndian.Uint32(e[4:]),
		})
	}
	return a, nil
}

// inherit returns the access ACL and the permission bits of a new object: the
// mode asked for and the default ACL limit each other (acl(5), "OBJECT
// CREATION AND DEFAULT ACLs"; posix_acl_create_masq in fs/posix_acl.c). The ACL
// is nil where the permission bits say it all.
func (a *posixACL) inherit(mode uint32) (access []byte, newMode uint32, err error) {
	out := append([]aclEntry(nil), a.entries...)
	var group, mask *aclEntry
	perm := mode & 0o777
	extended := false
	for i := range out {
		e := &out[i]
		switch e.tag {
		case aclUserObj:
			e.perm &= uint16(mode >> 6 & 7)
			perm = perm&^0o700 | uint32(e.perm)<<6
		case aclGroupObj:
			group = e
		case aclOther:
			e.perm &= uint16(mode & 7)
			perm = perm&^0o007 | uint32(e.perm)
		case aclMask:
			mask, extended = e, true
		default:
			extended = true
		}
	}
	limit := group
	if mask != nil {
		limit = mask
	}
	if limit == nil {
		return nil, 0, fmt.Errorf("default ACL without an entry for the group: %w", unix.EIO)
	}
	limit.perm &= uint16(mode >> 3 & 7)
	perm = perm&^0o070 | uint32(limit.perm)<<3
	newMode = mode&^0o777 | perm
	if !extended {
		return nil, newMode, nil
	}
	access = binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range out {
		access = binary.LittleEndian.AppendUint16(access, e.tag)
		access = binary.LittleEndian.AppendUint16(access, e.perm)
		access = binary.LittleEndian.AppendUint32(access, e.id)
	}
	return access, newMode, nil
}
