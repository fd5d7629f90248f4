package memlayer

import (
	"hash/fnv"
	"slices"
	"strings"
	"syscall"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

// dir is an open directory. Like the descriptors of the host it needs no
// permission to be opened, only to be read.
type dir struct{ *handle }

func (d *dir) StatAt(name string) (st layer.Stat, err error) {
	err = d.at(Call{Op: "StatAt", Name: name}, func(i *inode) error {
		c, err := d.fs.child(i, name)
		if err == nil {
			st = d.fs.stat(c)
		}
		return err
	})
	return st, err
}

func (d *dir) GetxattrAt(name, attr string, dest []byte) (n int, err error) {
	err = d.at(Call{Op: "GetxattrAt", Name: name, Attr: attr}, func(i *inode) error {
		c, err := d.fs.child(i, name)
		if err == nil {
			n, err = d.fs.getxattr(c, attr, dest)
		}
		return err
	})
	return n, err
}

func (d *dir) ListxattrAt(name string, dest []byte) (n int, err error) {
	err = d.at(Call{Op: "ListxattrAt", Name: name}, func(i *inode) error {
		c, err := d.fs.child(i, name)
		if err == nil {
			n, err = d.fs.listxattr(c, dest)
		}
		return err
	})
	return n, err
}

func (d *dir) ReadlinkAt(name string) (target string, err error) {
	err = d.at(Call{Op: "ReadlinkAt", Name: name}, func(i *inode) error {
		c, err := d.fs.child(i, name)
		if err == nil {
			target, err = readlink(c)
		}
		return err
	})
	return target, err
}

func (d *dir) Lookup(name string) (obj layer.Object, err error) {
	err = d.at(Call{Op: "Lookup", Name: name}, func(i *inode) error {
		c, err := d.fs.child(i, name)
		if err == nil {
			obj = &object{d.fs.open(c, d.join(name), 0, d.quiet)}
		}
		return err
	})
	return obj, err
}

func (d *dir) OpenDir(name string) (sub layer.Dir, err error) {
	err = d.at(Call{Op: "OpenDir", Name: name}, func(i *inode) error {
		c, err := d.fs.child(i, name)
		switch {
		case err != nil:
			return err
		case !c.isDir():
			return syscall.ENOTDIR
		}
		sub = &dir{d.fs.open(c, d.join(name), 0, d.quiet)}
		return nil
	})
	return sub, err
}

func (d *dir) OpenFile(name string, flags int, mode uint32) (f layer.File, err error) {
	const exclusive = unix.O_CREAT | unix.O_EXCL
	create := flags&exclusive == exclusive
	call := Call{Op: "OpenFile", Name: name, Flag: flags, Mutates: create || flags&unix.O_TRUNC != 0}
	if create {
		call.Mode = mode
	}
	err = d.at(call, func(i *inode) error {
		fs := d.fs
		if create {
			made, err := d.make(i, name, unix.S_IFREG|mode&0o7777, 0, "")
			if err == nil {
				f = &file{fs.open(made, d.join(name), flags, d.quiet)}
			}
			return err
		}
		c, err := fs.child(i, name)
		if err != nil {
			return err
		}
		switch c.typ() {
		case unix.S_IFREG:
			f, err = fs.openFile(c, d.join(name), flags, d.quiet)
			return err
		case unix.S_IFDIR:
			return syscall.EISDIR
		case unix.S_IFLNK:
			return syscall.ELOOP
		}
		return syscall.ENXIO
	})
	return f, err
}

// ReadDir returns the entries by a hash of their names: as on ext4, the order
// is the same each time and tells nothing.
func (d *dir) ReadDir() (out []layer.Dirent, err error) {
	err = d.do(Call{Op: "ReadDir"}, func(i *inode) error {
		if err := d.fs.may(i, mayRead|mayExec); err != nil {
			return err
		}
		if i.dead() {
			return syscall.ENOENT
		}
		for name, ino := range i.entries {
			e := layer.Dirent{Name: name, Ino: ino}
			if !d.fs.opts.NoDirentTypes {
				e.Type = d.fs.st.inodes[ino].typ()
			}
			out = append(out, e)
		}
		slices.SortFunc(out, func(a, b layer.Dirent) int {
			if x, y := nameHash(a.Name), nameHash(b.Name); x != y {
				return int(int64(x) - int64(y))
			}
			return strings.Compare(a.Name, b.Name)
		})
		return nil
	})
	return out, err
}

func nameHash(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}

// Sync commits the journal; what it holds has its order anyway.
func (d *dir) Sync() error {
	return d.do(Call{Op: "Sync", Mutates: true}, func(i *inode) error {
		if err := d.fs.may(i, mayRead|mayExec); err != nil {
			return err
		}
		d.fs.step(func(*state) {})
		return nil
	})
}

func (d *dir) Statfs() (st layer.Statfs, err error) {
	err = d.do(Call{Op: "Statfs"}, func(*inode) error {
		fs := d.fs
		st = layer.Statfs{
			Type: unix.EXT4_SUPER_MAGIC, Bsize: blockSize, Frsize: blockSize, NameLen: layer.NameMax,
			Blocks: 1 << 28, Files: 1 << 24,
		}
		if fs.opts.Blocks > 0 {
			st.Blocks = uint64(fs.opts.Blocks)
		}
		if fs.opts.Inodes > 0 {
			st.Files = uint64(fs.opts.Inodes)
		}
		st.Bfree = st.Blocks - min(st.Blocks, uint64(fs.st.used()))
		st.Bavail = st.Bfree
		st.Ffree = st.Files - min(st.Files, uint64(len(fs.st.inodes)))
		return nil
	})
	return st, err
}

func (d *dir) UUID() (id [16]byte) {
	// A failure is the zero UUID, as the interface has it.
	_ = d.do(Call{Op: "UUID"}, func(*inode) error {
		id = d.fs.opts.UUID
		return nil
	})
	return id
}

func (d *dir) Flags() (uint32, error)      { return d.getFlags() }
func (d *dir) SetFlags(flags uint32) error { return d.setFlags(flags) }
