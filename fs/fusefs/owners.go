package fusefs

import (
	"encoding/binary"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/mountopt"
	"github.com/laminafs/lamina/fs/vfs"
)

// owners translates between the owners that the layers store and those that
// the mount shows (uidmapping, gidmapping and the squash options). It stands at
// the border to the kernel, not between the union and its layers, so a copy up
// keeps the stored owner also where the mount cannot show it.
type owners struct {
	user, group idTable
}

// Owners says as whose the mount shows files. The zero value shows the owners that
// are stored.
type Owners struct {
	// UIDMap and GIDMap pair ids that are stored with those that are shown.
	UIDMap, GIDMap []mountopt.IDMap
	// UID and GID are shown for all ids, whatever the maps say; nil: none.
	UID, GID *uint32
}

// OwnersOf picks them out of the options of a mount.
func OwnersOf(o *mountopt.Options) Owners {
	w := Owners{UIDMap: o.UIDMap, GIDMap: o.GIDMap, UID: o.SquashUID, GID: o.SquashGID}
	if o.SquashToRoot {
		root := uint32(0)
		if w.UID == nil {
			w.UID = &root
		}
		if w.GID == nil {
			w.GID = &root
		}
	}
	return w
}

func newOwners(o Owners) owners {
	return owners{
		user:  idTable{extents: o.UIDMap, all: o.UID, self: uint32(unix.Geteuid())},
		group: idTable{extents: o.GIDMap, all: o.GID, self: uint32(unix.Getegid())},
	}
}

// overflowID stands for an owner that a mapping does not name, as the default
// of /proc/sys/fs/overflowuid does (user_namespaces(7)).
const overflowID = 65534

// idTable is the mapping of one kind of id. The zero value changes nothing.
type idTable struct {
	extents []mountopt.IDMap
	all     *uint32 // what every id is shown as
	self    uint32  // the server's own id
}

// shown returns the id that the mount shows for one that a layer stores.
func (t *idTable) shown(id uint32) uint32 {
	if t.all != nil {
		return *t.all
	}
	if len(t.extents) == 0 {
		return id
	}
	for _, e := range t.extents {
		if id-e.Stored < e.Length { // below Stored it wraps around
			return e.Shown + (id - e.Stored)
		}
	}
	return overflowID
}

// stored returns the id to store for one that a caller gives, false where the
// mapping has none. The server's own id is stored as it is: who started the
// server also prepares the tree for a container that has no such user (podman
// makes /etc/mtab that way).
func (t *idTable) stored(id uint32) (uint32, bool) {
	if len(t.extents) == 0 {
		return id, true
	}
	for _, e := range t.extents {
		if id-e.Shown < e.Length {
			return e.Stored + (id - e.Shown), true
		}
	}
	return t.self, id == t.self
}

// creator returns who owns what the sender of a request makes. An owner that
// cannot be stored is refused with EOVERFLOW, as in the kernel's idmapped mounts
// (fs/namei.c, may_create).
func (w *owners) creator(h *fuse.InHeader, umask uint32) (vfs.Caller, error) {
	uid, okUser := w.user.stored(h.Uid)
	gid, okGroup := w.group.stored(h.Gid)
	if !okUser || !okGroup {
		return vfs.Caller{}, unix.EOVERFLOW
	}
	return vfs.Caller{UID: uid, GID: gid, Umask: umask}, nil
}

// change returns the id to store for a chown to id, nil where nothing has to
// change: a file that is shown as everyone's is given to the one it is shown as.
func (t *idTable) change(id uint32) (*uint32, error) {
	if t.all != nil && *t.all == id {
		return nil, nil
	}
	v, ok := t.stored(id)
	if !ok {
		return nil, unix.EOVERFLOW
	}
	return &v, nil
}

// The layout of an ACL in an extended attribute (linux/posix_acl_xattr.h): a
// version, then entries of tag, permissions and id.
const (
	aclHeaderSize = 4
	aclEntrySize  = 8
	aclTagUser    = 0x02
	aclTagGroup   = 0x08
)

func isACL(attr string) bool {
	return attr == "system.posix_acl_access" || attr == "system.posix_acl_default"
}

// eachACLOwner replaces the ids of named users and groups in an ACL.
func eachACLOwner(acl []byte, user, group func(uint32) (uint32, bool)) bool {
	for len(acl) >= aclHeaderSize+aclEntrySize {
		id := acl[aclHeaderSize+4 : aclHeaderSize+8]
		var v uint32
		ok := true
		switch binary.LittleEndian.Uint16(acl[aclHeaderSize:]) {
		case aclTagUser:
			v, ok = user(binary.LittleEndian.Uint32(id))
		case aclTagGroup:
			v, ok = group(binary.LittleEndian.Uint32(id))
		default:
			v = binary.LittleEndian.Uint32(id)
		}
		if !ok {
			return false
		}
		binary.LittleEndian.PutUint32(id, v)
		acl = acl[aclEntrySize:]
	}
	return true
}

// mapped tells whether ids in attributes have to be translated. Squashing
// leaves them alone: an ACL names several owners and would name one twice.
func (w *owners) mapped() bool { return len(w.user.extents)+len(w.group.extents) > 0 }

// showACL translates an ACL that was read from a layer.
func (w *owners) showACL(acl []byte) {
	eachACLOwner(acl,
		func(id uint32) (uint32, bool) { return (&idTable{extents: w.user.extents}).shown(id), true },
		func(id uint32) (uint32, bool) { return (&idTable{extents: w.group.extents}).shown(id), true })
}

// storeACL returns the ACL to store for one that a caller sets. An owner that
// the mapping does not name gives EINVAL, as in the kernel.
func (w *owners) storeACL(acl []byte) ([]byte, error) {
	out := append([]byte(nil), acl...)
	if !eachACLOwner(out, w.user.stored, w.group.stored) {
		return nil, unix.EINVAL
	}
	return out, nil
}
