package dataset

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/internal/format"
)

// An entry is one name of a directory.
type entry struct {
	typ    uint32 // S_IFMT bits
	subvol bool   // object is the number of another tree
	object uint64
	name   string
}

// entrySubvol is the type of an entry that names another tree. The others are the
// upper bits of S_IFMT, as in d_type.
const entrySubvol = 128

func (e *entry) pack() []byte {
	b := make([]byte, 1, 1+binary.MaxVarintLen64+len(e.name))
	b[0] = byte(e.typ >> 12)
	if e.subvol {
		b[0] = entrySubvol
	}
	return append(binary.AppendUvarint(b, e.object), e.name...)
}

func unpackEntry(b []byte) (entry, error) {
	if len(b) == 0 {
		return entry{}, damagedf("empty directory entry")
	}
	object, n := binary.Uvarint(b[1:])
	if n <= 0 {
		return entry{}, damagedf("directory entry without an object")
	}
	e := entry{typ: uint32(b[0]) << 12, object: object, name: string(b[1+n:])}
	if err := checkName(e.name); err != nil {
		return entry{}, damagedf("directory entry with the name %q", e.name)
	}
	switch {
	case b[0] == entrySubvol:
		e.typ, e.subvol = unix.S_IFDIR, true
		if object == 0 || object > maxTree {
			return entry{}, damagedf("directory entry %q for tree %d", e.name, object)
		}
	case object <= rootObject || object > blockpool.MaxObject:
		return entry{}, damagedf("directory entry %q for object %d", e.name, object)
	case e.typ&^unix.S_IFMT != 0 || e.typ == 0 || (&inode{mode: e.typ}).check() != nil:
		return entry{}, damagedf("directory entry %q of type %d", e.name, b[0])
	}
	return e, nil
}

// An xattr is an extended attribute: its value is inline, or is an object's.
type xattr struct {
	name   string
	value  []byte
	object uint64 // 0: inline
}

const (
	xattrInline = 0
	xattrObject = 1
	// MaxXattr is the most bytes that the value of an extended attribute has
	// (XATTR_SIZE_MAX of linux/limits.h).
	MaxXattr = 64 << 10
)

// fitsInline tells whether an attribute needs no object.
func fitsInline(name string, size int) bool { return 2+len(name)+size <= blockpool.MaxItemValue }

func (x *xattr) pack() []byte {
	b := make([]byte, 2, 2+len(x.name)+max(len(x.value), binary.MaxVarintLen64))
	b[1] = byte(len(x.name))
	b = append(b, x.name...)
	if x.object == 0 {
		return append(b, x.value...)
	}
	b[0] = xattrObject
	return binary.AppendUvarint(b, x.object)
}

// unpackXattr is the inverse of pack. The value belongs to b.
func unpackXattr(b []byte) (xattr, error) {
	if len(b) < 2 || b[1] == 0 || len(b) < 2+int(b[1]) {
		return xattr{}, damagedf("attribute of %d bytes", len(b))
	}
	end := 2 + int(b[1])
	name, rest := string(b[2:end]), b[end:]
	switch b[0] {
	case xattrInline:
		return xattr{name: name, value: rest}, nil
	case xattrObject:
		object, n := binary.Uvarint(rest)
		if n <= 0 || n != len(rest) || object <= rootObject || object > blockpool.MaxObject {
			return xattr{}, damagedf("attribute %q without an object", name)
		}
		return xattr{name: name, object: object}, nil
	}
	return xattr{}, damagedf("attribute %q of kind %d", name, b[0])
}

// What an orphan item says.
const (
	orphanRemove = 1 // the object has no name
	orphanTrim   = 2 // records behind its size are to go
)

// A superblock says how to read a tree.
type superblock struct {
	seed [16]byte
	bits uint64
}

const (
	superVersion = 1

	tagSeed    = 1
	tagBits    = 2
	tagFeature = 3
)

func (s *superblock) pack() []byte {
	f := format.NewFields(superVersion)
	f.Bytes(tagSeed, s.seed[:])
	f.Uint(tagBits, s.bits)
	return f
}

// unpackSuper is the inverse of pack. What needs a newer version says so.
func unpackSuper(b []byte) (s superblock, err error) {
	if len(b) > 0 && b[0] > superVersion {
		return s, newerf("version %d of the filesystem", b[0])
	}
	err = format.ParseFields(b, superVersion, func(f format.Field) error {
		switch f.Tag {
		case tagSeed:
			return f.Fixed(s.seed[:])
		case tagBits:
			return f.Uint(&s.bits)
		case tagFeature:
			return newerf("feature %q", f.String())
		}
		return f.Unknown()
	})
	if err == nil && (s.bits == 0 || s.bits > hashBits) {
		err = damagedf("hash of %d bits", s.bits)
	}
	return s, err
}
