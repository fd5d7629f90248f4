package union

import (
	"bytes"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// marks are what the xattrs of an object say to a union.
type marks struct {
	none           bool // the object has no xattr at all
	opaque         bool
	xattrWhiteouts bool
	whiteout       bool
	impure         bool
	metacopy       bool
	redirect       *whiteout.Redirect
	origin         *whiteout.FileHandle
	nlink          *whiteout.Nlink
}

// xattrReader reads the xattrs of one object, found by handle or by name.
type xattrReader interface {
	list(dest []byte) (int, error)
	get(attr string, dest []byte) (int, error)
}

type objectXattrs struct{ layer.Object }

func (o objectXattrs) list(dest []byte) (int, error)          { return o.Listxattr(dest) }
func (o objectXattrs) get(a string, dest []byte) (int, error) { return o.Getxattr(a, dest) }

type childXattrs struct {
	dir  layer.Dir
	name string
}

func (c childXattrs) list(dest []byte) (int, error) { return c.dir.ListxattrAt(c.name, dest) }
func (c childXattrs) get(a string, dest []byte) (int, error) {
	return c.dir.GetxattrAt(c.name, a, dest)
}

// xattrSizeMax is the longest value and the longest list (linux/limits.h).
const xattrSizeMax = 65536

// readSized calls a getter with a buffer on the stack, and with the largest one
// when that is too small.
func readSized(get func([]byte) (int, error), use func([]byte) error) error {
	var small [512]byte
	n, err := get(small[:])
	if err == nil {
		return use(small[:n])
	}
	if err != unix.ERANGE {
		return err
	}
	big := make([]byte, xattrSizeMax)
	if n, err = get(big); err != nil {
		return err
	}
	return use(big[:n])
}

// readMarks reads the marks of an object: one call tells that there are none.
// A filesystem without xattrs has none. A mark that cannot be understood is an
// error, because ignoring it would show a wrong tree.
func (fs *FS) readMarks(r xattrReader) (marks, error) {
	var m marks
	err := readSized(r.list, func(list []byte) error {
		if len(list) == 0 {
			m.none = true
			return nil
		}
		for len(list) > 0 {
			attr := list
			if i := bytes.IndexByte(list, 0); i >= 0 {
				attr, list = list[:i], list[i+1:]
			} else {
				list = nil
			}
			if !mayBeMark(attr) {
				continue
			}
			// One that was listed may be gone: the data of a metacopy file has
			// come, which takes no lock of its directory.
			if err := m.read(r, string(attr)); err != nil && err != unix.ENODATA {
				return fmt.Errorf("xattr %s: %w", attr, err)
			}
		}
		return nil
	})
	if err == unix.EOPNOTSUPP {
		return marks{none: true}, nil
	}
	if fs.opt.NoFollow {
		m.redirect = nil
	}
	return m, err
}

// mayBeMark tells most names of attributes apart cheaply.
func mayBeMark(attr []byte) bool {
	s := string(attr)
	return strings.HasPrefix(s, string(whiteout.Trusted)) || strings.HasPrefix(s, string(whiteout.User)) ||
		strings.HasPrefix(s, "user.fuseoverlayfs.")
}

func (m *marks) read(r xattrReader, attr string) error {
	name, ok := strings.CutPrefix(attr, string(whiteout.Trusted))
	if !ok {
		name, ok = strings.CutPrefix(attr, string(whiteout.User))
	}
	if !ok {
		name, _ = strings.CutPrefix(attr, "user.fuseoverlayfs.")
		if name != "opaque" {
			return nil
		}
	}
	switch name {
	case "opaque", "redirect", "metacopy", "origin", "impure", "whiteout", "nlink":
	default:
		return nil
	}
	return readSized(func(b []byte) (int, error) { return r.get(attr, b) }, func(v []byte) error {
		return m.parse(name, v)
	})
}

func (m *marks) parse(name string, v []byte) error {
	switch name {
	case "opaque":
		// As in the kernel a value that means nothing is no mark.
		o, _ := whiteout.ParseOpaque(v)
		m.opaque = m.opaque || o == whiteout.OpaqueYes
		m.xattrWhiteouts = m.xattrWhiteouts || o == whiteout.OpaqueXattrWhiteouts
	case "impure":
		m.impure = true
	case "whiteout":
		m.whiteout = true
	case "metacopy":
		_, err := whiteout.ParseMetacopy(v)
		m.metacopy = true
		return err
	case "redirect":
		r, err := whiteout.ParseRedirect(v)
		m.redirect = &r
		return err
	case "origin":
		// An origin that cannot be read only costs the constant inode number.
		if fh, err := whiteout.ParseFileHandle(v); err == nil {
			m.origin = &fh
		}
	case "nlink":
		if l, err := whiteout.ParseNlink(v); err == nil {
			m.nlink = &l
		}
	}
	return nil
}

// chooseMarks finds out by trying which marks the upper can hold, where the
// options leave it open.
func (fs *FS) chooseMarks() error {
	h, err := fs.upper.root.open(fs)
	if err != nil {
		return err
	}
	defer h.release()
	if fs.opt.Prefix == "" {
		fs.opt.Prefix = whiteout.Trusted
		if fs.tryXattr(whiteout.Trusted) != nil {
			fs.opt.Prefix = whiteout.User
		}
	}
	xerr := fs.tryXattr(fs.opt.Prefix)
	if fs.opt.Whiteouts == WhiteoutAuto {
		fs.opt.Whiteouts = WhiteoutDevice
		if err := fs.tryWhiteoutDevice(); err != nil {
			fs.opt.Whiteouts = WhiteoutXattr
			if xerr != nil {
				fs.opt.Whiteouts = WhiteoutAufs
			}
		}
	}
	if xerr != nil && fs.opt.Whiteouts != WhiteoutAufs {
		if errnoOf(xerr) == unix.EOPNOTSUPP {
			// Neither opaque marks nor origins: aufs names say the same.
			fs.opt.Whiteouts = WhiteoutAufs
		} else {
			return fmt.Errorf("union: upper %s: cannot write the xattr %s: %w", fs.upper.name, fs.opt.Prefix.Opaque(), xerr)
		}
	}
	fs.upper.aufs = true
	return nil
}

func (fs *FS) tryXattr(p whiteout.Prefix) error {
	f, err := fs.work.tempFile(0o600)
	if err != nil {
		return err
	}
	defer f.discard()
	return f.file.Setxattr(p.Opaque(), []byte("y"), 0)
}

func (fs *FS) tryWhiteoutDevice() error {
	name, err := fs.work.temp(func(d layer.Dir, name string) error { return d.Mknod(name, unix.S_IFCHR, 0) })
	if err != nil {
		return err
	}
	return fs.work.dir.Unlink(name)
}

// markOpaque says that a directory, not yet visible, hides the lower ones.
func (fs *FS) markOpaque(dir layer.Dir) error {
	if fs.opt.Whiteouts == WhiteoutAufs {
		st, err := dir.Stat()
		if err != nil {
			return err
		}
		f, err := dir.OpenFile(whiteout.AufsOpaque, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o444)
		if err == unix.EEXIST {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		// A mark is no change of the directory. A wrong time would be no harm
		// that is worth failing for.
		_ = dir.SetTimes(st.Atime, st.Mtime)
		return nil
	}
	return dir.Setxattr(fs.opt.Prefix.Opaque(), []byte("y"), 0)
}

// setImpure marks the upper part of a directory as holding objects that came
// from elsewhere, which makes the kernel look for the origins of its entries.
func (fs *FS) setImpure(d *dirNode, upper layer.Dir) error {
	if d.impure {
		return nil
	}
	if err := upper.Setxattr(fs.opt.Prefix.Impure(), []byte("y"), 0); err != nil {
		return err
	}
	d.impure = true
	return nil
}
