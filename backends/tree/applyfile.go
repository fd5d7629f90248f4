package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// regular makes a file with its data.
func (a *applier) regular(dir layer.Dir, p, name string, h *tar.Header, data io.Reader) error {
	var f layer.File
	err := a.clear(dir, p, name, func() (err error) {
		f, err = dir.OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	defer f.Close()
	if err := a.fill(f, data, h.Size); err != nil {
		return err
	}
	return a.attributes(f, h)
}

// hole is the unit in which zeros are left out, so that a file that was sparse
// becomes so again: a tar says only what can be read.
const hole = 4096

var zeros [hole]byte

// fill writes data and leaves holes where it is zero.
func (a *applier) fill(f layer.File, data io.Reader, size int64) error {
	end := int64(0) // of what was written
	for off := int64(0); off < size; {
		n, err := io.ReadFull(data, a.buf[:min(int64(len(a.buf)), size-off)])
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if err := writeRuns(f, a.buf[:n], off, &end); err != nil {
			return err
		}
		off += int64(n)
	}
	if end == size {
		return nil
	}
	return f.Truncate(size)
}

// writeRuns writes what is not zero, and sets end to where the last of that ends.
func writeRuns(f layer.File, p []byte, off int64, end *int64) error {
	write := func(from, to int) error {
		_, err := f.WriteAt(p[from:to], off+int64(from))
		*end = off + int64(to)
		return err
	}
	from := -1
	for at := 0; at < len(p); at += hole {
		if some := p[at:min(at+hole, len(p))]; !bytes.Equal(some, zeros[:len(some)]) {
			if from < 0 {
				from = at
			}
			continue
		}
		if from >= 0 {
			if err := write(from, at); err != nil {
				return err
			}
			from = -1
		}
	}
	if from >= 0 {
		return write(from, len(p))
	}
	return nil
}

// link gives a file another name. One that only the layers below have is copied
// first, under its own name too: the two are one file from then on.
func (a *applier) link(dir layer.Dir, p, name string, h *tar.Header) error {
	if strings.HasPrefix(h.Linkname, "/") || slices.Contains(strings.Split(h.Linkname, "/"), "..") {
		return refuse("a hard link that leads outside, to %q", h.Linkname)
	}
	to := path.Clean(h.Linkname)
	if mark, _, err := whiteout.ParseTar(&tar.Header{Typeflag: tar.TypeReg, Name: to}); err != nil || mark != whiteout.NotMark || to == "." {
		return refuse("a hard link to %q, which is no file", h.Linkname)
	}
	obj, err := a.linked(to)
	if err != nil {
		return err
	}
	defer obj.Close()
	if st, err := obj.Stat(); err != nil || st.IsDir() {
		return errors.Join(err, refuse("a hard link to %q, which is a directory", h.Linkname))
	}
	// The way to the link's target may have closed the way to here.
	if dir, _, err = a.parent(p); err != nil {
		return err
	}
	return a.clear(dir, p, name, func() error { return dir.Link(obj, name) })
}

// linked opens the file that a hard link names.
func (a *applier) linked(to string) (layer.Object, error) {
	if a.gone[to] && a.made[to] != isFile {
		return nil, refuse("a hard link to %q, which the archive deletes", to)
	}
	dir, name, err := a.parent(to)
	if err != nil {
		return nil, err
	}
	obj, err := dir.Lookup(name)
	if err != unix.ENOENT {
		return obj, err
	}
	lower, err := a.find(to)
	if err != nil {
		return nil, err
	}
	if lower == nil {
		return nil, refuse("a hard link to %q, which does not exist", to)
	}
	defer lower.Close()
	if err := a.copyUp(lower, dir, name); err != nil {
		return nil, err
	}
	a.made[to] = isFile
	return dir.Lookup(name)
}

// copyUp copies a file from the layers below.
func (a *applier) copyUp(n *Node, dir layer.Dir, name string) error {
	var h tar.Header
	h.Mode, h.Uid, h.Gid = int64(n.Stat.Mode&0o7777), int(n.Stat.UID), int(n.Stat.GID)
	if err := describe(&h, n); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		return refuse("a hard link to a directory")
	}
	a.done.Entries++
	if err := a.copyData(n, dir, name, &h); err != nil {
		return err
	}
	obj, err := dir.Lookup(name)
	if err != nil {
		return err
	}
	defer obj.Close()
	return copyAttributes(n, obj)
}

func (a *applier) copyData(n *Node, dir layer.Dir, name string, h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeSymlink:
		return dir.Symlink(h.Linkname, name)
	case tar.TypeReg:
		f, err := dir.OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		return a.fill(f, &reader{n: n}, h.Size)
	}
	return dir.Mknod(name, n.Stat.Mode, n.Stat.Rdev)
}

// reader reads a node from the start.
type reader struct {
	n   *Node
	off int64
}

func (r *reader) Read(p []byte) (int, error) {
	k, err := r.n.ReadAt(p, r.off)
	r.off += int64(k)
	if err == nil && k == 0 && len(p) > 0 {
		err = io.EOF
	}
	return k, err
}

// directory gives a directory what its entry says. Its time is set when all
// that it holds is there.
func (a *applier) directory(d layer.Dir, p string, h *tar.Header) error {
	if err := a.attributes(d, h); err != nil {
		return err
	}
	a.times[p] = headerTime(h)
	return nil
}

// attributes sets owner, mode, xattrs and time, in the order in which none of
// them undoes another: chown(2) clears set-user-ID and capabilities.
func (a *applier) attributes(o layer.Object, h *tar.Header) error {
	if h.Uid < 0 || h.Gid < 0 || h.Uid >= math.MaxUint32 || h.Gid >= math.MaxUint32 {
		return refuse("owner %d:%d does not exist", h.Uid, h.Gid)
	}
	all, atOnce := o.(setter)
	if atOnce {
		if err := all.SetAttributes(uint32(h.Uid), uint32(h.Gid), modeOf(h), headerTime(h)); err != nil {
			return err
		}
	} else if err := setOneByOne(o, h); err != nil {
		return err
	}
	for record, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(record, xattrRecord)
		if !ok || attr == "security.selinux" {
			continue
		}
		kept, err := setXattr(o, attr, []byte(value))
		if err != nil {
			return err
		}
		if !kept {
			a.done.Dropped++
		}
	}
	if atOnce { // an xattr leaves the times of data alone
		return nil
	}
	t := headerTime(h)
	return o.SetTimes(t, t)
}

// A setter sets all of an object in one step. A mode of nil leaves it as it is.
type setter interface {
	SetAttributes(uid, gid uint32, mode *uint32, times layer.Time) error
}

// modeOf returns the permissions that an entry has; symbolic links have none.
func modeOf(h *tar.Header) *uint32 {
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	mode := uint32(h.Mode) & 0o7777
	return &mode
}

func setOneByOne(o layer.Object, h *tar.Header) error {
	err := chown(o, h.Uid, h.Gid)
	if mode := modeOf(h); err == nil && mode != nil {
		err = o.Chmod(*mode)
	}
	return err
}
