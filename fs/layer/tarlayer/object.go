package tarlayer

import (
	"archive/tar"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

var (
	_ layer.Object = object{}
	_ layer.Dir    = dir{}
	_ layer.File   = (*file)(nil)
)

// Root returns the root directory of the archive.
func (fs *FS) Root() layer.Dir { return dir{object{n: fs.root, fs: fs}} }

// object is a node as a layer gives it out. Changes are refused with EROFS.
type object struct {
	readOnly
	n  *node
	fs *FS
}

func (o object) Close() error              { return nil }
func (o object) Stat() (layer.Stat, error) { return o.fs.stat(o.n), nil }

func (fs *FS) stat(n *node) layer.Stat {
	size := n.size
	if n.isDir() {
		size = 0
	}
	return layer.Stat{
		Dev: fs.dev, Ino: n.ino, Mode: n.mode, Nlink: n.nlink, UID: n.uid, GID: n.gid, Rdev: n.rdev,
		Size: size, Blocks: (n.size + 511) / 512, Blksize: 4096, Atime: n.mtime, Mtime: n.mtime, Ctime: n.mtime,
	}
}

func (o object) Getxattr(attr string, dest []byte) (int, error) {
	v, ok := o.n.xattrs[attr]
	if !ok {
		return 0, unix.ENODATA
	}
	return give(v, dest)
}

func (o object) Listxattr(dest []byte) (int, error) {
	var b strings.Builder
	for _, a := range slices.Sorted(maps.Keys(o.n.xattrs)) {
		b.WriteString(a + "\x00")
	}
	return give(b.String(), dest)
}

func give(v string, dest []byte) (int, error) {
	switch {
	case len(dest) == 0:
		return len(v), nil
	case len(v) > len(dest):
		return 0, unix.ERANGE
	}
	return copy(dest, v), nil
}

func (o object) Readlink() (string, error) {
	if o.n.mode&unix.S_IFMT != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	return o.n.target, nil
}

func (o object) Reopen(flags int) (layer.File, error) {
	if o.n.mode&unix.S_IFMT != unix.S_IFREG {
		return nil, unix.EINVAL
	}
	if flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0 {
		return nil, unix.EROFS
	}
	return o.fs.openFile(o.n)
}

func (o object) Handle() (layer.FileHandle, error) { return layer.FileHandle{}, unix.EOPNOTSUPP }
func (o object) Flags() (uint32, error)            { return 0, unix.ENOTTY }

type dir struct{ object }

func (d dir) child(name string) (object, error) {
	if err := layer.CheckName(name); err != nil {
		return object{}, err
	}
	if n := d.n.children[name]; n != nil {
		return object{n: n, fs: d.fs}, nil
	}
	return object{}, unix.ENOENT
}

func (d dir) StatAt(name string) (layer.Stat, error) {
	o, err := d.child(name)
	if err != nil {
		return layer.Stat{}, err
	}
	return o.Stat()
}

func (d dir) GetxattrAt(name, attr string, dest []byte) (int, error) {
	o, err := d.child(name)
	if err != nil {
		return 0, err
	}
	return o.Getxattr(attr, dest)
}

func (d dir) ListxattrAt(name string, dest []byte) (int, error) {
	o, err := d.child(name)
	if err != nil {
		return 0, err
	}
	return o.Listxattr(dest)
}

func (d dir) ReadlinkAt(name string) (string, error) {
	o, err := d.child(name)
	if err != nil {
		return "", err
	}
	return o.Readlink()
}

func (d dir) Lookup(name string) (layer.Object, error) {
	o, err := d.child(name)
	if err != nil {
		return nil, err
	}
	return o, nil
}

func (d dir) OpenFile(name string, flags int, _ uint32) (layer.File, error) {
	o, err := d.child(name)
	switch {
	case err == unix.ENOENT && flags&unix.O_CREAT != 0:
		return nil, unix.EROFS
	case err != nil:
		return nil, err
	}
	switch o.n.mode & unix.S_IFMT {
	case unix.S_IFREG:
		return o.Reopen(flags)
	case unix.S_IFDIR:
		return nil, unix.EISDIR
	case unix.S_IFLNK:
		return nil, unix.ELOOP
	}
	return nil, unix.ENXIO
}

func (d dir) OpenDir(name string) (layer.Dir, error) {
	o, err := d.child(name)
	if err != nil {
		return nil, err
	}
	if !o.n.isDir() {
		return nil, unix.ENOTDIR
	}
	return dir{o}, nil
}

func (d dir) ReadDir() ([]layer.Dirent, error) {
	list := make([]layer.Dirent, 0, len(d.n.children))
	for name, n := range d.n.children {
		list = append(list, layer.Dirent{Name: name, Ino: n.ino, Type: n.mode & unix.S_IFMT})
	}
	slices.SortFunc(list, func(a, b layer.Dirent) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func (d dir) Sync() error { return nil }

func (d dir) Statfs() (layer.Statfs, error) {
	return layer.Statfs{Bsize: 4096, Frsize: 4096, NameLen: layer.NameMax, Blocks: uint64(d.fs.src.size / 4096), Files: d.fs.files}, nil
}

func (d dir) UUID() [16]byte { return [16]byte{} }
func (d dir) String() string { return d.fs.src.name }

// file is a regular file that is open.
type file struct {
	object
	data io.ReaderAt
}

func (fs *FS) openFile(n *node) (layer.File, error) {
	data, err := fs.src.data()
	if err != nil {
		return nil, err
	}
	f := &file{object: object{n: n, fs: fs}}
	if n.off < 0 {
		f.data = &sparse{fs: fs, n: n}
	} else {
		f.data = io.NewSectionReader(data, n.off, n.size)
	}
	return f, nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	if off >= f.n.size {
		return 0, nil
	}
	p = p[:min(int64(len(p)), f.n.size-off)]
	n, err := f.data.ReadAt(p, off)
	switch {
	case n == len(p):
		return n, nil
	case err == io.EOF || err == nil: // the archive was cut short
		return n, fmt.Errorf("%s: %w: %w", f.fs.src.name, ErrCorrupt, unix.EIO)
	}
	return n, err
}

func (f *file) Seek(off int64, whence int) (int64, error) {
	switch {
	case off < 0 || off >= f.n.size:
		return 0, unix.ENXIO
	case whence == unix.SEEK_DATA:
		return off, nil
	case whence == unix.SEEK_HOLE:
		return f.n.size, nil
	}
	return 0, unix.EINVAL
}

func (f *file) Sync(bool) error { return nil }
func (f *file) WriteOut() error { return nil }

// sparse reads a file whose data do not lie in one piece: from the start of the
// archive to its entry, then on as far as is asked for. Such files are rare.
type sparse struct {
	fs  *FS
	n   *node
	r   *tar.Reader
	pos int64
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	if s.r == nil || off < s.pos {
		data, err := s.fs.src.data()
		if err != nil {
			return 0, err
		}
		s.r, s.pos = tar.NewReader(io.NewSectionReader(data, 0, 1<<62)), 0
		for range s.n.entry {
			if _, err := s.r.Next(); err != nil {
				return 0, err
			}
		}
	}
	skipped, err := io.CopyN(io.Discard, s.r, off-s.pos)
	s.pos += skipped
	if err != nil {
		return 0, err
	}
	n, err := io.ReadFull(s.r, p)
	s.pos += int64(n)
	return n, err
}

// readOnly refuses all changes.
type readOnly struct{}

func (readOnly) Chmod(uint32) error                                       { return unix.EROFS }
func (readOnly) Chown(int, int) error                                     { return unix.EROFS }
func (readOnly) SetTimes(layer.Time, layer.Time) error                    { return unix.EROFS }
func (readOnly) Setxattr(string, []byte, int) error                       { return unix.EROFS }
func (readOnly) Removexattr(string) error                                 { return unix.EROFS }
func (readOnly) SetFlags(uint32) error                                    { return unix.EROFS }
func (readOnly) Mkdir(string, uint32) error                               { return unix.EROFS }
func (readOnly) Mknod(string, uint32, uint64) error                       { return unix.EROFS }
func (readOnly) Symlink(string, string) error                             { return unix.EROFS }
func (readOnly) Link(layer.Object, string) error                          { return unix.EROFS }
func (readOnly) Unlink(string) error                                      { return unix.EROFS }
func (readOnly) Rmdir(string) error                                       { return unix.EROFS }
func (readOnly) Rename(string, layer.Dir, string, uint) error             { return unix.EROFS }
func (readOnly) TmpFile(uint32) (layer.File, error)                       { return nil, unix.EROFS }
func (readOnly) WriteAt([]byte, int64) (int, error)                       { return 0, unix.EROFS }
func (readOnly) Truncate(int64) error                                     { return unix.EROFS }
func (readOnly) Allocate(uint32, int64, int64) error                      { return unix.EROFS }
func (readOnly) CopyRangeFrom(layer.File, int64, int64, int) (int, error) { return 0, unix.EROFS }
func (readOnly) CloneFrom(layer.File) error                               { return unix.EROFS }
func (readOnly) CloneRangeFrom(layer.File, int64, int64, int64) error     { return unix.EROFS }
