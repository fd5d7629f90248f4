package memlayer

import (
	"maps"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

const (
	rootIno  = 2  // EXT4_ROOT_INO
	firstIno = 12 // what mke2fs leaves for the first file after lost+found

	tick = 1_000_000 // nanoseconds that each change takes

	// epoch is the time of the first change: 2020-01-01 00:00:00 UTC.
	epoch = 1_577_836_800 * 1_000_000_000
)

// inode is a file of any type. Directories know their parent, other inodes
// do not: they may have many.
type inode struct {
	ino, gen uint64
	mode     uint32
	uid, gid uint32
	nlink    uint32
	rdev     uint64
	flags    uint32 // chattr(1)
	target   string // of a symbolic link
	linkable bool   // made by TmpFile and never linked (I_LINKABLE)

	atime, mtime, ctime, btime layer.Time

	xattrs  map[string][]byte // values are never changed in place
	entries map[string]uint64 // of a directory
	parent  uint64            // of a directory; itself for the root
	data    data              // of a regular file

	handles int // open handles; not part of what is on disk
}

func (i *inode) typ() uint32     { return i.mode & unix.S_IFMT }
func (i *inode) isDir() bool     { return i.typ() == unix.S_IFDIR }
func (i *inode) isRegular() bool { return i.typ() == unix.S_IFREG }

// dead reports whether a directory has been removed (IS_DEADDIR).
func (i *inode) dead() bool { return i.isDir() && i.nlink == 0 }

// blocks is the space that the inode takes, in blocks.
func (i *inode) blocks() int64 {
	switch {
	case i.isDir():
		return 1
	case i.isRegular():
		return int64(len(i.data.blocks))
	case len(i.target) >= 60: // longer than what fits into the inode (ext4_inode_is_fast_symlink)
		return 1
	}
	return 0
}

func (i *inode) size() int64 {
	switch i.typ() {
	case unix.S_IFDIR:
		return blockSize
	case unix.S_IFLNK:
		return int64(len(i.target))
	}
	return i.data.size
}

func (i *inode) clone() *inode {
	c := *i
	c.xattrs, c.entries = maps.Clone(i.xattrs), maps.Clone(i.entries)
	c.data = i.data.clone()
	c.handles = 0
	return &c
}

// state is a whole filesystem. Its methods are the changes that can happen to
// one, with nothing left to refuse: the same methods serve the living
// filesystem and the replay that Crash does. They name inodes by number, since
// a replay has inodes of its own.
type state struct {
	inodes map[uint64]*inode
	next   uint64
	clock  int64 // nanoseconds since 1970
}

func newState(uid, gid uint32) *state {
	s := &state{inodes: make(map[uint64]*inode), next: firstIno, clock: epoch}
	root := s.add(rootIno, spec{mode: unix.S_IFDIR | 0o755, uid: uid, gid: gid})
	root.parent, root.nlink = rootIno, 2
	return s
}

func (s *state) clone() *state {
	c := &state{inodes: make(map[uint64]*inode, len(s.inodes)), next: s.next, clock: s.clock}
	for n, i := range s.inodes {
		c.inodes[n] = i.clone()
	}
	return c
}

func (s *state) now() layer.Time {
	return layer.Time{Sec: s.clock / 1_000_000_000, Nsec: uint32(s.clock % 1_000_000_000)}
}

// changed sets the time of the last change of attributes.
func (s *state) changed(ino uint64) *inode {
	i := s.inodes[ino]
	i.ctime = s.now()
	return i
}

// written sets the times of a change of content, of a file or a directory.
func (s *state) written(ino uint64) *inode {
	i := s.changed(ino)
	i.mtime = i.ctime
	return i
}

// spec is what a new inode begins with.
type spec struct {
	mode, uid, gid, flags uint32
	rdev                  uint64
	target                string
	xattrs                map[string][]byte
}

func (s *state) add(ino uint64, sp spec) *inode {
	t := s.now()
	i := &inode{
		ino: ino, gen: ino*2654435761 + 1, mode: sp.mode, uid: sp.uid, gid: sp.gid, flags: sp.flags,
		rdev: sp.rdev, target: sp.target, xattrs: maps.Clone(sp.xattrs),
		atime: t, mtime: t, ctime: t, btime: t,
	}
	if i.xattrs == nil {
		i.xattrs = make(map[string][]byte)
	}
	if i.isDir() {
		i.entries = make(map[string]uint64)
	}
	i.data.blocks, i.data.clean = make(map[int64]*block), make(map[int64]*block)
	s.inodes[ino] = i
	return i
}

// create makes an inode and, unless the name is empty, an entry for it.
func (s *state) create(dir uint64, name string, sp spec) *inode {
	i := s.add(s.next, sp)
	s.next++
	switch {
	case name == "":
		i.linkable = true
	case i.isDir():
		i.parent, i.nlink = dir, 2
		s.inodes[dir].nlink++
	default:
		i.nlink = 1
	}
	if name != "" {
		s.written(dir).entries[name] = i.ino
	}
	return i
}

func (s *state) link(dir uint64, name string, ino uint64) {
	i := s.changed(ino)
	i.nlink++
	i.linkable = false
	s.written(dir).entries[name] = ino
}

// remove takes away an entry and what it counted for.
func (s *state) remove(dir uint64, name string) {
	d := s.written(dir)
	i := s.changed(d.entries[name])
	delete(d.entries, name)
	s.drop(d, i)
}

// drop accounts for an inode that lost its entry in d.
func (s *state) drop(d, i *inode) {
	if i.isDir() {
		i.nlink = 0
		d.nlink--
	} else {
		i.nlink--
	}
}

// rename moves an entry over whatever has the new name; a whiteout, where one
// is wanted, takes the old name within the same step.
func (s *state) rename(from uint64, oldName string, to uint64, newName string, whiteout *spec) {
	f, t := s.written(from), s.written(to)
	i := s.changed(f.entries[oldName])
	if over, ok := t.entries[newName]; ok {
		s.drop(t, s.changed(over))
	}
	delete(f.entries, oldName)
	t.entries[newName] = i.ino
	s.reparent(i, f, t)
	if whiteout != nil {
		s.create(from, oldName, *whiteout)
	}
}

func (s *state) exchange(from uint64, oldName string, to uint64, newName string) {
	f, t := s.written(from), s.written(to)
	a, b := s.changed(f.entries[oldName]), s.changed(t.entries[newName])
	f.entries[oldName], t.entries[newName] = b.ino, a.ino
	s.reparent(a, f, t)
	s.reparent(b, t, f)
}

func (s *state) reparent(i, from, to *inode) {
	if i.isDir() && from != to {
		i.parent = to.ino
		from.nlink--
		to.nlink++
	}
}

// reap frees the inodes that have neither a name nor, when living, a handle.
func (s *state) reap(ino uint64) {
	if i := s.inodes[ino]; i != nil && i.nlink == 0 && i.handles == 0 {
		delete(s.inodes, ino)
	}
}

// used counts the blocks taken.
func (s *state) used() (blocks int64) {
	for _, i := range s.inodes {
		blocks += i.blocks()
	}
	return blocks
}

// below reports whether the directory dir is top or lies below it.
func (s *state) below(dir, top uint64) bool {
	for {
		if dir == top {
			return true
		}
		i := s.inodes[dir]
		if i == nil || i.parent == dir {
			return false
		}
		dir = i.parent
	}
}
