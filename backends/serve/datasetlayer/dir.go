package datasetlayer

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/fs/layer"
)

// Root returns the root directory of a dataset, which may be closed at any time and
// must not be used when the dataset is.
func Root(fs *dataset.FS) layer.Dir {
	return &dir{object{fs: fs, n: fs.Root(), kept: true}}
}

// A dir is a directory.
type dir struct{ object }

var _ layer.Dir = (*dir)(nil)

// child returns a handle to a child.
func (d *dir) child(name string) (*object, dataset.Attr, error) {
	if err := layer.CheckName(name); err != nil {
		return nil, dataset.Attr{}, err
	}
	n, a, err := d.fs.Lookup(d.n, name)
	if err != nil {
		return nil, dataset.Attr{}, err
	}
	return &object{fs: d.fs, n: n}, a, nil
}

// with calls use with a child.
func (d *dir) with(name string, use func(*object, *dataset.Attr) error) error {
	o, a, err := d.child(name)
	if err != nil {
		return err
	}
	defer o.Close()
	return use(o, &a)
}

func (d *dir) StatAt(name string) (st layer.Stat, err error) {
	err = d.with(name, func(_ *object, a *dataset.Attr) error {
		st = statOf(a)
		return nil
	})
	return st, err
}

func (d *dir) GetxattrAt(name, attr string, dest []byte) (size int, err error) {
	err = d.with(name, func(o *object, _ *dataset.Attr) (err error) {
		size, err = o.Getxattr(attr, dest)
		return err
	})
	return size, err
}

func (d *dir) ListxattrAt(name string, dest []byte) (size int, err error) {
	err = d.with(name, func(o *object, _ *dataset.Attr) (err error) {
		size, err = o.Listxattr(dest)
		return err
	})
	return size, err
}

func (d *dir) ReadlinkAt(name string) (target string, err error) {
	err = d.with(name, func(o *object, _ *dataset.Attr) (err error) {
		target, err = o.Readlink()
		return err
	})
	return target, err
}

func (d *dir) Lookup(name string) (layer.Object, error) {
	o, _, err := d.child(name)
	if err != nil {
		return nil, err
	}
	return o, nil
}

func (d *dir) OpenFile(name string, flags int, mode uint32) (layer.File, error) {
	if err := layer.CheckName(name); err != nil {
		return nil, err
	}
	if flags&unix.O_CREAT != 0 {
		n, _, err := d.fs.Create(d.n, name, mode, dataset.Caller{})
		if err == nil {
			return &file{object{fs: d.fs, n: n}}, nil
		}
		if err != unix.EEXIST || flags&unix.O_EXCL != 0 {
			return nil, err
		}
	}
	o, _, err := d.child(name)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	switch o.n.Type() {
	case unix.S_IFREG:
		return o.Reopen(flags)
	case unix.S_IFDIR:
		return nil, unix.EISDIR
	case unix.S_IFLNK:
		return nil, unix.ELOOP
	}
	return nil, unix.ENXIO
}

func (d *dir) OpenDir(name string) (layer.Dir, error) {
	o, a, err := d.child(name)
	if err != nil {
		return nil, err
	}
	if a.Mode&unix.S_IFMT != unix.S_IFDIR {
		o.Close()
		return nil, unix.ENOTDIR
	}
	return &dir{*o}, nil
}

func (d *dir) ReadDir() ([]layer.Dirent, error) {
	var list []layer.Dirent
	err := d.fs.ReadDir(d.n, 0, func(e dataset.Listed) bool {
		if e.Name != "." && e.Name != ".." {
			list = append(list, layer.Dirent{Name: e.Name, Ino: e.Ino, Type: e.Type})
		}
		return true
	})
	return list, err
}

// made gives the reference of what was made back.
func (d *dir) made(n *dataset.Node, _ dataset.Attr, err error) error {
	if err == nil {
		d.fs.Forget(n, 1)
	}
	return err
}

func (d *dir) Mkdir(name string, mode uint32) error {
	mode &= 0o1777 // as mkdir(2) has it
	return d.made(d.fs.Mkdir(d.n, name, mode, dataset.Caller{}))
}

func (d *dir) Mknod(name string, mode uint32, rdev uint64) error {
	if typ := mode & unix.S_IFMT; typ != unix.S_IFCHR && typ != unix.S_IFBLK {
		rdev = 0
	}
	return d.made(d.fs.Mknod(d.n, name, mode, rdev, dataset.Caller{}))
}

func (d *dir) Symlink(target, name string) error {
	if strings.IndexByte(target, 0) >= 0 {
		return unix.EINVAL
	}
	return d.made(d.fs.Symlink(d.n, name, target, dataset.Caller{}))
}

func (d *dir) Link(obj layer.Object, name string) error {
	from := nodeOf(obj)
	if from == nil || from.fs != d.fs {
		return unix.EXDEV
	}
	if _, err := d.fs.Link(from.n, d.n, name); err != nil {
		return err
	}
	d.fs.Forget(from.n, 1) // the reference that came with the name
	return nil
}

// nodeOf returns what of a handle is a dataset's, nil when it is another layer's.
func nodeOf(obj layer.Object) *object {
	switch o := obj.(type) {
	case *object:
		return o
	case *file:
		return &o.object
	case *dir:
		return &o.object
	}
	return nil
}

func (d *dir) Unlink(name string) error { return d.fs.Unlink(d.n, name) }

func (d *dir) Rmdir(name string) error { return d.fs.Rmdir(d.n, name) }

func (d *dir) Rename(oldName string, to layer.Dir, newName string, flags uint) error {
	dst := nodeOf(to)
	if dst == nil || dst.fs != d.fs {
		return unix.EXDEV
	}
	return d.fs.Rename(d.n, oldName, dst.n, newName, flags)
}

func (d *dir) TmpFile(mode uint32) (layer.File, error) {
	n, _, err := d.fs.Tmpfile(d.n, mode, dataset.Caller{})
	if err != nil {
		return nil, err
	}
	return &file{object{fs: d.fs, n: n}}, nil
}

func (d *dir) Sync() error { return d.fs.Fsync(d.n, false) }

func (d *dir) Statfs() (layer.Statfs, error) {
	s, err := d.fs.Statfs()
	return layer.Statfs{
		Bsize: s.Bsize, Frsize: s.Frsize, NameLen: s.NameLen,
		Blocks: s.Blocks, Bfree: s.Bfree, Bavail: s.Bavail, Files: s.Files, Ffree: s.Ffree,
	}, err
}

// UUID tells that there is none: nothing remembers a dataset by it.
func (d *dir) UUID() [16]byte { return [16]byte{} }
