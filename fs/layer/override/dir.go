package override

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// Modes of what is made in the filesystem below: the server's user can always
// open it, and nobody else.
const (
	fileBelow = 0o600
	dirBelow  = 0o700
)

// dir is an open directory of the layer below.
type dir struct {
	object
	names
	d layer.Dir
}

var (
	_ layer.Dir      = (*dir)(nil)
	_ layer.Lockable = (*dir)(nil)
)

// names is what the attribute has nothing to do with.
type names interface {
	ReadlinkAt(name string) (string, error)
	Symlink(target, name string) error
	Unlink(name string) error
	Rmdir(name string) error
	Sync() error
	Statfs() (layer.Statfs, error)
	UUID() [16]byte
	layer.Flagged
}

func (name Attr) dir(d layer.Dir) *dir { return &dir{object{d, name}, d, d} }

func belowDir(d layer.Dir) layer.Dir {
	if w, ok := d.(*dir); ok {
		return w.d
	}
	return d
}

func (d *dir) StatAt(name string) (layer.Stat, error) {
	st, err := d.d.StatAt(name)
	if err != nil {
		return st, err
	}
	return d.name.present(st, func(attr string, dest []byte) (int, error) { return d.d.GetxattrAt(name, attr, dest) })
}

func (d *dir) GetxattrAt(name, attr string, dest []byte) (int, error) {
	return d.name.get(func(attr string, dest []byte) (int, error) { return d.d.GetxattrAt(name, attr, dest) }, attr, dest)
}

func (d *dir) ListxattrAt(name string, dest []byte) (int, error) {
	return d.name.list(func(dest []byte) (int, error) { return d.d.ListxattrAt(name, dest) }, dest)
}

func (d *dir) Lookup(name string) (layer.Object, error) {
	o, err := d.d.Lookup(name)
	if err != nil {
		return nil, err
	}
	return &object{o, d.name}, nil
}

func (d *dir) OpenDir(name string) (layer.Dir, error) {
	c, err := d.d.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return d.name.dir(c), nil
}

// ReadDir leaves the type of regular files open: each may stand for something
// else.
func (d *dir) ReadDir() ([]layer.Dirent, error) {
	list, err := d.d.ReadDir()
	for i := range list {
		if list[i].Type == unix.S_IFREG {
			list[i].Type = 0
		}
	}
	return list, err
}

func (d *dir) OpenFile(name string, flags int, mode uint32) (layer.File, error) {
	if flags&unix.O_CREAT == 0 {
		f, err := d.d.OpenFile(name, flags, 0)
		return d.name.file(f, err)
	}
	return wrapped(d.make(name, flags, unix.S_IFREG|mode&0o7777, 0))
}

// TmpFile marks the file before it has a name.
func (d *dir) TmpFile(mode uint32) (layer.File, error) {
	f, err := d.d.TmpFile(fileBelow)
	if err != nil {
		return nil, err
	}
	w := &file{object{f, d.name}, f}
	if err := d.bear(&w.object, unix.S_IFREG|mode&0o7777, 0); err != nil {
		f.Close()
		return nil, err
	}
	return w, nil
}

// wrapped keeps a failure from becoming a file that is not nil.
func wrapped(f *file, err error) (layer.File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// make makes a regular file that shows as an object of any type.
func (d *dir) make(name string, flags int, mode uint32, rdev uint64) (*file, error) {
	f, err := d.d.OpenFile(name, flags, fileBelow)
	if err != nil {
		return nil, err
	}
	w := &file{object{f, d.name}, f}
	if err := d.bear(&w.object, mode, rdev); err != nil {
		f.Close()
		_ = d.d.Unlink(name) // the cause is more telling than what became of the rest
		return nil, err
	}
	return w, nil
}

// bear gives a new object its attribute: the server's own user, and the group
// that the directory hands down as it shows.
func (d *dir) bear(o *object, mode uint32, rdev uint64) error {
	st, err := o.Object.Stat()
	if err != nil {
		return err
	}
	st.Mode, st.Rdev = mode, rdev
	parent, err := d.Stat()
	if err != nil {
		return err
	}
	if parent.Mode&unix.S_ISGID != 0 {
		st.GID = parent.GID
		if st.IsDir() {
			st.Mode |= unix.S_ISGID
		}
	}
	return o.mark(&st)
}

func (d *dir) Mkdir(name string, mode uint32) error {
	if err := d.d.Mkdir(name, dirBelow); err != nil {
		return err
	}
	made, err := d.d.OpenDir(name)
	if err == nil {
		err = d.bear(&object{made, d.name}, unix.S_IFDIR|mode&0o1777, 0)
		made.Close()
	}
	if err != nil {
		_ = d.d.Rmdir(name)
	}
	return err
}

// Mknod makes a regular file in place of anything but whiteouts, which are
// marks of the union and need neither owner nor privilege.
func (d *dir) Mknod(name string, mode uint32, rdev uint64) error {
	if mode&unix.S_IFMT == unix.S_IFCHR && rdev == 0 {
		return d.d.Mknod(name, mode, rdev)
	}
	switch mode & unix.S_IFMT {
	case 0:
		mode |= unix.S_IFREG
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK:
	case unix.S_IFDIR:
		return unix.EPERM
	default:
		return unix.EINVAL
	}
	f, err := d.make(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, mode, rdev)
	if err != nil {
		return err
	}
	return f.Close()
}

func (d *dir) Link(obj layer.Object, name string) error {
	switch w := obj.(type) {
	case *file:
		obj = w.below()
	case *dir:
		obj = w.d
	case *object:
		obj = w.Object
	}
	return d.d.Link(obj, name)
}

func (d *dir) Rename(oldName string, to layer.Dir, newName string, flags uint) error {
	return d.d.Rename(oldName, belowDir(to), newName, flags)
}

// TryLock locks the directory below, if that can be.
func (d *dir) TryLock() (func(), error) {
	if l, ok := d.d.(layer.Lockable); ok {
		return l.TryLock()
	}
	return func() {}, nil
}
