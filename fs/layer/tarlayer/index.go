package tarlayer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// node is one file of an archive, whatever its names.
type node struct {
	ino      uint64
	size     int64
	off      int64 // of the data in the unpacked archive, -1: sparse
	entry    int   // number of the entry
	mtime    layer.Time
	rdev     uint64
	mode     uint32
	uid, gid uint32
	nlink    uint32
	target   string
	xattrs   map[string]string
	children map[string]*node // of a directory
}

func (n *node) isDir() bool { return n.mode&unix.S_IFMT == unix.S_IFDIR }

// An FS is an archive as a layer.
type FS struct {
	src      *source
	dev      uint64
	root     *node
	entries  int
	files    uint64
	problems []string
	left     int // problems beyond those kept
	bytes    int64
}

// devs numbers the archives, so that inodes of two of them are never one.
var devs atomic.Uint32

// Open reads the headers of an archive, which stays the caller's and is read
// as long as the FS is used. name is for messages.
func Open(name string, r io.ReaderAt, size int64, opt Options) (*FS, error) {
	opt.fill()
	src, err := newSource(name, r, size, &opt)
	if err != nil {
		return nil, err
	}
	fs := &FS{src: src, dev: unix.Mkdev(0xfff, devs.Add(1))}
	fs.root = fs.newNode(unix.S_IFDIR | 0o755)
	stream, end, err := src.stream(true)
	if err != nil {
		return nil, err
	}
	defer end()
	return fs, fs.index(stream)
}

// Problems tells what was left out, at most 100 and how many more.
func (fs *FS) Problems() []string {
	if fs.left > 0 {
		return append(slices.Clip(fs.problems), fmt.Sprintf("and %d more", fs.left))
	}
	return fs.problems
}

// Close gives back the temporary file, if there is one.
func (fs *FS) Close() error { return fs.src.close() }

func (fs *FS) newNode(mode uint32) *node {
	fs.files++
	n := &node{ino: fs.files, mode: mode, nlink: 1}
	if n.isDir() {
		n.nlink, n.children = 2, map[string]*node{}
	}
	return n
}

func (fs *FS) problem(name, format string, args ...any) {
	if len(fs.problems) >= 100 {
		fs.left++
		return
	}
	if len(name) > 300 {
		name = name[:300] + "…"
	}
	fs.problems = append(fs.problems, fmt.Sprintf("%q: ", name)+fmt.Sprintf(format, args...))
}

// position tells where a tar reader is in the unpacked stream: it reads whole
// blocks and never ahead, so after a header that is where the data begin.
type position struct {
	io.Reader
	n int64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	p.n += int64(n)
	return n, err
}

func (fs *FS) index(stream io.Reader) error {
	var at func() int64
	if c, ok := stream.(*counter); ok {
		at = func() int64 { return c.n }
	} else {
		p := &position{Reader: stream}
		stream, at = p, func() int64 { return p.n }
	}
	r := tar.NewReader(stream)
	for {
		h, err := r.Next()
		switch {
		case err == io.EOF && fs.entries == 0 && fs.src.size > 0 && fs.src.format == "" && !fs.zeros():
			return fmt.Errorf("%s: no tar archive: %w", fs.src.name, ErrCorrupt)
		case err == io.EOF:
			return nil
		case errors.Is(err, ErrTooLarge):
			return err
		case err != nil:
			return fmt.Errorf("%s: entry %d: %w: %w", fs.src.name, fs.entries+1, ErrCorrupt, err)
		}
		fs.entries++
		fs.bytes += int64(len(h.Name) + len(h.Linkname))
		for k, v := range h.PAXRecords {
			fs.bytes += int64(len(k) + len(v))
		}
		if o := &fs.src.opt.Limits; fs.entries > o.Entries || fs.bytes > o.IndexBytes {
			return fmt.Errorf("%s: more than %d entries, or %d bytes of names: %w", fs.src.name, o.Entries, o.IndexBytes, ErrTooLarge)
		}
		fs.add(h, at())
	}
}

// zeros tells whether the archive begins with the block that ends one.
func (fs *FS) zeros() bool {
	var block [512]byte
	n, _ := fs.src.packed.ReadAt(block[:], 0)
	return n == len(block) && block == [512]byte{}
}

// add takes in one entry.
func (fs *FS) add(h *tar.Header, off int64) {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return
	}
	if _, _, err := whiteout.ParseTar(h); err != nil {
		fs.problem(h.Name, "%v", err)
		return
	}
	clean := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if clean == "" {
		if h.Typeflag == tar.TypeDir {
			fs.setAttrs(fs.root, h)
		}
		return
	}
	dir, name := path.Split(clean)
	parent := fs.parent(h.Name, dir)
	if parent == nil {
		return
	}
	if err := layer.CheckName(name); err != nil {
		fs.problem(h.Name, "%v", err)
		return
	}
	n := fs.make(h, off)
	if n == nil {
		return
	}
	fs.place(parent, name, n, h)
}

// maxDepth bounds the directories on the way to a file: no path that the kernel
// takes has more.
const maxDepth = 2048

// parent returns the directory of an entry, making what the archive does not
// name; nil if there cannot be one.
func (fs *FS) parent(entry, dir string) *node {
	n := fs.root
	if strings.Count(dir, "/") > maxDepth {
		fs.problem(entry, "more than %d directories deep", maxDepth)
		return nil
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(dir, "/"), "/") {
		if name == "" {
			continue
		}
		c := n.children[name]
		if c == nil {
			if err := layer.CheckName(name); err != nil {
				fs.problem(entry, "%v", err)
				return nil
			}
			c = fs.newNode(unix.S_IFDIR | 0o755)
			n.children[name] = c
			n.nlink++
		}
		if !c.isDir() {
			fs.problem(entry, "%q on the way is no directory", name)
			return nil
		}
		n = c
	}
	return n
}

// place gives a node its name. As for who unpacks, the later entry wins, and a
// directory that comes again keeps what is in it.
func (fs *FS) place(parent *node, name string, n *node, h *tar.Header) {
	old := parent.children[name]
	if old == n {
		return
	}
	if old != nil && old.isDir() && n.isDir() {
		fs.setAttrs(old, h)
		return
	}
	if old != nil {
		old.nlink--
		if old.isDir() {
			parent.nlink--
		}
	}
	if n.isDir() {
		parent.nlink++
	}
	parent.children[name] = n
}

// make returns the node of an entry, nil if there is none.
func (fs *FS) make(h *tar.Header, off int64) *node {
	var typ uint32
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont, '\x00':
		typ = unix.S_IFREG
	case tar.TypeLink:
		return fs.linked(h)
	case tar.TypeSymlink:
		typ = unix.S_IFLNK
	case tar.TypeChar:
		typ = unix.S_IFCHR
	case tar.TypeBlock:
		typ = unix.S_IFBLK
	case tar.TypeDir:
		typ = unix.S_IFDIR
	case tar.TypeFifo:
		typ = unix.S_IFIFO
	default:
		fs.problem(h.Name, "entries of type %q are unknown", h.Typeflag)
		return nil
	}
	n := fs.newNode(typ)
	n.entry = fs.entries
	switch typ {
	case unix.S_IFREG:
		n.size, n.off = h.Size, off
		if h.Typeflag == tar.TypeGNUSparse || h.PAXRecords["GNU.sparse.map"] != "" || h.PAXRecords["GNU.sparse.major"] != "" {
			n.off = -1
		}
	case unix.S_IFLNK:
		n.target, n.size = h.Linkname, int64(len(h.Linkname))
	case unix.S_IFCHR, unix.S_IFBLK:
		n.rdev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	}
	fs.setAttrs(n, h)
	return n
}

// linked returns what a hard link leads to, with one more name.
func (fs *FS) linked(h *tar.Header) *node {
	n := fs.root
	for name := range strings.SplitSeq(path.Clean("/" + h.Linkname)[1:], "/") {
		if n = n.children[name]; n == nil {
			break
		}
	}
	if n == nil || n.isDir() {
		fs.problem(h.Name, "a hard link to %q, which is no file that came before", h.Linkname)
		return nil
	}
	n.nlink++
	return n
}

func (fs *FS) setAttrs(n *node, h *tar.Header) {
	n.mode = n.mode&unix.S_IFMT | uint32(h.Mode)&0o7777
	n.uid, n.gid = uint32(h.Uid), uint32(h.Gid)
	n.mtime = layer.Time{Sec: h.ModTime.Unix(), Nsec: uint32(h.ModTime.Nanosecond())}
	n.xattrs = nil
	for k, v := range h.PAXRecords {
		attr, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		if !ok || attr == "" {
			continue
		}
		if fs.src.opt.Image {
			for _, p := range []whiteout.Prefix{whiteout.Trusted, whiteout.User} {
				if stored, fits := p.Escape(attr); fits {
					attr = stored
				} else {
					fs.problem(h.Name, "xattr %q is too long", attr)
					attr = ""
					break
				}
			}
		}
		if attr == "" || len(attr) > whiteout.XattrNameMax || len(v) > 65536 {
			continue
		}
		if n.xattrs == nil {
			n.xattrs = map[string]string{}
		}
		n.xattrs[attr] = v
	}
}
