//go:build integration

package kernel

import (
	"encoding/binary"
	"math/rand/v2"
)

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// acl returns a random access control list in the form of the xattr
// (linux/posix_acl_xattr.h): a version, then tag, permissions and id of each
// entry, in the order of tags.
func acl(r *rand.Rand, ids []int) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	add := func(tag uint16, perm int, id uint32) {
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, uint16(perm))
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	const undefined = 1<<32 - 1
	add(0x01, r.IntN(8), undefined) // owner
	named := r.IntN(4) > 0
	if named {
		add(0x02, r.IntN(8), uint32(pick(r, ids...)))
	}
	add(0x04, r.IntN(8), undefined) // group
	if named {
		add(0x08, r.IntN(8), uint32(pick(r, ids...)))
		add(0x10, r.IntN(8), undefined) // mask
	}
	add(0x20, r.IntN(8), undefined) // others
	return string(b)
}
