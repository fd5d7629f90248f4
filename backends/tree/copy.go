package tree

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// How says what becomes of the files of a tree that is copied.
type How int

const (
	// Data copies them: by sharing extents where the filesystem can, else all that
	// is no hole.
	Data How = iota
	// Links gives them another name. Directories are always made anew.
	Links
)

// Copy makes dst, an empty directory, look like src: data, owners, modes,
// xattrs, times, hard links, devices and holes.
func Copy(ctx context.Context, src, dst layer.Dir, how How) error {
	c := copier{ctx: ctx, how: how, links: map[inode]layer.Object{}}
	defer func() {
		for _, o := range c.links {
			o.Close()
		}
	}()
	return c.dir(".", src, dst)
}

// linksKept bounds the descriptors that wait for another name of their file.
const linksKept = 256

type copier struct {
	ctx   context.Context
	how   How
	links map[inode]layer.Object // files with further names, by their inode in src
}

func (c *copier) dir(p string, src, dst layer.Dir) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	list, err := src.ReadDir()
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	for _, e := range list {
		if err := c.entry(join(p, e.Name), e.Name, src, dst); err != nil {
			return err
		}
	}
	if err := copyObject(src, dst); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return nil
}

func (c *copier) entry(p, name string, src, dst layer.Dir) error {
	st, err := src.StatAt(name)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	if st.IsDir() {
		from, err := src.OpenDir(name)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		defer from.Close()
		if err := dst.Mkdir(name, 0o700); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		to, err := dst.OpenDir(name)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		defer to.Close()
		return c.dir(p, from, to)
	}
	if err := c.file(name, &st, src, dst); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return nil
}

func (c *copier) file(name string, st *layer.Stat, src, dst layer.Dir) error {
	from, err := src.Lookup(name)
	if err != nil {
		return err
	}
	defer from.Close()
	if c.how == Links {
		switch err := dst.Link(from, name); err {
		case unix.EMLINK: // the filesystem's limit of names for one file
		default:
			return err
		}
	}
	key := inode{st.Dev, st.Ino}
	if known, ok := c.links[key]; ok && st.Nlink > 1 {
		return dst.Link(known, name)
	}
	if err := c.data(name, st, src, dst); err != nil {
		return err
	}
	to, err := dst.Lookup(name)
	if err != nil {
		return err
	}
	if err := copyObject(from, to); err != nil || st.Nlink == 1 || len(c.links) >= linksKept {
		return errors.Join(err, to.Close())
	}
	c.links[key] = to
	return nil
}

// data makes the file itself.
func (c *copier) data(name string, st *layer.Stat, src, dst layer.Dir) error {
	switch st.Type() {
	case unix.S_IFLNK:
		target, err := src.ReadlinkAt(name)
		if err != nil {
			return err
		}
		return dst.Symlink(target, name)
	case unix.S_IFREG:
		from, err := src.OpenFile(name, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		defer from.Close()
		to, err := dst.OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		defer to.Close()
		return copyData(from, to, st.Size)
	}
	return dst.Mknod(name, st.Mode, st.Rdev)
}

// copyData shares the data, or copies what is no hole.
func copyData(from, to layer.File, size int64) error {
	if size == 0 || to.CloneFrom(from) == nil {
		return nil
	}
	for off := int64(0); off < size; {
		start, err := from.Seek(off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		end := size
		if err != nil {
			start = off // it cannot tell holes: all is data
		} else if end, err = from.Seek(start, unix.SEEK_HOLE); err != nil {
			return err
		}
		if err := copyRange(from, to, start, min(end, size)); err != nil {
			return err
		}
		off = end
	}
	return to.Truncate(size)
}

func copyRange(from, to layer.File, off, end int64) error {
	var buf []byte
	for off < end {
		n, err := to.CopyRangeFrom(from, off, off, int(min(end-off, 1<<30)))
		if err == unix.EXDEV || err == unix.EOPNOTSUPP || err == unix.EINVAL || err == unix.ENOSYS {
			if buf == nil {
				buf = make([]byte, 1<<20)
			}
			if n, err = from.ReadAt(buf[:min(int64(len(buf)), end-off)], off); err == nil {
				_, err = to.WriteAt(buf[:n], off)
			}
		}
		if err != nil {
			return err
		}
		if n == 0 {
			break // it became shorter meanwhile
		}
		off += int64(n)
	}
	return nil
}

// copyObject copies owner, mode, xattrs and times as they are stored, marks
// and all.
func copyObject(src, dst layer.Object) error {
	st, err := src.Stat()
	if err != nil {
		return err
	}
	if err := chown(dst, int(st.UID), int(st.GID)); err != nil {
		return err
	}
	if st.Type() != unix.S_IFLNK {
		if err := dst.Chmod(st.Mode & 0o7777); err != nil {
			return err
		}
	}
	if err := copyXattrs(src, dst); err != nil {
		return err
	}
	return dst.SetTimes(st.Atime, st.Mtime)
}

func copyXattrs(src, dst layer.Object) error {
	size, err := src.Listxattr(nil)
	if err == unix.EOPNOTSUPP || err == nil && size == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	buf := make([]byte, xattrMax)
	if size, err = src.Listxattr(buf); err != nil {
		return err
	}
	value := make([]byte, xattrMax)
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(buf[:size]), "\x00"), "\x00") {
		if attr == "" || attr == "security.selinux" {
			continue
		}
		n, err := src.Getxattr(attr, value)
		if err != nil {
			return fmt.Errorf("xattr %s: %w", attr, err)
		}
		if err := dst.Setxattr(attr, value[:n], 0); err != nil {
			return fmt.Errorf("xattr %s: %w", attr, err)
		}
	}
	return nil
}

// Usage counts what a directory takes by itself: bytes as allocated and objects,
// a file with several names once. Files that have a name outside of it too do not
// count; shared is how many of its names are such.
func Usage(ctx context.Context, root layer.Dir) (bytes, objects, shared int64, err error) {
	u := usage{ctx: ctx, linked: map[inode]*linkedFile{}}
	if err := u.dir(root); err != nil {
		return 0, 0, 0, err
	}
	for _, f := range u.linked {
		if f.names < f.nlink {
			shared += int64(f.names)
			continue
		}
		u.bytes += f.bytes
		u.objects++
	}
	return u.bytes, u.objects, shared, nil
}

type usage struct {
	ctx            context.Context
	bytes, objects int64
	linked         map[inode]*linkedFile
}

// A linkedFile has several names, and some of them were met.
type linkedFile struct {
	names, nlink uint32
	bytes        int64
}

func (u *usage) dir(d layer.Dir) error {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	list, err := d.ReadDir()
	if err != nil {
		return err
	}
	for _, e := range list {
		st, err := d.StatAt(e.Name)
		if err == unix.ENOENT {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		if st.Nlink > 1 && !st.IsDir() {
			key := inode{st.Dev, st.Ino}
			if u.linked[key] == nil {
				u.linked[key] = &linkedFile{nlink: st.Nlink, bytes: st.Blocks * 512}
			}
			u.linked[key].names++
			continue
		}
		u.bytes += st.Blocks * 512
		u.objects++
		if st.IsDir() {
			if err := u.sub(d, e.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (u *usage) sub(d layer.Dir, name string) error {
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	return u.dir(sub)
}
