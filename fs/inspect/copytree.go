package inspect

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// CopyLayer copies all that is in a layer, marks included, into an empty
// directory: owners, modes, times, xattrs, hard links and holes.
func CopyLayer(ctx context.Context, from, to layer.Dir, progress func(entries int64)) error {
	c := copier{ctx: ctx, links: map[fileID]layer.Object{}, progress: progress}
	defer func() {
		for _, o := range c.links {
			o.Close()
		}
	}()
	list, err := to.ReadDir()
	if err != nil {
		return err
	}
	if len(list) > 0 {
		return fmt.Errorf("the directory to copy to is not empty: %w", unix.ENOTEMPTY)
	}
	return c.dir(from, to, "")
}

type copier struct {
	ctx      context.Context
	links    map[fileID]layer.Object // copies of files with several names
	entries  int64
	progress func(int64)
}

func (c *copier) dir(from, to layer.Dir, at string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	list, err := from.ReadDir()
	if err != nil {
		return fmt.Errorf("/%s: %w", at, err)
	}
	for _, e := range list {
		if err := c.entry(from, to, e.Name, join(at, e.Name)); err != nil {
			return err
		}
		if c.entries++; c.progress != nil && c.entries%256 == 0 {
			c.progress(c.entries)
		}
	}
	if err := c.attrs(from, to); err != nil {
		return fmt.Errorf("/%s: %w", at, err)
	}
	return nil
}

func (c *copier) entry(from, to layer.Dir, name, at string) error {
	fail := func(err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("/%s: copy: %w", at, err)
	}
	st, err := from.StatAt(name)
	if err != nil {
		return fail(err)
	}
	id := fileID{st.Dev, st.Ino}
	if o := c.links[id]; o != nil {
		return fail(to.Link(o, name))
	}
	switch st.Type() {
	case unix.S_IFDIR:
		return c.subdir(from, to, name, at)
	case unix.S_IFREG:
		err = copyFile(from, to, name)
	case unix.S_IFLNK:
		var target string
		if target, err = from.ReadlinkAt(name); err == nil {
			err = to.Symlink(target, name)
		}
	default:
		err = to.Mknod(name, st.Mode&unix.S_IFMT|0o600, st.Rdev)
	}
	if err != nil {
		return fail(err)
	}
	src, err := from.Lookup(name)
	if err != nil {
		return fail(err)
	}
	defer src.Close()
	dst, err := to.Lookup(name)
	if err != nil {
		return fail(err)
	}
	if st.Nlink > 1 {
		c.links[id] = dst
	} else {
		defer dst.Close()
	}
	return fail(c.attrs(src, dst))
}

func (c *copier) subdir(from, to layer.Dir, name, at string) error {
	if err := to.Mkdir(name, 0o700); err != nil {
		return fmt.Errorf("/%s: copy: %w", at, err)
	}
	src, err := from.OpenDir(name)
	if err != nil {
		return fmt.Errorf("/%s: copy: %w", at, err)
	}
	defer src.Close()
	dst, err := to.OpenDir(name)
	if err != nil {
		return fmt.Errorf("/%s: copy: %w", at, err)
	}
	defer dst.Close()
	return c.dir(src, dst, at)
}

// attrs gives a copy the attributes of its original. The owner comes first:
// changing it takes suid bits and capabilities away.
func (c *copier) attrs(from, to layer.Object) error {
	st, err := from.Stat()
	if err != nil {
		return err
	}
	have, err := to.Stat()
	if err != nil {
		return err
	}
	if have.UID != st.UID || have.GID != st.GID {
		if err := to.Chown(int(st.UID), int(st.GID)); err != nil {
			return err
		}
	}
	attrs, err := allXattrs(objectXattrs{from})
	if err != nil {
		return err
	}
	for name, v := range attrs {
		if err := to.Setxattr(name, v, 0); err != nil {
			return fmt.Errorf("xattr %s: %w", name, err)
		}
	}
	if st.Type() != unix.S_IFLNK {
		if err := to.Chmod(st.Mode & 0o7777); err != nil {
			return err
		}
	}
	return to.SetTimes(st.Atime, st.Mtime)
}

// copyFile copies data, by sharing it where the filesystem can.
func copyFile(from, to layer.Dir, name string) error {
	src, err := from.OpenFile(name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := to.OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	st, err := src.Stat()
	if err != nil || st.Size == 0 || dst.CloneFrom(src) == nil {
		return err
	}
	if err := dst.Truncate(st.Size); err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for off := int64(0); off < st.Size; {
		start, err := src.Seek(off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil // a hole to the end
		}
		if err != nil {
			return err
		}
		end, err := src.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		for off = start; off < end; {
			n, err := src.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
			if err != nil || n == 0 {
				return err
			}
			if _, err := dst.WriteAt(buf[:n], off); err != nil {
				return err
			}
			off += int64(n)
		}
	}
	return nil
}
