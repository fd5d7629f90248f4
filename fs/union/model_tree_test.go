package union_test

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// A modelFile is a file of the model, of any type: a plain inode. It knows
// nothing of layers but what a user can see of them.
type modelFile struct {
	typ, mode, uid, gid uint32
	rdev                uint64
	data                []byte
	target              string
	xattrs              map[string]string
	mtime, atime        when

	names int // that lead here
	// hidden is what the link count has beyond the names: of a lower inode with
	// names that other layers hide. -1: not known yet.
	hidden int
	// shared tells that this is one of several names of a lower inode which are
	// not kept together (index=off): they look like one file until the first
	// change of each.
	shared  bool
	made    bool // made through the union since the upper is what it is
	changed bool // came from a layer and was changed, so it is copied up
	lowered bool // came from a layer with several names
	linked  bool // got another name
	tmpfile bool // has never had a name

	kids   []modelEntry // of a directory
	parent *modelFile   // of a directory
	dead   bool         // a directory that was removed

	ino  uint64 // 0: not known
	node *knode // what the kernel knows it by
}

type modelEntry struct {
	name string
	file *modelFile
}

func (f *modelFile) isDir() bool     { return f.typ == unix.S_IFDIR }
func (f *modelFile) isRegular() bool { return f.typ == unix.S_IFREG }

func (f *modelFile) child(name string) *modelFile {
	for _, e := range f.kids {
		if e.name == name {
			return e.file
		}
	}
	return nil
}

// enter gives c a name in directory f.
func (f *modelFile) enter(name string, c *modelFile, now when) {
	f.kids = append(f.kids, modelEntry{name, c})
	c.names++
	c.tmpfile = false
	if c.isDir() {
		c.parent = f
	}
	f.mtime = now
}

// leave takes a name away.
func (f *modelFile) leave(name string, now when) {
	i := slices.IndexFunc(f.kids, func(e modelEntry) bool { return e.name == name })
	c := f.kids[i].file
	c.names--
	if c.isDir() {
		c.parent = nil
	}
	f.kids = slices.Delete(f.kids, i, i+1)
	f.mtime = now
}

// within reports whether f is top or lies below it.
func (f *modelFile) within(top *modelFile) bool {
	for ; f != nil; f = f.parent {
		if f == top {
			return true
		}
	}
	return false
}

// touch is the first change of a file, and any other. What was one of several
// names of a lower inode becomes a file of its own where the names are not kept
// together.
func (f *modelFile) touch() {
	f.changed = true
	if f.shared {
		f.shared, f.hidden = false, 0
		f.renumber()
	}
}

// renumber forgets the inode number.
func (f *modelFile) renumber() {
	if f.ino = 0; f.node != nil {
		f.node.ino = 0
	}
}

// written is a change of content: who may not keep suid and sgid loses them.
func (f *modelFile) written(kill bool, now when) {
	f.touch()
	if kill {
		f.dropPriv()
	}
	delete(f.xattrs, "security.capability")
	f.mtime = now
}

func (f *modelFile) dropPriv() {
	if f.isDir() {
		return
	}
	f.mode &^= unix.S_ISUID
	if f.mode&unix.S_IXGRP != 0 {
		f.mode &^= unix.S_ISGID
	}
}

func (f *modelFile) write(p []byte, off int64) {
	if need := off + int64(len(p)); need > int64(len(f.data)) {
		f.resize(need)
	}
	copy(f.data[off:], p)
}

func (f *modelFile) resize(size int64) {
	if size <= int64(len(f.data)) {
		f.data = f.data[:size:size]
		return
	}
	f.data = append(f.data[:len(f.data):len(f.data)], make([]byte, size-int64(len(f.data)))...)
}

// clear zeroes what lies in [off, end).
func (f *modelFile) clear(off, end int64) {
	end = min(end, int64(len(f.data)))
	if off < end {
		f.data = bytes.Clone(f.data)
		clear(f.data[off:end])
	}
}

// nlink returns the link counts that may be shown, the right one first.
func (f *modelFile) nlink() []int {
	if f.names == 0 && f.hidden > 0 {
		return []int{0, f.hidden}
	}
	return []int{f.names + max(f.hidden, 0)}
}

// A when is what the model knows of a time: later than lo and at most hi.
// Where both are the same it is that time. The zero value is any time.
type when struct{ lo, hi layer.Time }

func exactly(t layer.Time) when { return when{t, t} }

// matches reports whether t may be that time, and knows it from then on.
func (w *when) matches(t layer.Time) bool {
	ok := *w == when{} || w.lo == w.hi && t == w.lo || w.lo != w.hi && before(w.lo, t) && !before(w.hi, t)
	if ok {
		*w = exactly(t)
	}
	return ok
}

func before(a, b layer.Time) bool { return a.Sec < b.Sec || a.Sec == b.Sec && a.Nsec < b.Nsec }

// A modelTree is what POSIX makes of a tree, with the errors in the order in
// which the union's methods find them.
type modelTree struct {
	root *modelFile
	conf *modelConfig
}

// find walks a path.
func (m *modelTree) find(from *modelFile, path string) (*modelFile, unix.Errno) {
	for _, name := range splitPath(path) {
		if !from.isDir() {
			return nil, unix.ENOTDIR
		}
		next, err := m.lookup(from, name)
		if err != 0 {
			return nil, err
		}
		from = next
	}
	return from, 0
}

func splitPath(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

func (m *modelTree) lookup(d *modelFile, name string) (*modelFile, unix.Errno) {
	if !d.isDir() {
		return nil, unix.ENOTDIR
	}
	if err := checkModelName(name); err != 0 {
		return nil, err
	}
	if c := d.child(name); c != nil {
		return c, 0
	}
	return nil, unix.ENOENT
}

func checkModelName(name string) unix.Errno {
	switch {
	case name == "." || name == "..":
		return unix.EINVAL
	case len(name) > layer.NameMax:
		return unix.ENAMETOOLONG
	}
	return 0
}

// checkNew is the name's part of making one.
func (m *modelTree) checkNew(name string) unix.Errno {
	if err := checkModelName(name); err != 0 {
		return err
	}
	switch {
	case strings.HasPrefix(name, ".wh."):
		return unix.EPERM
	case m.conf.aufs() && len(name) > layer.NameMax-len(".wh."):
		return unix.ENAMETOOLONG
	}
	return 0
}

// birthOf describes a new file.
type modelBirth struct {
	typ, mode, uid, gid, umask uint32
	rdev                       uint64
	target                     string
}

func (m *modelTree) make(d *modelFile, name string, b modelBirth, now when) (*modelFile, unix.Errno) {
	if !d.isDir() {
		return nil, unix.ENOTDIR
	}
	if b.typ == unix.S_IFCHR && b.rdev == 0 {
		return nil, unix.EPERM // it would be a whiteout
	}
	if err := m.checkNew(name); err != 0 {
		return nil, err
	}
	switch {
	case d.dead:
		return nil, unix.ENOENT
	case d.child(name) != nil:
		return nil, unix.EEXIST
	}
	f := m.born(d, b, now)
	d.enter(name, f, now)
	return f, 0
}

// born makes a file without a name in directory d.
func (m *modelTree) born(d *modelFile, b modelBirth, now when) *modelFile {
	f := &modelFile{
		typ: b.typ, mode: b.mode &^ b.umask & 0o7777, uid: b.uid, gid: b.gid, target: b.target,
		xattrs: map[string]string{}, mtime: now, atime: now, made: true,
	}
	switch b.typ {
	case unix.S_IFCHR, unix.S_IFBLK:
		f.rdev = b.rdev
	case unix.S_IFLNK:
		f.mode = 0o777
	case unix.S_IFDIR:
		f.mode &= 0o1777
	}
	if d.mode&unix.S_ISGID != 0 {
		f.gid = d.gid
		if f.isDir() {
			f.mode |= unix.S_ISGID
		}
	}
	return f
}

func (m *modelTree) link(f, d *modelFile, name string, now when) unix.Errno {
	if !d.isDir() {
		return unix.ENOTDIR
	}
	if f.isDir() {
		return unix.EPERM
	}
	if err := m.checkNew(name); err != 0 {
		return err
	}
	if d.dead {
		return unix.ENOENT
	}
	f.touch()
	if d.child(name) != nil {
		return unix.EEXIST
	}
	d.enter(name, f, now)
	f.linked = true
	return 0
}

func (m *modelTree) unlink(d *modelFile, name string, now when) unix.Errno {
	f, err := m.lookup(d, name)
	switch {
	case err != 0:
		return err
	case f.isDir():
		return unix.EISDIR
	}
	d.leave(name, now)
	return 0
}

func (m *modelTree) rmdir(d *modelFile, name string, now when) unix.Errno {
	f, err := m.lookup(d, name)
	switch {
	case err != 0:
		return err
	case !f.isDir():
		return unix.ENOTDIR
	case len(f.kids) > 0:
		return unix.ENOTEMPTY
	}
	d.leave(name, now)
	f.dead = true
	return 0
}

// mayRename returns the error of a rename; 0 and no files if there is nothing
// to do.
func (m *modelTree) mayRename(od *modelFile, oname string, nd *modelFile, nname string, flags uint) (src, dst *modelFile, err unix.Errno) {
	exchange := flags&unix.RENAME_EXCHANGE != 0
	if !od.isDir() || !nd.isDir() {
		return nil, nil, unix.ENOTDIR
	}
	if exchange && flags&(unix.RENAME_NOREPLACE|unix.RENAME_WHITEOUT) != 0 {
		return nil, nil, unix.EINVAL
	}
	if err := checkModelName(oname); err != 0 {
		return nil, nil, err
	}
	if err := m.checkNew(nname); err != 0 {
		return nil, nil, err
	}
	if src = od.child(oname); src == nil {
		return nil, nil, unix.ENOENT
	}
	if nd.dead {
		return src, nil, unix.ENOENT
	}
	dst = nd.child(nname)
	switch {
	case dst == nil && exchange:
		err = unix.ENOENT
	case dst != nil && flags&unix.RENAME_NOREPLACE != 0:
		err = unix.EEXIST
	case src.isDir() && nd.within(src):
		err = unix.EINVAL
	case dst != nil && dst.isDir() && od.within(dst) && exchange:
		err = unix.EINVAL
	case dst != nil && dst.isDir() && od.within(dst):
		err = unix.ENOTEMPTY
	case exchange || dst == nil:
	case src.isDir() && !dst.isDir():
		err = unix.ENOTDIR
	case !src.isDir() && dst.isDir():
		err = unix.EISDIR
	case src == dst:
	case dst.isDir() && len(dst.kids) > 0:
		err = unix.ENOTEMPTY
	}
	return src, dst, err
}

// rename does what mayRename has allowed.
func (m *modelTree) rename(od *modelFile, oname string, nd *modelFile, nname string, flags uint, now when) {
	src, dst := od.child(oname), nd.child(nname)
	src.touch()
	if src == dst {
		return
	}
	if flags&unix.RENAME_EXCHANGE != 0 {
		dst.touch()
		od.leave(oname, now)
		nd.leave(nname, now)
		od.enter(oname, dst, now)
		nd.enter(nname, src, now)
		return
	}
	if dst != nil {
		nd.leave(nname, now)
		dst.dead = dst.isDir()
	}
	od.leave(oname, now)
	nd.enter(nname, src, now)
}

// each calls use for every file and its path, directories before what is in
// them.
func (m *modelTree) each(use func(path string, f *modelFile)) {
	var down func(path string, f *modelFile)
	down = func(path string, f *modelFile) {
		use(path, f)
		for _, e := range f.kids {
			down(path+"/"+e.name, e.file)
		}
	}
	down("", m.root)
}

// count returns the number of names in the tree.
func (m *modelTree) count() (n int) {
	m.each(func(string, *modelFile) { n++ })
	return n
}
