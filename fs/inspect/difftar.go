package inspect

import (
	"archive/tar"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/whiteout"
)

// A TarWriter writes changes as an OCI layer (image-spec, layer.md): what was
// added or changed whole, a whiteout for each name that was removed.
type TarWriter struct {
	w     *tar.Writer
	links map[fileID]string // files with several names, by the first that was written
	// Skipped counts what a layer cannot hold: sockets.
	Skipped int
}

// fileID is an inode.
type fileID struct{ dev, ino uint64 }

// NewTarWriter returns a writer; Close ends the archive.
func NewTarWriter(w io.Writer) *TarWriter {
	return &TarWriter{w: tar.NewWriter(w), links: map[fileID]string{}}
}

// Close writes the end of the archive.
func (t *TarWriter) Close() error { return t.w.Close() }

// Write takes in one change, in the order that [Diff] gives them.
func (t *TarWriter) Write(c *Change) error {
	if c.Kind == Removed {
		if c.Within {
			return nil // the whiteout of the directory around it says so
		}
		h, err := whiteout.WhiteoutHeader(c.Path, TimeOf(c.Old.Top().Stat.Mtime))
		if err != nil {
			return err
		}
		return t.w.WriteHeader(h)
	}
	if c.Path == "" && c.Kind == Changed && c.What == 0 {
		return nil
	}
	return t.object(c.New)
}

func (t *TarWriter) object(e *Entry) error {
	top := e.Top()
	h, err := tarHeader(e.Path, top)
	if err != nil || h == nil {
		t.Skipped++
		return err
	}
	if _, _, err := whiteout.ParseTar(h); err != nil {
		return fmt.Errorf("/%s cannot be in an OCI layer: %w", e.Path, err)
	}
	if kind, _ := whiteout.ParseAufsName(e.Name); kind != whiteout.NotMark {
		return fmt.Errorf("/%s cannot be in an OCI layer, where its name is a mark: %w", e.Path, whiteout.ErrNotRepresentable)
	}
	id := fileID{top.Stat.Dev, top.Stat.Ino}
	if first, ok := t.links[id]; ok && top.Stat.Nlink > 1 && !top.IsDir() {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		return t.w.WriteHeader(h)
	}
	if top.Stat.Nlink > 1 && !top.IsDir() {
		t.links[id] = h.Name
	}
	if err := t.w.WriteHeader(h); err != nil {
		return fmt.Errorf("/%s: %w", e.Path, err)
	}
	if h.Typeflag == tar.TypeReg {
		return t.data(e, h.Size)
	}
	return nil
}

func (t *TarWriter) data(e *Entry, size int64) error {
	d := e.Data()
	if d == nil {
		return fmt.Errorf("/%s: its data are in no layer: %w", e.Path, unix.EIO)
	}
	f, err := d.OpenFile()
	if err != nil {
		return fmt.Errorf("/%s: %w", e.Path, err)
	}
	defer f.Close()
	buf := make([]byte, min(size, 256<<10)+1)
	for off := int64(0); off < size; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			_, err = t.w.Write(buf[:n])
		}
		if err != nil {
			return fmt.Errorf("/%s: %w", e.Path, err)
		}
		off += int64(n)
	}
	return nil
}

// tarHeader describes an object, nil for what no archive holds.
func tarHeader(path string, s *Sighting) (*tar.Header, error) {
	h := &tar.Header{
		Name: path, Mode: int64(s.Stat.Mode & 0o7777), Uid: int(s.Stat.UID), Gid: int(s.Stat.GID),
		ModTime: TimeOf(s.Stat.Mtime), Format: tar.FormatPAX,
	}
	var err error
	switch s.Stat.Type() {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, s.Stat.Size
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		if h.Name = path + "/"; path == "" {
			h.Name = "./"
		}
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = s.Readlink(); err != nil {
			return nil, fmt.Errorf("/%s: %w", path, err)
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if s.Stat.Type() == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(s.Stat.Rdev)), int64(unix.Minor(s.Stat.Rdev))
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		return nil, nil
	}
	attrs, err := s.UserXattrs()
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", path, err)
	}
	for name, v := range attrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = string(v)
	}
	return h, nil
}
