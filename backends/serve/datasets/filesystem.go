package datasets

import (
	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/vfs"
)

// filesystem is a dataset in the words of package vfs, which are the dataset's but
// for the names of their types. What has no such words in it is inherited.
type filesystem struct {
	*dataset.FS
	snapshots uint64 // number of the directory of snapshots
}

var (
	_ vfs.Filesystem[*dataset.Node] = filesystem{}
	_ vfs.Restless[*dataset.Node]   = filesystem{}
	_ vfs.Discreet[*dataset.Node]   = filesystem{}
)

func attrOf(a *dataset.Attr) vfs.Attr {
	return vfs.Attr{
		Ino: a.Ino, Mode: a.Mode, Nlink: a.Nlink, UID: a.UID, GID: a.GID, Rdev: a.Rdev,
		Size: a.Size, Blocks: a.Blocks, Blksize: a.Blksize,
		Atime: layer.Time(a.Atime), Mtime: layer.Time(a.Mtime), Ctime: layer.Time(a.Ctime), Btime: layer.Time(a.Btime),
	}
}

// made passes on what has made a file.
func made(n *dataset.Node, a dataset.Attr, err error) (*dataset.Node, vfs.Attr, error) {
	return n, attrOf(&a), err
}

func (f filesystem) LookupID(p *dataset.Node, name string) (uint64, vfs.Attr, error) {
	id, a, err := f.FS.LookupID(p, name)
	return id, attrOf(&a), err
}

func (f filesystem) GetAttr(n *dataset.Node) (vfs.Attr, error) {
	a, err := f.FS.GetAttr(n)
	return attrOf(&a), err
}

func (f filesystem) SetAttr(n *dataset.Node, c vfs.Change) (vfs.Attr, error) {
	a, err := f.FS.SetAttr(n, dataset.Change{
		Mode: c.Mode, UID: c.UID, GID: c.GID, Size: c.Size,
		Atime: (*dataset.Time)(c.Atime), Mtime: (*dataset.Time)(c.Mtime), KillPriv: c.KillPriv,
	})
	return attrOf(&a), err
}

func (f filesystem) Statfs() (layer.Statfs, error) {
	s, err := f.FS.Statfs()
	return layer.Statfs{
		Bsize: s.Bsize, Frsize: s.Frsize, NameLen: s.NameLen,
		Blocks: s.Blocks, Bfree: s.Bfree, Bavail: s.Bavail, Files: s.Files, Ffree: s.Ffree,
	}, err
}

func (f filesystem) Create(p *dataset.Node, name string, mode uint32, c vfs.Caller) (*dataset.Node, vfs.Attr, error) {
	return made(f.FS.Create(p, name, mode, dataset.Caller(c)))
}

func (f filesystem) Mknod(p *dataset.Node, name string, mode uint32, rdev uint64, c vfs.Caller) (*dataset.Node, vfs.Attr, error) {
	return made(f.FS.Mknod(p, name, mode, rdev, dataset.Caller(c)))
}

func (f filesystem) Mkdir(p *dataset.Node, name string, mode uint32, c vfs.Caller) (*dataset.Node, vfs.Attr, error) {
	return made(f.FS.Mkdir(p, name, mode, dataset.Caller(c)))
}

func (f filesystem) Symlink(p *dataset.Node, name, target string, c vfs.Caller) (*dataset.Node, vfs.Attr, error) {
	return made(f.FS.Symlink(p, name, target, dataset.Caller(c)))
}

func (f filesystem) Tmpfile(p *dataset.Node, mode uint32, c vfs.Caller) (*dataset.Node, vfs.Attr, error) {
	return made(f.FS.Tmpfile(p, mode, dataset.Caller(c)))
}

func (f filesystem) Link(n, p *dataset.Node, name string) (vfs.Attr, error) {
	a, err := f.FS.Link(n, p, name)
	return attrOf(&a), err
}

func (f filesystem) ReadDir(p *dataset.Node, pos uint64, emit func(vfs.Listed) bool) error {
	return f.FS.ReadDir(p, pos, func(e dataset.Listed) bool { return emit(vfs.Listed(e)) })
}
