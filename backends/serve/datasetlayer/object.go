package datasetlayer

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/fs/layer"
)

// device stands for the dataset in [layer.Stat]: all objects of one are on one
// device, whose number means nothing.
var device = unix.Mkdev(0, 1)

// An object is a node with one reference, unless it is the root of all, which its
// filesystem keeps.
type object struct {
	fs   *dataset.FS
	n    *dataset.Node
	kept bool
}

func (o *object) Close() error {
	if !o.kept && o.n != nil {
		o.fs.Forget(o.n, 1)
	}
	o.n = nil
	return nil
}

func statOf(a *dataset.Attr) layer.Stat {
	return layer.Stat{
		Dev: device, Ino: a.Ino, Mode: a.Mode, Nlink: a.Nlink, UID: a.UID, GID: a.GID, Rdev: a.Rdev,
		Size: a.Size, Blocks: a.Blocks, Blksize: a.Blksize,
		Atime: layer.Time(a.Atime), Mtime: layer.Time(a.Mtime), Ctime: layer.Time(a.Ctime), Btime: layer.Time(a.Btime),
	}
}

func (o *object) Stat() (layer.Stat, error) {
	a, err := o.fs.GetAttr(o.n)
	return statOf(&a), err
}

func (o *object) set(c dataset.Change) error {
	_, err := o.fs.SetAttr(o.n, c)
	return err
}

func (o *object) Chmod(mode uint32) error { return o.set(dataset.Change{Mode: &mode}) }

func (o *object) Chown(uid, gid int) error {
	var c dataset.Change
	if uid >= 0 {
		id := uint32(uid)
		c.UID = &id
	}
	if gid >= 0 {
		id := uint32(gid)
		c.GID = &id
	}
	return o.set(c)
}

func (o *object) SetTimes(atime, mtime layer.Time) error {
	a, m := dataset.Time(atime), dataset.Time(mtime)
	return o.set(dataset.Change{Atime: &a, Mtime: &m})
}

// SetAttributes sets owner, times and, unless it is nil, mode in one step, for what
// applies archives.
func (o *object) SetAttributes(uid, gid uint32, mode *uint32, times layer.Time) error {
	t := dataset.Time(times)
	return o.set(dataset.Change{UID: &uid, GID: &gid, Mode: mode, Atime: &t, Mtime: &t})
}

func (o *object) Getxattr(attr string, dest []byte) (int, error) {
	return o.fs.Getxattr(o.n, attr, dest)
}

func (o *object) Listxattr(dest []byte) (int, error) { return o.fs.Listxattr(o.n, dest) }

func (o *object) Setxattr(attr string, value []byte, flags int) error {
	return o.fs.Setxattr(o.n, attr, value, flags, false)
}

func (o *object) Removexattr(attr string) error { return o.fs.Removexattr(o.n, attr) }

func (o *object) Readlink() (string, error) { return o.fs.Readlink(o.n) }

// Reopen returns another handle to the file.
func (o *object) Reopen(flags int) (layer.File, error) {
	if o.n.Type() != unix.S_IFREG {
		return nil, unix.EINVAL
	}
	n := o.fs.Again(o.n)
	f := &file{object: object{fs: o.fs, n: n}}
	return f, f.begin(flags)
}

// Handle tells that there are none: a dataset is looked at for a moment only.
func (o *object) Handle() (layer.FileHandle, error) { return layer.FileHandle{}, unix.EOPNOTSUPP }

func (o *object) Flags() (uint32, error) { return o.fs.Flags(o.n) }

func (o *object) SetFlags(flags uint32) error { return o.fs.SetFlags(o.n, flags) }
