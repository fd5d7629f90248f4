package union_test

import (
	"bytes"
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/union"
)

// maxModelSize bounds how long files grow.
const maxModelSize = 1 << 16

func drawData(w *world, r *rand.Rand, s *step) {
	s.a = orSlot(w, r, some(w, r, (*modelFile).isRegular))
	s.kill = r.IntN(3) == 0
	switch r.IntN(4) {
	case 0:
		s.off = r.Int64N(20000)
	case 1:
		s.off = 4096 * r.Int64N(4)
	case 2:
		s.off = r.Int64N(30)
	}
	if s.verb == "write" {
		s.text = randomText(r)
	}
	s.flags = uint(r.IntN(2))
}

func doRead(w *world, s *step) {
	f, n, ok := w.target(s)
	if !ok || !f.isRegular() {
		return
	}
	p := make([]byte, 1+s.seed%5000)
	off := int64(s.seed % 3 * (s.seed % 7000))
	k, err := w.fs.Read(n, p, off)
	w.same(s, 0, err)
	want := f.data[min(off, int64(len(f.data))):]
	if want = want[:min(len(want), len(p))]; !bytes.Equal(p[:k], want) {
		w.failf("%v: at %d %s, want %s", s, off, brief(p[:k]), brief(want))
	}
}

func doWrite(w *world, s *step) {
	f, n, ok := w.target(s)
	if !ok || !f.isRegular() {
		return
	}
	lo := w.now()
	k, err := w.fs.Write(n, []byte(s.text), s.off, s.kill)
	w.same(s, 0, err)
	if k != len(s.text) {
		w.failf("%v: %d bytes written of %d", s, k, len(s.text))
	}
	f.written(s.kill, w.since(lo))
	f.data = bytes.Clone(f.data)
	f.write([]byte(s.text), s.off)
}

func doTruncate(w *world, s *step) {
	f, n, ok := w.target(s)
	if !ok {
		return
	}
	lo := w.now()
	a, err := w.fs.SetAttr(n, union.Change{Size: &s.off, KillPriv: s.kill})
	switch {
	case f.isDir():
		w.same(s, unix.EISDIR, err)
		return
	case !f.isRegular():
		w.same(s, unix.EINVAL, err)
		return
	}
	w.same(s, 0, err)
	f.written(s.kill, w.since(lo))
	f.resize(s.off)
	w.attr(s.a, f, &a)
}

func drawFallocate(w *world, r *rand.Rand, s *step) {
	drawData(w, r, s)
	s.n = 1 + r.Int64N(9000)
	if r.IntN(2) == 0 {
		s.n = 4096 * (1 + r.Int64N(3))
	}
	s.mode = []uint32{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE,
		unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE}[r.IntN(6)]
}

func doFallocate(w *world, s *step) {
	f, n, ok := w.target(s)
	if !ok || !f.isRegular() || int64(len(f.data))+s.n > maxModelSize {
		return
	}
	lo := w.now()
	err := w.fs.Fallocate(n, s.mode, s.off, s.n, s.kill)
	end, size := s.off+s.n, int64(len(f.data))
	aligned := s.off%4096 == 0 && s.n%4096 == 0
	var errno unix.Errno
	switch {
	case s.mode == unix.FALLOC_FL_COLLAPSE_RANGE && (!aligned || end >= size), s.mode == unix.FALLOC_FL_INSERT_RANGE && (!aligned || s.off >= size):
		errno = unix.EINVAL
	}
	w.same(s, errno, err)
	f.written(s.kill, w.since(lo)) // ext4 also says so when it fails
	if errno != 0 {
		return
	}
	switch s.mode {
	case unix.FALLOC_FL_COLLAPSE_RANGE:
		f.data = append(bytes.Clone(f.data[:s.off]), f.data[end:]...)
	case unix.FALLOC_FL_INSERT_RANGE:
		f.data = append(append(bytes.Clone(f.data[:s.off]), make([]byte, s.n)...), f.data[s.off:]...)
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE:
		f.clear(s.off, end)
	case unix.FALLOC_FL_ZERO_RANGE:
		f.clear(s.off, end)
		f.resize(max(size, end))
	case 0:
		f.resize(max(size, end))
	}
}

func drawCopyRange(w *world, r *rand.Rand, s *step) {
	drawData(w, r, s)
	s.b = some(w, r, (*modelFile).isRegular)
	s.off2, s.n = s.off, 1+r.Int64N(9000)
	s.off = r.Int64N(5000)
}

// doCopyRange copies from one file to another, by reading and writing where the
// layers cannot.
func doCopyRange(w *world, s *step) {
	f, n, ok := w.target(s)
	if !ok || !f.isRegular() {
		return
	}
	e, ok := w.at(s, s.b)
	if !ok || !e.node.file.isRegular() {
		return
	}
	g, un := e.node.file, w.kern.use(e.node)
	lo, size := w.now(), int64(len(f.data))
	count := max(0, min(s.n, size-s.off))
	k, err := w.fs.CopyRange(n, un, s.off, s.off2, int(s.n), s.kill)
	if w.conf.xdev && errnoOf(err) == unix.EXDEV {
		w.keep("copy_file_range")
		p := make([]byte, s.n)
		if k, err = w.fs.Read(n, p, s.off); k > 0 {
			k, err = w.fs.Write(un, p[:k], s.off2, s.kill)
		}
	}
	g.touch()
	if s.kill {
		g.dropPriv()
	}
	if f == g && s.off < s.off2+count && s.off2 < s.off+count {
		w.same(s, unix.EINVAL, err)
		return
	}
	w.same(s, 0, err)
	if int64(k) != count {
		w.failf("%v: %d bytes copied, want %d", s, k, count)
	}
	if k > 0 {
		p := bytes.Clone(f.data[s.off : s.off+count])
		g.written(s.kill, w.since(lo))
		g.data = bytes.Clone(g.data)
		g.write(p, s.off2)
	}
}

// doSeek wants holes where there is nothing but zeros.
func doSeek(w *world, s *step) {
	f, n, ok := w.target(s)
	if !ok || !f.isRegular() {
		return
	}
	size := int64(len(f.data))
	whence := []int{unix.SEEK_DATA, unix.SEEK_HOLE}[s.flags%2]
	pos, err := w.fs.Seek(n, s.off, whence)
	if err != nil {
		w.same(s, unix.ENXIO, err)
		if whence == unix.SEEK_HOLE && s.off < size || s.off < size && len(bytes.Trim(f.data[s.off:], "\x00")) > 0 {
			w.failf("%v: no data found, but there is some", s)
		}
		return
	}
	if s.off >= size || pos < s.off || pos > size {
		w.failf("%v: found %d in %d bytes", s, pos, size)
	}
	if whence == unix.SEEK_DATA && len(bytes.Trim(f.data[s.off:pos], "\x00")) > 0 {
		w.failf("%v: data at %d, but there is some before", s, pos)
	}
}

func doFsync(w *world, s *step) {
	if _, n, ok := w.target(s); ok && (n.IsDir() || n.Type() == unix.S_IFREG) {
		w.same(s, 0, w.fs.Fsync(n, s.seed%2 == 0))
	}
}

// doChattr sets the flags that a file has, which copies it up.
func doChattr(w *world, s *step) {
	f, n, ok := w.target(s)
	if !ok || !f.isDir() && !f.isRegular() || f.dead {
		return
	}
	flags, err := w.fs.Flags(n)
	w.same(s, 0, err)
	w.same(s, 0, w.fs.SetFlags(n, flags))
	f.touch()
}

// Attributes that a setattr step sets.
const (
	setMode = 1 << iota
	setUID
	setGID
	setMtime
	setAtime
	setNow
)

func drawSetattr(w *world, r *rand.Rand, s *step) {
	drawAny(w, r, s)
	s.flags = uint(1 + r.IntN(63))
	if r.IntN(2) == 0 {
		s.flags = 1 << r.IntN(5)
	}
	s.mode, s.uid, s.gid, s.n = randomMode(r), uint32(r.IntN(3)*500), uint32(r.IntN(3)*500), 1+r.Int64N(1e9)
	s.kill = r.IntN(4) == 0
}

func doSetattr(w *world, s *step) {
	f, n, ok := w.target(s)
	if !ok {
		return
	}
	has := func(what uint) bool { return s.flags&what != 0 }
	if f.typ == unix.S_IFLNK && has(setMode) {
		return // the kernel refuses it
	}
	c := union.Change{KillPriv: s.kill}
	if has(setMode) {
		c.Mode = &s.mode
	}
	if has(setUID) {
		c.UID = &s.uid
	}
	if has(setGID) {
		c.GID = &s.gid
	}
	t := &layer.Time{Sec: s.n, Nsec: 5}
	if has(setNow) {
		t = &layer.Time{Nsec: unix.UTIME_NOW}
	}
	if has(setMtime) {
		c.Mtime = t
	}
	if has(setAtime) {
		c.Atime = t
	}
	lo := w.now()
	a, err := w.fs.SetAttr(n, c)
	if f.dead && errnoOf(err) == unix.ENOENT {
		w.keep("removed directory")
		return
	}
	w.same(s, 0, err)
	f.touch()
	if has(setUID) || has(setGID) {
		if f.dropPriv(); !f.isDir() {
			delete(f.xattrs, "security.capability")
		}
	}
	if has(setUID) {
		f.uid = s.uid
	}
	if has(setGID) {
		f.gid = s.gid
	}
	if has(setMode) {
		f.mode = s.mode
	} else if s.kill && f.typ != unix.S_IFLNK {
		f.dropPriv()
	}
	at := exactly(*t)
	if has(setNow) {
		at = w.since(lo)
	}
	if has(setMtime) {
		f.mtime = at
	}
	if has(setAtime) {
		f.atime = at
	}
	w.attr(s.a, f, &a)
}

// modelXattrs are the xattrs that are set, among them those of an overlay
// within this one.
var modelXattrs = []string{"user.x", "user.y", "trusted.y", "trusted.overlay.opaque", "user.overlay.redirect", "security.capability", "security.z"}

func drawXattr(w *world, r *rand.Rand, s *step) {
	drawAny(w, r, s)
	s.name, s.text = modelXattrs[r.IntN(len(modelXattrs))], randomText(r)[:1]+"v"
	if s.name == "security.capability" {
		s.text = capabilityValue
	}
	if r.IntN(3) == 0 {
		s.flags = []uint{unix.XATTR_CREATE, unix.XATTR_REPLACE}[r.IntN(2)]
	}
}

// mayHave reports whether a file can have an xattr: the kernel asks nobody about
// user xattrs of what is neither a file nor a directory (xattr_permission).
func (f *modelFile) mayHave(name string) bool {
	return f.isDir() || f.isRegular() || name[:5] != "user."
}

func (w *world) xattrTarget(s *step) (f *modelFile, n *union.Node, ok bool) {
	f, n, ok = w.target(s)
	return f, n, ok && f.mayHave(s.name)
}

func doSetxattr(w *world, s *step) {
	f, n, ok := w.xattrTarget(s)
	if !ok {
		return
	}
	err := w.fs.Setxattr(n, s.name, []byte(s.text), int(s.flags), s.kill)
	if w.conf.opt.NoXattrs {
		w.same(s, unix.EOPNOTSUPP, err)
		return
	}
	if f.dead && errnoOf(err) == unix.ENOENT {
		w.keep("removed directory")
		return
	}
	f.touch()
	switch _, has := f.xattrs[s.name]; {
	case has && s.flags&unix.XATTR_CREATE != 0:
		w.same(s, unix.EEXIST, err)
	case !has && s.flags&unix.XATTR_REPLACE != 0:
		w.same(s, unix.ENODATA, err)
	default:
		w.same(s, 0, err)
		f.xattrs[s.name] = s.text
	}
}

func doGetxattr(w *world, s *step) {
	f, n, ok := w.xattrTarget(s)
	if !ok {
		return
	}
	var buf [64]byte
	k, err := w.fs.Getxattr(n, s.name, buf[:])
	switch want, has := f.xattrs[s.name]; {
	case w.conf.opt.NoXattrs:
		w.same(s, unix.EOPNOTSUPP, err)
	case !has:
		w.same(s, unix.ENODATA, err)
	default:
		w.same(s, 0, err)
		if string(buf[:k]) != want {
			w.failf("%v: %q, want %q", s, buf[:k], want)
		}
	}
}

func doRemovexattr(w *world, s *step) {
	f, n, ok := w.xattrTarget(s)
	if !ok {
		return
	}
	err := w.fs.Removexattr(n, s.name)
	if f.dead && errnoOf(err) == unix.ENOENT {
		w.keep("removed directory")
		return
	}
	switch _, has := f.xattrs[s.name]; {
	case w.conf.opt.NoXattrs:
		w.same(s, unix.EOPNOTSUPP, err)
	case !has:
		w.same(s, unix.ENODATA, err)
	default:
		w.same(s, 0, err)
		f.touch()
		delete(f.xattrs, s.name)
	}
}
