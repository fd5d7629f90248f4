package union_test

import (
	"math/rand/v2"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/union"
	"github.com/laminafs/lamina/whiteout"
)

// maxNames is the size of the tree at which more is removed than made.
const maxNames = 120

// someDir returns the path of a directory: one of the tree, or one that is open.
func someDir(w *world, r *rand.Rand) (string, *modelFile) {
	path, f := "", w.model.root
	if r.IntN(8) == 0 {
		for i := range w.slots {
			if n := w.slots[i].node; n != nil && n.file.isDir() {
				path, f = "@"+strconv.Itoa(i), n.file
				break
			}
		}
	}
	for depth := 0; depth < 4 && r.IntN(4) > 0; depth++ {
		var dirs []modelEntry
		for _, k := range f.kids {
			if k.file.isDir() {
				dirs = append(dirs, k)
			}
		}
		if len(dirs) == 0 {
			break
		}
		k := dirs[r.IntN(len(dirs))]
		path, f = path+"/"+k.name, k.file
	}
	return path, f
}

// some returns the path of something that suits, mostly; else of anything.
func some(w *world, r *rand.Rand, suits func(*modelFile) bool) string {
	for range 6 {
		path, d := someDir(w, r)
		if len(d.kids) == 0 {
			continue
		}
		k := d.kids[r.IntN(len(d.kids))]
		if suits(k.file) || r.IntN(25) == 0 {
			return path + "/" + k.name
		}
	}
	path, _ := someDir(w, r)
	return path + "/" + randomName(r)
}

func anything(*modelFile) bool { return true }

func drawAny(w *world, r *rand.Rand, s *step) { s.a = orSlot(w, r, some(w, r, anything)) }

func drawFile(w *world, r *rand.Rand, s *step) {
	s.a = some(w, r, func(f *modelFile) bool { return !f.isDir() })
}

func drawDir(w *world, r *rand.Rand, s *step) {
	s.a = some(w, r, (*modelFile).isDir)
	if s.verb != "rmdir" && r.IntN(10) == 0 {
		s.a = ""
	}
}

// orSlot takes an open file instead, at times.
func orSlot(w *world, r *rand.Rand, path string) string {
	if i := r.IntN(len(w.slots)); r.IntN(3) == 0 && w.slots[i].node != nil {
		return "@" + strconv.Itoa(i)
	}
	return path
}

func drawNew(w *world, r *rand.Rand, s *step) {
	if w.model.count() > maxNames {
		if s.verb = "unlink"; r.IntN(3) == 0 {
			s.verb = "rmdir"
		}
		verbs[s.verb].draw(w, r, s)
		return
	}
	path, _ := someDir(w, r)
	s.a = path + "/" + newName(r)
	s.mode, s.umask = randomMode(r), []uint32{0, 0o22, 0o77}[r.IntN(3)]
	s.uid, s.gid = uint32(r.IntN(2)*1000), uint32(r.IntN(2)*1000)
	s.slot = r.IntN(12) - 6 // opened by create if it is one
	switch s.verb {
	case "mknod":
		s.mode |= []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFREG}[r.IntN(5)]
		s.n = int64(unix.Mkdev(uint32(r.IntN(2)), uint32(r.IntN(3))))
	case "mkdir":
		s.mode &= 0o1777 // as vfs_mkdir does
	case "symlink":
		s.text = []string{"x", "../a/b", strings.Repeat("t", 200)}[r.IntN(3)]
	}
}

func newName(r *rand.Rand) string {
	if r.IntN(100) == 0 {
		return []string{".wh.a", ".wh..wh.plnk", strings.Repeat("m", 256)}[r.IntN(3)]
	}
	return randomName(r)
}

func (s *step) caller() union.Caller { return union.Caller{UID: s.uid, GID: s.gid, Umask: s.umask} }

func (s *step) birth(typ uint32) modelBirth {
	return modelBirth{typ: typ, mode: s.mode & 0o7777, uid: s.uid, gid: s.gid, umask: s.umask, target: s.text}
}

// made compares the making of a file and notes it.
func (w *world) made(s *step, b modelBirth, call func(p *union.Node, name string) (*union.Node, union.Attr, error)) *kdentry {
	d, name, ok := w.in(s, s.a)
	if !ok {
		return nil
	}
	lo := w.now()
	n, a, err := call(w.kern.use(d.node), name)
	f, errno := w.model.make(d.node.file, name, b, w.since(lo))
	w.same(s, errno, err)
	if err != nil {
		return nil
	}
	e := w.kern.enter(d, name, w.kern.known(n.ID(), f))
	w.attr(s.a, f, &a)
	return e
}

func doMkdir(w *world, s *step) {
	w.made(s, s.birth(unix.S_IFDIR), func(p *union.Node, name string) (*union.Node, union.Attr, error) {
		return w.fs.Mkdir(p, name, s.mode, s.caller())
	})
}

func doCreate(w *world, s *step) {
	e := w.made(s, s.birth(unix.S_IFREG), func(p *union.Node, name string) (*union.Node, union.Attr, error) {
		return w.fs.Create(p, name, s.mode, s.caller())
	})
	if e != nil && s.slot >= 0 {
		w.open(s.slot, e)
	}
}

func doMknod(w *world, s *step) {
	b := s.birth(s.mode & unix.S_IFMT)
	b.rdev = uint64(s.n)
	w.made(s, b, func(p *union.Node, name string) (*union.Node, union.Attr, error) {
		return w.fs.Mknod(p, name, s.mode, uint64(s.n), s.caller())
	})
}

func doSymlink(w *world, s *step) {
	b := s.birth(unix.S_IFLNK)
	b.umask = 0
	w.made(s, b, func(p *union.Node, name string) (*union.Node, union.Attr, error) {
		return w.fs.Symlink(p, name, s.text, s.caller())
	})
}

func drawTmpfile(w *world, r *rand.Rand, s *step) {
	drawNew(w, r, s)
	if s.verb == "tmpfile" {
		s.a, s.slot = s.a[:strings.LastIndexByte(s.a, '/')], r.IntN(len(w.slots))
	}
}

func doTmpfile(w *world, s *step) {
	e, ok := w.at(s, s.a)
	if !ok || e.node.file.dead || s.slot < 0 {
		return
	}
	lo, d := w.now(), e.node.file
	n, a, err := w.fs.Tmpfile(w.kern.use(e.node), s.mode, s.caller())
	switch {
	case !d.isDir():
		w.same(s, unix.ENOTDIR, err)
	case w.conf.mem.NoTmpFile:
		w.same(s, unix.EOPNOTSUPP, err)
	default:
		w.same(s, 0, err)
	}
	if err != nil {
		return
	}
	f := w.model.born(d, s.birth(unix.S_IFREG), w.since(lo))
	f.tmpfile = true
	w.attr("a file without a name", f, &a)
	w.open(s.slot, &kdentry{node: w.kern.known(n.ID(), f)})
}

func drawLink(w *world, r *rand.Rand, s *step) {
	drawFile(w, r, s)
	s.a = orSlot(w, r, s.a)
	path, _ := someDir(w, r)
	s.b = path + "/" + newName(r)
}

func doLink(w *world, s *step) {
	e, ok := w.at(s, s.a)
	if !ok {
		return
	}
	d, name, ok := w.in(s, s.b)
	f := e.node.file
	if !ok || f.names == 0 && !f.tmpfile {
		return // the kernel answers ENOENT itself
	}
	if !f.isRegular() && w.conf.opt.Index && w.conf.opt.Prefix == whiteout.User {
		w.keep("links without xattrs")
		return
	}
	lo := w.now()
	a, err := w.fs.Link(w.kern.use(e.node), w.kern.use(d.node), name)
	w.same(s, w.model.link(f, d.node.file, name, w.since(lo)), err)
	if err == nil {
		w.kern.enter(d, name, w.kern.known(e.node.id, f)) // the reply gives a reference
		w.attr(s.a, f, &a)
	}
}

func doUnlink(w *world, s *step) { w.remove(s, w.fs.Unlink, w.model.unlink) }
func doRmdir(w *world, s *step)  { w.remove(s, w.fs.Rmdir, w.model.rmdir) }

func (w *world) remove(s *step, call func(*union.Node, string) error, model func(*modelFile, string, when) unix.Errno) {
	d, name, ok := w.in(s, s.a)
	if !ok {
		return
	}
	lo := w.now()
	err := call(w.kern.use(d.node), name)
	w.same(s, model(d.node.file, name, w.since(lo)), err)
	if err == nil {
		w.unstable(d.node.file, name)
		if e := d.kids[name]; e != nil {
			w.kern.drop(e, s.seed%2 == 0)
		}
	}
}

// unstable notes for who is reading a directory that a name was away.
func (w *world) unstable(d *modelFile, name string) {
	for i := range w.slots {
		if n := w.slots[i].node; n != nil && n.file == d {
			delete(w.slots[i].stable, name)
			delete(w.slots[i].seen, name)
		}
	}
}

func drawRename(w *world, r *rand.Rand, s *step) {
	s.a = some(w, r, anything)
	s.b = some(w, r, anything)
	if r.IntN(2) == 0 {
		path, _ := someDir(w, r)
		s.b = path + "/" + newName(r)
	}
	if r.IntN(4) == 0 { // in one directory
		s.b = s.a[:strings.LastIndexByte(s.a, '/')+1] + randomName(r)
	}
	switch r.IntN(8) {
	case 0:
		s.flags = unix.RENAME_NOREPLACE
	case 1, 2:
		s.flags = unix.RENAME_EXCHANGE
	case 3:
		if r.IntN(4) == 0 {
			s.flags = unix.RENAME_WHITEOUT
		}
	}
}

func doRename(w *world, s *step) {
	od, oname, ok := w.in(s, s.a)
	if !ok {
		return
	}
	nd, nname, ok := w.in(s, s.b)
	if !ok {
		return
	}
	src, dst, errno := w.model.mayRename(od.node.file, oname, nd.node.file, nname, s.flags)
	exchange := s.flags&unix.RENAME_EXCHANGE != 0
	if exchange && src != nil && src == dst {
		return // the kernel has nothing to do
	}
	lo := w.now()
	err := w.fs.Rename(w.kern.use(od.node), oname, w.kern.use(nd.node), nname, s.flags)
	if src != nil && errnoOf(err) == unix.EXDEV && (mayStay(w, src) || exchange && mayStay(w, dst)) {
		if w.keep("EXDEV"); !mayStay(w, src) {
			src.touch()
		}
		return
	}
	if exchange && errno == 0 && w.conf.mem.NoRenameFlags {
		errno = unix.EINVAL
	}
	w.same(s, errno, err)
	if err != nil {
		copiedUp(src, dst, exchange, nd.node.file.dead)
		return
	}
	w.model.rename(od.node.file, oname, nd.node.file, nname, s.flags, w.since(lo))
	if src == dst {
		return
	}
	w.unstable(od.node.file, oname)
	w.unstable(nd.node.file, nname)
	w.kern.moved(od, oname, nd, nname, s.flags)
}

// copiedUp notes that a rename which fails late has copied up what would have
// moved.
func copiedUp(src, dst *modelFile, exchange, dead bool) {
	switch {
	case src == nil:
	case dead: // or not so late
		src.changed = true
		if src.shared {
			src.hidden = -1
			src.renumber()
		}
	default:
		if src.touch(); exchange && dst != nil {
			dst.touch()
		}
	}
}

// mayStay reports whether a directory may be one that only a redirect can move.
func mayStay(w *world, f *modelFile) bool {
	return f != nil && f.isDir() && !f.made && !w.conf.opt.Redirect
}

func drawOpen(w *world, r *rand.Rand, s *step) {
	s.a, s.slot = some(w, r, anything), r.IntN(len(w.slots))
	if r.IntN(3) == 0 {
		s.flags = []uint{unix.O_WRONLY, unix.O_WRONLY | unix.O_TRUNC}[r.IntN(2)]
	}
}

// doOpen opens a file; with flags as the passthrough profile does for writing.
func doOpen(w *world, s *step) {
	e, ok := w.at(s, s.a)
	if !ok {
		return
	}
	f := e.node.file
	if s.flags != 0 && f.isRegular() {
		lo, trunc := w.now(), s.flags&unix.O_TRUNC != 0
		w.same(s, 0, w.fs.PrepareWrite(w.kern.use(e.node), trunc))
		if f.touch(); trunc {
			f.written(false, w.since(lo))
			f.resize(0)
		}
	}
	w.open(s.slot, e)
}

// open puts a file into a slot.
func (w *world) open(i int, e *kdentry) {
	i %= len(w.slots)
	e.opens++
	e.node.opens++
	w.close(i)
	w.slots[i] = slot{entry: e, node: e.node}
}

func (w *world) close(i int) {
	s := w.slots[i]
	if s.node == nil {
		return
	}
	w.slots[i] = slot{}
	s.entry.opens--
	s.node.opens--
	w.kern.evict(s.node)
}

func drawSlot(w *world, r *rand.Rand, s *step) {
	s.slot, s.n = r.IntN(len(w.slots)), 1+r.Int64N(6)
	if s.verb != "readdir" {
		return
	}
	for i := range w.slots {
		if n := w.slots[i].node; n != nil && n.file.isDir() {
			s.slot = i
			return
		}
	}
	s.verb = "open"
	s.a, _ = someDir(w, r)
}

func doClose(w *world, s *step) { w.close(s.slot) }

// doReaddir reads a few entries more of an open directory.
func doReaddir(w *world, s *step) {
	o := &w.slots[s.slot]
	if o.node == nil || !o.node.file.isDir() {
		return
	}
	f := o.node.file
	if o.stable == nil {
		o.pos, o.stable, o.seen = 0, map[string]bool{}, map[string]bool{}
		for _, k := range f.kids {
			o.stable[k.name] = true
		}
	}
	left := s.n
	err := w.fs.ReadDir(w.kern.use(o.node), o.pos, func(l union.Listed) bool {
		if left == 0 {
			return false
		}
		left--
		if f.child(l.Name) == nil || o.seen[l.Name] {
			w.failf("%v: lists %q; exists: %v, listed before: %v", s, l.Name, f.child(l.Name) != nil, o.seen[l.Name])
		}
		o.seen[l.Name], o.pos = true, l.Pos
		return true
	})
	w.same(s, 0, err)
	if left == 0 {
		return
	}
	for name := range o.stable {
		if !o.seen[name] {
			w.failf("%v: to the end %q was not listed", s, name)
		}
	}
	o.stable = nil
}

func doList(w *world, s *step) {
	if e, ok := w.at(s, s.a); ok && e.node.file.isDir() {
		w.looksListed(s.a, e)
	}
}

// doForget makes the kernel forget what is not in use.
func doForget(w *world, s *step) {
	if e, ok := w.at(s, s.a); ok {
		w.kern.shrink(e, s.seed%3 == 1)
	}
}

func doStat(w *world, s *step) {
	e, ok := w.at(s, s.a)
	if !ok {
		return
	}
	w.look(s.a, e.node.file, e.node)
	if _, err := w.kern.lookup(e, "x", nil, true); !e.node.file.isDir() {
		w.same(s, unix.ENOTDIR, err)
	}
}
