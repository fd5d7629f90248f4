package layertest

import (
	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

var timeTests = []test{
	{"Time/Set", testSetTimes},
	{"Time/WhatChangesWhich", testTouched},
}

func testSetTimes(e *env) {
	types := makeAll(e)
	a, m := layer.Time{Sec: 1_000_000_000, Nsec: 123_456_789}, layer.Time{Sec: -5, Nsec: 1}
	omit, now := layer.Time{Nsec: unix.UTIME_OMIT}, layer.Time{Nsec: unix.UTIME_NOW}
	for name := range types {
		obj := e.lookup(e.root, name)
		e.ok("set "+name, obj.SetTimes(a, m))
		st := e.statAt(e.root, name)
		e.same("atime of "+name, st.Atime, a)
		e.same("mtime of "+name, st.Mtime, m)
		e.ok("omit atime", obj.SetTimes(omit, a))
		st = e.statAt(e.root, name)
		e.same("atime of "+name, st.Atime, a)
		e.same("mtime of "+name, st.Mtime, a)
		pause()
		e.ok("omit both", obj.SetTimes(omit, omit))
		e.same("attributes after omitting both", e.statAt(e.root, name), st)
		e.ok("now", obj.SetTimes(omit, now))
		st = e.statAt(e.root, name)
		e.same("mtime is ctime", st.Mtime, st.Ctime)
		e.same("atime of "+name, st.Atime, a)
		e.fails("a billion nanoseconds", obj.SetTimes(omit, layer.Time{Nsec: 1e9}), unix.EINVAL)
	}
	f := e.open(e.root, "file", unix.O_RDONLY)
	e.ok("set of a file open for reading", f.SetTimes(m, a))
	e.same("mtime", e.stat(f).Mtime, a)
}

// Marks of testTouched: which times an operation changes.
const (
	fileM = 1 << iota
	fileC
	dirMC   // of the directory that holds it
	otherMC // of the directory moved to
)

func testTouched(e *env) {
	d, other := e.mkdir(e.root, "d"), e.mkdir(e.root, "other")
	f := e.file(d, "f", "0123456789")
	e.file(other, "o", "")
	sub := e.mkdir(d, "sub")
	steps := []struct {
		name  string
		call  func() error
		wants int
	}{
		{"read", func() error { _, err := f.ReadAt(make([]byte, 4), 0); return err }, 0},
		{"write", func() error { _, err := f.WriteAt([]byte("x"), 0); return err }, fileM | fileC},
		{"write of nothing", func() error { _, err := f.WriteAt(nil, 0); return err }, 0},
		{"truncate", func() error { return f.Truncate(5) }, fileM | fileC},
		{"truncate to the same size", func() error { return f.Truncate(5) }, fileM | fileC},
		{"open and truncate", func() error { return closed(d.OpenFile("f", unix.O_WRONLY|unix.O_TRUNC, 0)) }, fileM | fileC},
		{"open and truncate what is empty", func() error { return closed(d.OpenFile("f", unix.O_WRONLY|unix.O_TRUNC, 0)) }, fileM | fileC},
		{"chmod", func() error { return f.Chmod(0o600) }, fileC},
		{"chown", func() error { return f.Chown(-1, -1) }, fileC},
		{"link", func() error { return d.Link(f, "l") }, fileC | dirMC},
		{"unlink the other name", func() error { return d.Unlink("l") }, fileC | dirMC},
		{"create beside", func() error { return closed(d.OpenFile("g", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o600)) }, dirMC},
		{"mkdir beside", func() error { return d.Mkdir("h", 0o700) }, dirMC},
		{"rmdir beside", func() error { return d.Rmdir("h") }, dirMC},
		{"symlink beside", func() error { return d.Symlink("x", "s") }, dirMC},
		{"a refused create", func() error { d.Mkdir("f", 0o700); return nil }, 0},
		{"rename", func() error { return d.Rename("f", d, "f2", 0) }, fileC | dirMC},
		{"rename back", func() error { return d.Rename("f2", d, "f", 0) }, fileC | dirMC},
		{"move a directory away", func() error { return d.Rename("sub", other, "sub", 0) }, dirMC | otherMC},
		{"move away", func() error { return d.Rename("f", other, "f", 0) }, fileC | dirMC | otherMC},
		{"replace", func() error { return other.Rename("o", other, "f", 0) }, fileC | otherMC},
	}
	if e.RenameFlags {
		exchange := func() error { return other.Rename("sub", d, "g", unix.RENAME_EXCHANGE) }
		steps = append(steps[:len(steps)-1], struct {
			name  string
			call  func() error
			wants int
		}{"exchange others", exchange, dirMC | otherMC}, steps[len(steps)-1])
	}
	for _, s := range steps {
		f0, d0, o0 := e.stat(f), e.stat(d), e.stat(other)
		pause()
		e.ok(s.name, s.call())
		f1, d1, o1 := e.stat(f), e.stat(d), e.stat(other)
		e.same(s.name+": mtime of the file moves", f0.Mtime != f1.Mtime, s.wants&fileM != 0)
		e.same(s.name+": ctime of the file moves", f0.Ctime != f1.Ctime, s.wants&fileC != 0)
		e.same(s.name+": mtime of its directory moves", d0.Mtime != d1.Mtime, s.wants&dirMC != 0)
		e.same(s.name+": ctime of its directory moves", d0.Ctime != d1.Ctime, s.wants&dirMC != 0)
		e.same(s.name+": mtime of the other directory moves", o0.Mtime != o1.Mtime, s.wants&otherMC != 0)
	}
	e.dirLinks("links of the directory that was moved", sub, 2)
	if e.UserXattrs {
		before := e.stat(f)
		pause()
		e.ok("setxattr", f.Setxattr("user.a", []byte("x"), 0))
		after := e.stat(f)
		e.same("setxattr: ctime moves", before.Ctime != after.Ctime, true)
		e.same("setxattr: mtime moves", before.Mtime != after.Mtime, false)
	}
}
