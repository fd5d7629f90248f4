package dataset

import (
	"math/rand/v2"
	"strings"

	"golang.org/x/sys/unix"
)

// A xattrSlot is where an attribute is found, or could be put.
type xattrSlot struct {
	xattr xattr
	pos   uint64
	found bool
	full  bool
}

// findXattr looks for an attribute of an object.
func (v *view) findXattr(object uint64, name string) (s xattrSlot, err error) {
	s.pos = v.super.position(name)
	free, end := s.pos, s.pos+collisions
	err = v.eachXattr(object, s.pos, end, func(pos uint64, x xattr) bool {
		if pos == free {
			free++
		}
		if x.name == name {
			x.value = append([]byte{}, x.value...)
			s.xattr, s.pos, s.found = x, pos, true
		}
		return !s.found
	})
	if !s.found {
		s.pos, s.full = free, free == end
	}
	return s, err
}

// eachXattr calls f with the attributes of an object at positions from up to and
// without to, until it returns false.
func (v *view) eachXattr(object, from, to uint64, f func(pos uint64, x xattr) bool) error {
	err := v.items(xattrKey(object, from), xattrKey(object, to), func(key, value []byte) (bool, error) {
		x, err := unpackXattr(value)
		if err != nil {
			return false, err
		}
		var o, pos uint64
		if !keyNumbers(key, &o, &pos) {
			return false, damagedf("key %x of an attribute", key)
		}
		return f(pos, x), nil
	})
	if err != nil {
		return failed("read attributes", object, err)
	}
	return nil
}

// lastPos is above all positions.
const lastPos = 1 << 63

// value returns the value of an attribute.
func (v *view) value(object uint64, x *xattr) ([]byte, error) {
	if x.object == 0 {
		return x.value, nil
	}
	in, err := v.readValueInode(object, x)
	if err != nil {
		return nil, err
	}
	b := make([]byte, in.size)
	if err := v.tree.ReadObject(x.object, b, 0); err != nil {
		return nil, failed("read attribute "+x.name, object, err)
	}
	return b, nil
}

// readValueInode returns the inode of the object that has the value of an
// attribute.
func (v *view) readValueInode(object uint64, x *xattr) (inode, error) {
	in, err := v.readInode(x.object)
	if err == nil && (in.typ() != 0 || in.parent != object || in.size > MaxXattr) {
		err = failed("read attribute "+x.name, object, damagedf("object %d is not its value", x.object))
	}
	return in, err
}

// Getxattr reads an attribute into dest and returns how many bytes it has. With an
// empty dest it only tells that; ERANGE says that dest is too small, ENODATA that
// there is no such attribute.
func (fs *FS) Getxattr(n *Node, attr string, dest []byte) (size int, err error) {
	if err := keptXattr(attr); err != nil {
		return 0, err
	}
	if err := n.rlock(); err != nil {
		return 0, err
	}
	defer n.mu.RUnlock()
	if n.in.xattrs == 0 {
		return 0, unix.ENODATA
	}
	at, err := n.view.findXattr(n.object, attr)
	if err != nil {
		return 0, err
	}
	if !at.found {
		return 0, unix.ENODATA
	}
	b, err := n.view.value(n.object, &at.xattr)
	switch {
	case err != nil:
		return 0, err
	case len(dest) == 0:
		return len(b), nil
	case len(b) > len(dest):
		return 0, unix.ERANGE
	}
	return copy(dest, b), nil
}

// Listxattr lists the attributes, each name with a NUL behind it; dest is used as
// in Getxattr.
func (fs *FS) Listxattr(n *Node, dest []byte) (int, error) {
	if err := n.rlock(); err != nil {
		return 0, err
	}
	defer n.mu.RUnlock()
	if n.in.xattrs == 0 {
		return 0, nil
	}
	var list []byte
	err := n.view.eachXattr(n.object, 0, lastPos, func(_ uint64, x xattr) bool {
		list = append(append(list, x.name...), 0)
		return len(list) <= maxXattrList
	})
	switch {
	case err != nil:
		return 0, err
	case len(list) > maxXattrList:
		return 0, unix.E2BIG
	case len(dest) == 0:
		return len(list), nil
	case len(list) > len(dest):
		return 0, unix.ERANGE
	}
	return copy(dest, list), nil
}

// maxXattrList is how long a list of attributes may be (XATTR_LIST_MAX of
// linux/limits.h).
const maxXattrList = 64 << 10

// keptXattr returns EOPNOTSUPP for an attribute that no filesystem has as such.
func keptXattr(attr string) error {
	for _, space := range []string{"user.", "trusted.", "security."} {
		if strings.HasPrefix(attr, space) && len(attr) > len(space) {
			if len(attr) > NameMax {
				return unix.ERANGE
			}
			return nil
		}
	}
	if attr == aclAccess || attr == aclDefault {
		return nil
	}
	return unix.EOPNOTSUPP
}

// Setxattr sets an attribute with the flags of setxattr(2). An access ACL sets the
// permission bits too; killSgid clears the sgid bit, as setting an ACL by someone
// outside of the group does.
func (fs *FS) Setxattr(n *Node, attr string, value []byte, flags int, killSgid bool) error {
	if err := keptXattr(attr); err != nil {
		return err
	}
	if len(value) > MaxXattr {
		return unix.E2BIG
	}
	v, err := n.lockWritable()
	if err != nil {
		return err
	}
	defer n.mu.Unlock()
	if n.in.flags&(flagImmutable|flagAppend) != 0 {
		return unix.EPERM
	}
	at, err := v.findXattr(n.object, attr)
	switch {
	case err != nil:
		return err
	case flags&unix.XATTR_CREATE != 0 && at.found:
		return unix.EEXIST
	case flags&unix.XATTR_REPLACE != 0 && !at.found:
		return unix.ENODATA
	}
	s := v.step()
	defer s.end()
	in := s.change(n)
	if isACL(attr) {
		if value, err = setACL(in, attr, value); err != nil {
			return err
		}
		if killSgid {
			in.mode &^= unix.S_ISGID
		}
		if value == nil { // the permission bits say it all
			if at.found {
				err = s.removeXattr(n, at)
			}
			if err != nil {
				return err
			}
			return s.commit("set "+attr, n.object)
		}
	}
	if err := s.putXattr(n, at, attr, value); err != nil {
		return err
	}
	if err := s.commit("set "+attr, n.object); err != nil {
		return err
	}
	if attr == capability {
		n.noCaps = false
	}
	return nil
}

// putXattr gives an attribute a value, in the place where it was looked for.
func (s *step) putXattr(n *Node, at xattrSlot, name string, value []byte) error {
	x := xattr{name: name, value: value}
	if !fitsInline(name, len(value)) {
		object, err := s.born()
		if err != nil {
			return err
		}
		x.object = object
		in := inode{
			size: int64(len(value)), parent: n.object, gen: 1 + rand.Uint32N(1<<31),
			mapped: uint64((int64(len(value)) + s.v.size - 1) / s.v.size),
		}
		s.Put(inodeKey(object), in.pack())
		s.Write(object, 0, value)
	}
	switch {
	case at.found:
		if err := s.dropValue(n, &at.xattr); err != nil {
			return err
		}
	case at.full:
		return failed("set "+name, n.object, unix.ENOSPC)
	default:
		s.edit(n).xattrs++
	}
	s.Put(xattrKey(n.object, at.pos), x.pack())
	return nil
}

// dropValue removes the object that has the value of an attribute, if one has.
func (s *step) dropValue(n *Node, x *xattr) error {
	if x.object == 0 {
		return nil
	}
	if _, err := s.v.readValueInode(n.object, x); err != nil {
		return err
	}
	s.die(x.object)
	s.Zero(x.object, 0, toEnd)
	return nil
}

// removeXattr removes an attribute that was found.
func (s *step) removeXattr(n *Node, at xattrSlot) error {
	if err := s.dropValue(n, &at.xattr); err != nil {
		return err
	}
	in := s.edit(n)
	in.xattrs = max(1, in.xattrs) - 1
	s.Delete(xattrKey(n.object, at.pos))
	return nil
}

// Removexattr removes an attribute, ENODATA if it is not there.
func (fs *FS) Removexattr(n *Node, attr string) error {
	if err := keptXattr(attr); err != nil {
		return err
	}
	v, err := n.lockWritable()
	if err != nil {
		return err
	}
	defer n.mu.Unlock()
	if n.in.flags&(flagImmutable|flagAppend) != 0 {
		return unix.EPERM
	}
	at, err := v.findXattr(n.object, attr)
	if err != nil {
		return err
	}
	if !at.found {
		return unix.ENODATA
	}
	s := v.step()
	s.Frees = true
	s.change(n)
	if err := s.removeXattr(n, at); err != nil {
		return err
	}
	return s.commit("remove "+attr, n.object)
}
