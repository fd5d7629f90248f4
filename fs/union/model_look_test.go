package union_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/union"
)

// lookAll compares the whole tree. Afterwards the kernel knows all of it.
func (w *world) lookAll(seed uint64) {
	inos := map[uint64]*modelFile{}
	r := rand.New(rand.NewPCG(seed, 3))
	var down func(path string, e *kdentry)
	down = func(path string, e *kdentry) {
		f := e.node.file
		w.look(path, f, e.node)
		ino := *w.inoOf(f)
		if other := inos[ino]; other != nil && other != f && !f.shared && !other.shared {
			w.failf("%s: inode number %d is that of another file", path, ino)
		}
		inos[ino] = f
		if !f.isDir() {
			return
		}
		if r.IntN(2) == 0 {
			w.lookAbsent(path, e)
		}
		w.looksListed(path, e)
		for _, k := range slices.Clone(f.kids) {
			c, err := w.kern.lookup(e, k.name, k.file, r.IntN(2) == 0)
			if err != nil {
				w.failf("lookup of %q in %s: %v", k.name, path, err)
			}
			down(path+"/"+k.name, c)
		}
	}
	down("", w.kern.root)
	w.steps = 0
}

func (w *world) lookAbsent(path string, e *kdentry) {
	for _, name := range append(modelNames, ".wh.a", modelLongName) {
		if e.node.file.child(name) != nil {
			continue
		}
		if _, err := w.kern.lookup(e, name, nil, true); errnoOf(err) != unix.ENOENT {
			w.failf("lookup of %q in %s: %v, want %v", name, path, err, unix.ENOENT)
		}
	}
}

// looksListed compares a listing.
func (w *world) looksListed(path string, e *kdentry) {
	un, f := w.kern.use(e.node), e.node.file
	seen := map[string]bool{}
	err := w.fs.ReadDir(un, 0, func(l union.Listed) bool {
		c := f.child(l.Name)
		switch {
		case c == nil:
			w.failf("%s lists %q, which does not exist", path, l.Name)
		case seen[l.Name]:
			w.failf("%s lists %q twice", path, l.Name)
		case l.Type != c.typ:
			w.failf("%s lists %q as type %#o, it is %#o", path, l.Name, l.Type, c.typ)
		case !w.constant(c) && (c.lowered || c.linked):
			w.keep("d_ino of links")
		case *w.inoOf(c) != 0 && l.Ino != *w.inoOf(c):
			w.failf("%s lists %q as inode %d, it is %d", path, l.Name, l.Ino, *w.inoOf(c))
		}
		seen[l.Name] = true
		return true
	})
	if err != nil {
		w.failf("list %s: %v", path, err)
	}
	if len(seen) != len(f.kids) {
		w.failf("%s lists %q, want %d names", path, slices.Sorted(maps.Keys(seen)), len(f.kids))
	}
	if up := w.fs.ParentIno(un); !f.dead && f.parent != nil && f.parent.ino != 0 && up != f.parent.ino {
		w.failf("%s lists .. as inode %d, it is %d", path, up, f.parent.ino)
	}
}

// look compares all that a user can see of one file.
func (w *world) look(path string, f *modelFile, n *knode) {
	un := w.kern.use(n)
	a, err := w.fs.GetAttr(un)
	if err != nil {
		w.failf("stat %s: %v", path, err)
	}
	w.attr(path, f, &a)
	switch f.typ {
	case unix.S_IFREG:
		p := make([]byte, len(f.data)+1)
		k, err := w.fs.Read(un, p, 0)
		if err != nil || !bytes.Equal(p[:k], f.data) {
			w.failf("%s holds %s, %v, want %s", path, brief(p[:k]), err, brief(f.data))
		}
	case unix.S_IFLNK:
		if target, err := w.fs.Readlink(un); err != nil || target != f.target {
			w.failf("%s leads to %q, %v, want %q", path, target, err, f.target)
		}
	}
	if w.conf.opt.NoXattrs {
		return
	}
	w.lookXattrs(path, f, un)
}

func (w *world) lookXattrs(path string, f *modelFile, un *union.Node) {
	var buf [1024]byte
	k, err := w.fs.Listxattr(un, buf[:])
	if err != nil {
		w.failf("listxattr %s: %v", path, err)
	}
	names := strings.FieldsFunc(string(buf[:k]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	if want := slices.Sorted(maps.Keys(f.xattrs)); !slices.Equal(names, want) {
		w.failf("%s has the xattrs %q, want %q", path, names, want)
	}
	for _, name := range names {
		k, err := w.fs.Getxattr(un, name, buf[:])
		if err != nil || string(buf[:k]) != f.xattrs[name] {
			w.failf("%s has %s=%q, %v, want %q", path, name, buf[:k], err, f.xattrs[name])
		}
	}
}

// brief shows content by its beginning and by where it changes.
func brief(p []byte) string {
	if len(p) <= 60 {
		return fmt.Sprintf("%q", p)
	}
	return fmt.Sprintf("%q… (%d bytes, sum %x)", p[:40], len(p), checksum(p))
}

func checksum(p []byte) (sum uint32) {
	for _, c := range p {
		sum = sum*16777619 ^ uint32(c)
	}
	return sum
}

// attr compares attributes.
func (w *world) attr(path string, f *modelFile, a *union.Attr) {
	want := func(what string, got, want any) {
		if got != want {
			w.failf("%s has %s %v, want %v", path, what, got, want)
		}
	}
	want("type", fmt.Sprintf("%#o", a.Type()), fmt.Sprintf("%#o", f.typ))
	want("mode", fmt.Sprintf("%#o", a.Mode&0o7777), fmt.Sprintf("%#o", f.mode))
	want("owner", [2]uint32{a.UID, a.GID}, [2]uint32{f.uid, f.gid})
	switch f.typ {
	case unix.S_IFREG:
		want("size", a.Size, int64(len(f.data)))
	case unix.S_IFLNK:
		want("size", a.Size, int64(len(f.target)))
	case unix.S_IFCHR, unix.S_IFBLK:
		want("rdev", a.Rdev, f.rdev)
	}
	if was := f.mtime; !f.mtime.matches(a.Mtime) {
		w.failf("%s has mtime %v, want %v", path, a.Mtime, was)
	}
	if was := f.atime; !f.atime.matches(a.Atime) {
		w.failf("%s has atime %v, want %v", path, a.Atime, was)
	}
	w.nlink(path, f, int(a.Nlink))
	known := w.inoOf(f)
	if *known == 0 {
		*known = a.Ino
	}
	want("inode number", a.Ino, *known)
}

// inoOf returns where the inode number of a file is kept: with the file, or
// where the union cannot note it, with what the kernel knows of the file.
func (w *world) inoOf(f *modelFile) *uint64 {
	switch {
	case w.constant(f):
		return &f.ino
	case f.node != nil:
		return &f.node.ino
	}
	return new(uint64)
}

func (w *world) nlink(path string, f *modelFile, got int) {
	switch {
	case w.conf.opt.StaticNlink:
		if got != 1 {
			w.failf("%s has %d links, want 1", path, got)
		}
	case f.dead:
	case f.isDir():
		subs := 0
		for _, k := range f.kids {
			if k.file.isDir() {
				subs++
			}
		}
		if got != 1 && got != 2+subs {
			w.failf("%s has %d links, want 1 or %d", path, got, 2+subs)
		}
	case f.hidden < 0 && got >= f.names:
		f.hidden = got - f.names
	case !slices.Contains(f.nlink(), got):
		w.failf("%s has %d links, want %d", path, got, f.nlink())
	}
}

// since is the time of a change that began at lo.
func (w *world) since(lo layer.Time) when { return when{lo, w.now()} }
