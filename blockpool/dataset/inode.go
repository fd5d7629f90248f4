package dataset

import (
	"encoding/binary"
	"math"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/internal/format"
)

// An inode is what the filesystem knows of an object, decoded.
type inode struct {
	mode     uint32 // type included; type 0: the value of an attribute
	uid, gid uint32
	nlink    uint32
	flags    uint32 // FS_*_FL of linux/fs.h
	gen      uint32
	rdev     uint32
	xattrs   uint32 // how many there are
	size     int64  // of a directory: the number of its entries
	mapped   uint64 // records that are there
	// One name: the directory and the position in it. The value of an attribute
	// has the object that the attribute is of as its parent.
	parent, pos uint64

	atime, mtime, ctime, btime Time

	trim   bool   // there may be records behind the size
	target string // of a symbolic link; empty although size is not 0: in the records
	extra  []byte // fields that this version does not know, as they came
}

const (
	inodeVersion = 1
	// maxInlineTarget is the longest target of a symbolic link that the inode
	// has.
	maxInlineTarget = 700
	// maxLinks bounds the link count, as in XFS.
	maxLinks = 1<<31 - 1
	// maxRecords is how many records an object may have.
	maxRecords = 1 << 32
)

// The tags of the fields of an inode. They are on disk.
const (
	tagMode = iota + 1
	tagUID
	tagGID
	tagNlink
	tagSize
	tagRdev
	tagFlags
	tagAtime
	tagMtime
	tagCtime
	tagBtime
	tagGen
	tagParent
	tagPos
	tagMapped
	tagTarget
	tagXattrs
	tagTrim
)

func (in *inode) typ() uint32  { return in.mode & unix.S_IFMT }
func (in *inode) isDir() bool  { return in.typ() == unix.S_IFDIR }
func (in *inode) isFile() bool { return in.typ() == unix.S_IFREG }

// pack returns the value of the item.
func (in *inode) pack() []byte {
	f := make(format.Fields, 1, 128)
	f[0] = inodeVersion
	f.Uint(tagMode, uint64(in.mode))
	f.Uint(tagUID, uint64(in.uid))
	f.Uint(tagGID, uint64(in.gid))
	f.Uint(tagNlink, uint64(in.nlink))
	f.Uint(tagSize, uint64(in.size))
	f.Uint(tagRdev, uint64(in.rdev))
	f.Uint(tagFlags, uint64(in.flags))
	for i, t := range []Time{in.atime, in.mtime, in.ctime, in.btime} {
		if t != (Time{}) {
			var b [2 * binary.MaxVarintLen64]byte
			n := binary.PutVarint(b[:], t.Sec)
			n += binary.PutUvarint(b[n:], uint64(t.Nsec))
			f.Bytes(byte(tagAtime+i), b[:n])
		}
	}
	f.Uint(tagGen, uint64(in.gen))
	f.Uint(tagParent, in.parent)
	f.Uint(tagPos, in.pos)
	f.Uint(tagMapped, in.mapped)
	f.String(tagTarget, in.target)
	f.Uint(tagXattrs, uint64(in.xattrs))
	if in.trim {
		f.Uint(tagTrim, 1)
	}
	return append(f, in.extra...)
}

// unpackInode is the inverse of pack.
func unpackInode(b []byte) (in inode, err error) {
	var known format.Fields
	err = format.ParseFields(b, inodeVersion, func(f format.Field) error {
		switch f.Tag {
		case tagMode:
			return fieldUint32(f, &in.mode)
		case tagUID:
			return fieldUint32(f, &in.uid)
		case tagGID:
			return fieldUint32(f, &in.gid)
		case tagNlink:
			return fieldUint32(f, &in.nlink)
		case tagSize:
			return f.Int(&in.size)
		case tagRdev:
			return fieldUint32(f, &in.rdev)
		case tagFlags:
			return fieldUint32(f, &in.flags)
		case tagAtime:
			return fieldTime(f, &in.atime)
		case tagMtime:
			return fieldTime(f, &in.mtime)
		case tagCtime:
			return fieldTime(f, &in.ctime)
		case tagBtime:
			return fieldTime(f, &in.btime)
		case tagGen:
			return fieldUint32(f, &in.gen)
		case tagParent:
			return f.Uint(&in.parent)
		case tagPos:
			return f.Uint(&in.pos)
		case tagMapped:
			return f.Uint(&in.mapped)
		case tagTarget:
			in.target = f.String()
		case tagXattrs:
			return fieldUint32(f, &in.xattrs)
		case tagTrim:
			in.trim = true
		default:
			known.Bytes(f.Tag, f.Bytes())
		}
		return nil
	})
	in.extra = known
	if err == nil {
		err = in.check()
	}
	return in, err
}

// check refuses what no inode can be, so that nobody need think of it later.
func (in *inode) check() error {
	switch in.typ() {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK, 0:
	default:
		return damagedf("mode %o", in.mode)
	}
	switch {
	case in.mode > 0o177777:
		return damagedf("mode %o", in.mode)
	case in.parent > blockpool.MaxObject:
		return damagedf("directory %d", in.parent)
	case in.mapped > maxRecords:
		return damagedf("%d records", in.mapped)
	case in.typ() == unix.S_IFLNK && (in.size >= pathMax || in.target != "" && int64(len(in.target)) != in.size):
		return damagedf("target of %d bytes, not %d", len(in.target), in.size)
	}
	return nil
}

func fieldUint32(f format.Field, p *uint32) error {
	var v uint64
	if err := f.Uint(&v); err != nil {
		return err
	}
	if v > math.MaxUint32 {
		return damagedf("%d is out of range", v)
	}
	*p = uint32(v)
	return nil
}

func fieldTime(f format.Field, t *Time) error {
	b := f.Bytes()
	sec, n := binary.Varint(b)
	if n <= 0 {
		return damagedf("time without seconds")
	}
	nsec, k := binary.Uvarint(b[n:])
	if k <= 0 || n+k != len(b) || nsec >= 1e9 {
		return damagedf("time without nanoseconds")
	}
	*t = Time{Sec: sec, Nsec: uint32(nsec)}
	return nil
}
