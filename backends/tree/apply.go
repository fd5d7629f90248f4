package tree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// ErrRefused is the cause of an [EntryError] for what an archive must not hold.
var ErrRefused = errors.New("refused")

// An EntryError names the entry of an archive that could not be carried out.
type EntryError struct {
	Entry string
	Cause error
}

func (e *EntryError) Error() string { return fmt.Sprintf("entry %q: %v", e.Entry, e.Cause) }
func (e *EntryError) Unwrap() error { return e.Cause }

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// A Target is what an archive is applied to.
type Target struct {
	// Root is the layer's directory, empty, or a copy of the parent's whole tree
	// when Format is [Full].
	Root   layer.Dir
	Format Format
	// Below opens what the layers below show: for the attributes of directories
	// that the archive goes through and does not list, and for hard links to
	// files that are not its own. It is called at most once, and the view is
	// closed by Apply. Nil: nothing is below, or Root has it all.
	Below func() (*View, error)
}

// ApplyOptions bound an archive; 0 is no bound.
type ApplyOptions struct {
	MaxBytes   int64 // of all files together, as the archive declares them
	MaxEntries int64
	// Entry is called before each entry is carried out; nil for none.
	Entry func(name string, size int64)
}

// Applied tells what an archive has become.
type Applied struct {
	Entries int64 `json:"entries"`
	Bytes   int64 `json:"bytes"`
	// Recorded counts devices that this user cannot make. They are empty files
	// which say in an xattr what they stand for (user.containers.override_stat).
	Recorded int64 `json:"recorded,omitempty"`
	// Dropped counts xattrs that the filesystem or this user cannot keep.
	Dropped int64 `json:"dropped,omitempty"`
}

// Apply carries an uncompressed layer archive out, in one pass. What a whiteout
// names is gone unless the archive has an entry of that name itself, wherever that stands.
//
// It refuses, by the name of the entry and with [ErrRefused]: absolute names and
// those with "..", what lies below something that is no directory (a symbolic link,
// say), hard links that lead outside or to a directory, whiteouts of the root, names that
// come twice, types that a layer does not have, and what is beyond the bounds. A
// size that is not true ends in io.ErrUnexpectedEOF or an error of the next
// header. After an error the target holds a part of the archive.
func Apply(ctx context.Context, t Target, archive io.Reader, o ApplyOptions) (Applied, error) {
	a, err := newApplier(t)
	if err != nil {
		return Applied{}, err
	}
	defer a.close()
	tr := tar.NewReader(archive)
	for {
		if err := ctx.Err(); err != nil {
			return a.done, err
		}
		h, err := tr.Next()
		if err == io.EOF {
			return a.done, a.settleTimes()
		}
		if err != nil {
			return a.done, fmt.Errorf("layer archive, behind %d entries: %w", a.done.Entries, err)
		}
		if o.Entry != nil {
			o.Entry(h.Name, h.Size)
		}
		if err = a.bounded(h, o); err == nil {
			err = a.entry(h, tr)
		}
		if err != nil {
			return a.done, &EntryError{h.Name, err}
		}
	}
}

// bounded counts an entry.
func (a *applier) bounded(h *tar.Header, o ApplyOptions) error {
	a.done.Entries++
	a.done.Bytes += h.Size
	switch {
	case h.Size < 0 || a.done.Bytes < 0:
		return refuse("a size of %d", h.Size)
	case o.MaxEntries > 0 && a.done.Entries > o.MaxEntries:
		return refuse("more than %d entries", o.MaxEntries)
	case o.MaxBytes > 0 && a.done.Bytes > o.MaxBytes:
		return refuse("the files of the archive take more than %d bytes", o.MaxBytes)
	}
	return nil
}

// entry carries out one.
func (a *applier) entry(h *tar.Header, data io.Reader) error {
	if strings.HasPrefix(h.Name, "/") {
		return refuse("an absolute name")
	}
	mark, path, err := whiteout.ParseTar(h)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if (mark == whiteout.OpaqueMarker || mark == whiteout.Whiteout) && h.Size > 0 {
		return refuse("a whiteout with content")
	}
	switch mark {
	case whiteout.Reserved:
		return nil
	case whiteout.OpaqueMarker:
		return a.opaque(path)
	case whiteout.Whiteout:
		return a.delete(path)
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if path == "." {
		if h.Typeflag != tar.TypeDir {
			return refuse("the root is no directory")
		}
		return a.directory(a.root, path, h)
	}
	dir, name, err := a.parent(path)
	if err != nil {
		return err
	}
	return a.make(dir, path, name, h, data)
}

// make makes one file, whatever its type.
func (a *applier) make(dir layer.Dir, path, name string, h *tar.Header, data io.Reader) error {
	if err := a.once(path, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		sub, err := a.makeDir(dir, path, name)
		if err != nil {
			return err
		}
		defer sub.Close()
		return a.directory(sub, path, h)
	case tar.TypeReg, tar.TypeGNUSparse:
		return a.regular(dir, path, name, h, data)
	case tar.TypeLink:
		return a.link(dir, path, name, h)
	case tar.TypeSymlink:
		if err := a.clear(dir, path, name, func() error { return dir.Symlink(h.Linkname, name) }); err != nil {
			return err
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if err := a.special(dir, path, name, h); err != nil {
			return err
		}
	default:
		return refuse("type %q is none that a layer has", h.Typeflag)
	}
	obj, err := dir.Lookup(name)
	if err != nil {
		return err
	}
	defer obj.Close()
	return a.attributes(obj, h)
}

// once refuses a name that the archive had before. Directories may come again:
// builders that pack in several rounds list them each time.
func (a *applier) once(path string, isDir bool) error {
	before, seen := a.made[path]
	if seen && !(isDir && before != isFile) {
		return refuse("the name comes twice")
	}
	if isDir {
		a.made[path] = isDirectory
	} else {
		a.made[path] = isFile
	}
	return nil
}

// special makes a device or a FIFO.
func (a *applier) special(dir layer.Dir, path, name string, h *tar.Header) error {
	mode := uint32(h.Mode) & 0o7777
	var rdev uint64
	switch h.Typeflag {
	case tar.TypeFifo:
		mode |= unix.S_IFIFO
	case tar.TypeChar, tar.TypeBlock:
		mode |= map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK}[h.Typeflag]
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return refuse("device %d:%d does not exist", h.Devmajor, h.Devminor)
		}
		rdev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		if h.Typeflag == tar.TypeChar && rdev == 0 && a.format.isOverlay() {
			return refuse("a character device 0:0 would delete the name")
		}
	}
	err := a.clear(dir, path, name, func() error { return dir.Mknod(name, mode, rdev) })
	if err != unix.EPERM || h.Typeflag == tar.TypeFifo {
		return err
	}
	a.done.Recorded++
	f, err := dir.OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, mode&0o777)
	if err != nil {
		return err
	}
	defer f.Close()
	as := whiteout.OverrideStat{
		UID: uint32(h.Uid), GID: uint32(h.Gid), Mode: mode & 0o7777, Type: mode & unix.S_IFMT,
		Major: uint32(h.Devmajor), Minor: uint32(h.Devminor),
	}
	return f.Setxattr(whiteout.OverrideStatContainers, as.Encode(), 0)
}
