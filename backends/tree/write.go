package tree

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// xattrRecord begins the PAX records that hold extended attributes.
const xattrRecord = "SCHILY.xattr."

// Write writes how two views differ as a layer archive, see [Compare].
func Write(ctx context.Context, w io.Writer, old, new *View, o CompareOptions) error {
	a := NewWriter(w)
	if err := Compare(ctx, old, new, o, a.Add); err != nil {
		return err
	}
	return a.Close()
}

// WriteAll writes a whole view as an archive.
func WriteAll(ctx context.Context, w io.Writer, v *View) error {
	return Write(ctx, w, nil, v, CompareOptions{})
}

// A Writer writes changes as a layer archive.
type Writer struct {
	tw    *tar.Writer
	links map[inode]string
	buf   []byte
}

type inode struct{ dev, ino uint64 }

// NewWriter returns a Writer; its changes must come in the order of [Compare].
func NewWriter(w io.Writer) *Writer {
	return &Writer{tw: tar.NewWriter(w), links: map[inode]string{}, buf: make([]byte, 256<<10)}
}

// Close writes the end of the archive.
func (a *Writer) Close() error { return a.tw.Close() }

// Add writes one change.
func (a *Writer) Add(c Change) error {
	if c.Kind == Deleted {
		h, err := whiteout.WhiteoutHeader(c.Path, time.Unix(0, 0))
		if err != nil {
			return err
		}
		h.Format = tar.FormatPAX
		return a.tw.WriteHeader(h)
	}
	if c.Node.Stat.Type() == unix.S_IFSOCK {
		return nil // a tar has no sockets, and one means nothing without its server
	}
	if c.Link != "" {
		a.links[inode{c.Node.Stat.Dev, c.Node.Stat.Ino}] = c.Link
	}
	if err := a.file(c.Path, c.Node); err != nil {
		return fmt.Errorf("%s: %w", c.Path, err)
	}
	return nil
}

func (a *Writer) file(path string, n *Node) error {
	h := &tar.Header{
		Format:  tar.FormatPAX,
		Name:    path,
		Mode:    int64(n.Stat.Mode & 0o7777),
		Uid:     int(n.Stat.UID),
		Gid:     int(n.Stat.GID),
		ModTime: time.Unix(n.Stat.Mtime.Sec, int64(n.Stat.Mtime.Nsec)),
	}
	if n.Stat.Nlink > 1 && !n.Stat.IsDir() {
		key := inode{n.Stat.Dev, n.Stat.Ino}
		if first, ok := a.links[key]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return a.tw.WriteHeader(h)
		}
		a.links[key] = path
	}
	if err := describe(h, n); err != nil {
		return err
	}
	if err := a.tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	return a.data(n, h.Size)
}

// describe fills in what depends on the type.
func describe(h *tar.Header, n *Node) (err error) {
	switch n.Stat.Type() {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, n.Stat.Size
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = n.Readlink(); err != nil {
			return err
		}
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if n.Stat.Type() == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(n.Stat.Rdev)), int64(unix.Minor(n.Stat.Rdev))
	default:
		return fmt.Errorf("type %o: %w", n.Stat.Type(), unix.EOPNOTSUPP)
	}
	attrs, err := n.Xattrs()
	if err != nil {
		return err
	}
	for name, value := range attrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrRecord+name] = value
	}
	return nil
}

// data writes exactly as much as the header has promised.
func (a *Writer) data(n *Node, size int64) error {
	for off := int64(0); off < size; {
		k, err := n.ReadAt(a.buf[:min(int64(len(a.buf)), size-off)], off)
		if err != nil {
			return err
		}
		if k == 0 {
			return fmt.Errorf("the file became shorter while it was read: %w", io.ErrUnexpectedEOF)
		}
		if _, err := a.tw.Write(a.buf[:k]); err != nil {
			return err
		}
		off += int64(k)
	}
	return nil
}

// headerTime returns the time of the last change, as a layer keeps it.
func headerTime(h *tar.Header) layer.Time {
	return layer.Time{Sec: h.ModTime.Unix(), Nsec: uint32(h.ModTime.Nanosecond())}
}
