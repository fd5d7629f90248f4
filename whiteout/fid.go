package whiteout

import "encoding/binary"

// Handle types of which the layout is known (enum fid_type of
// linux/exportfs.h).
const (
	fidIno32       = 0x01
	fidIno32Parent = 0x02
	fidBtrfs       = 0x4d
	fidBtrfsParent = 0x4e
	fidBtrfsRoot   = 0x4f
	fidIno64       = 0x81
	fidIno64Parent = 0x82
)

// A fidLayout tells how to find the inode number in a FID. The type alone does
// not: filesystems fill the same type in different ways. Its length helps.
type fidLayout struct {
	handleType uint8
	length     int // of the FID in bytes
	inode      func(fid []byte) uint64
}

var (
	layoutGeneric = []fidLayout{ // ino32, generation, then those of the parent
		{fidIno32, 8, ino32At(0)},
		{fidIno32Parent, 16, ino32At(0)},
	}
	layoutShmem = []fidLayout{ // generation, ino low, ino high: shmem_encode_fh
		{fidIno32, 12, ino64HalvesAt(4)},
	}
	layoutIno64 = []fidLayout{ // ino64, generation, then those of the parent
		{fidIno64, 12, ino64At(0)},
		{fidIno64Parent, 24, ino64At(0)},
	}
	layoutBtrfs = []fidLayout{ // objectid, root, generation: struct btrfs_fid
		{fidBtrfs, 20, ino64At(0)},
		{fidBtrfsParent, 32, ino64At(0)},
		{fidBtrfsRoot, 40, ino64At(0)},
	}
)

// Magic numbers of statfs(2) for the filesystems that InodeOn knows.
const (
	magicExt4     = 0xef53 // ext2 and ext3 too
	magicXFS      = 0x58465342
	magicBtrfs    = 0x9123683e
	magicTmpfs    = 0x01021994
	magicF2FS     = 0xf2f52010
	magicSquashfs = 0x73717368
)

// layoutsOf lists what the encode_fh of a filesystem writes.
var layoutsOf = map[int64][][]fidLayout{
	magicExt4:     {layoutGeneric},
	magicF2FS:     {layoutGeneric},
	magicSquashfs: {layoutGeneric},
	magicXFS:      {layoutGeneric, layoutIno64},
	magicBtrfs:    {layoutBtrfs},
	magicTmpfs:    {layoutShmem},
}

// layoutsGuessed is what Inode goes by.
var layoutsGuessed = [][]fidLayout{layoutGeneric, layoutShmem, layoutIno64, layoutBtrfs}

// Inode returns the inode number that stands in the FID, as the layouts of
// ext4, xfs, btrfs and tmpfs have it. Type 1 is the generic inode and
// generation when it has 8 bytes, and tmpfs when it has 12: generation first,
// then the two halves of the inode number.
//
// This is a guess where the filesystem is not known to be one of these.
// FUSE and erofs use type 0x81 with the halves the other way round (and FUSE's
// is no inode number), ceph and isofs use type 1 in ways of their own. Prefer
// [FileHandle.InodeOn], or ask name_to_handle_at(2) for the handle of the inode
// found and compare.
func (h FileHandle) Inode() (ino uint64, ok bool) {
	return h.inode(layoutsGuessed)
}

// InodeOn is Inode for a filesystem of which statfs(2) told f_type. It returns
// false on a filesystem whose file handles it does not know.
func (h FileHandle) InodeOn(fsType int64) (ino uint64, ok bool) {
	return h.inode(layoutsOf[fsType&0xffffffff])
}

func (h FileHandle) inode(families [][]fidLayout) (uint64, bool) {
	for _, family := range families {
		for _, l := range family {
			if l.handleType == h.Type && l.length == len(h.FID) {
				ino := l.inode(h.FID)
				return ino, ino != 0
			}
		}
	}
	return 0, false
}

// A FID is in the byte order of the machine: [ParseFileHandle] lets no other
// pass.

func ino32At(off int) func([]byte) uint64 {
	return func(fid []byte) uint64 { return uint64(binary.NativeEndian.Uint32(fid[off:])) }
}

func ino64At(off int) func([]byte) uint64 {
	return func(fid []byte) uint64 { return binary.NativeEndian.Uint64(fid[off:]) }
}

// ino64HalvesAt reads the low half first whatever the byte order is.
func ino64HalvesAt(off int) func([]byte) uint64 {
	return func(fid []byte) uint64 {
		low := binary.NativeEndian.Uint32(fid[off:])
		high := binary.NativeEndian.Uint32(fid[off+4:])
		return uint64(high)<<32 | uint64(low)
	}
}
