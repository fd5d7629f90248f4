package layertest

import (
	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

var attrTests = []test{
	{"Attr/Chmod", testChmod},
	{"Attr/ChownClearsSetuid", testChown},
	{"Attr/WritingClearsSetuidUnlessPrivileged", testKill},
	{"Attr/Flags", testFlags},
	{"Attr/Immutable", testImmutable},
	{"Attr/AppendOnly", testAppendOnly},
}

func testChmod(e *env) {
	types := makeAll(e)
	for name, typ := range types {
		obj := e.lookup(e.root, name)
		if typ == unix.S_IFLNK {
			e.fails("chmod of a link", obj.Chmod(0o600), unix.EOPNOTSUPP)
			continue
		}
		for _, mode := range []uint32{0o7777, 0, 0o1751, typ | 0o640} {
			e.ok("chmod "+name, obj.Chmod(mode))
			e.same("mode of "+name, e.statAt(e.root, name).Mode, typ|mode&0o7777)
		}
	}
	f := e.open(e.root, "file", unix.O_RDONLY)
	e.ok("chmod of a file open for reading", f.Chmod(0o604))
	e.same("mode", e.stat(f).Mode, uint32(unix.S_IFREG|0o604))
}

func testChown(e *env) {
	types := makeAll(e)
	for name, typ := range types {
		obj := e.lookup(e.root, name)
		if typ != unix.S_IFLNK {
			e.ok("chmod "+name, obj.Chmod(0o6775))
		}
		st := e.stat(obj)
		uid, gid := int(st.UID), int(st.GID)
		if e.Privileged {
			uid, gid = 1234, 4321
			e.ok("chown of the group", obj.Chown(-1, gid))
			got := e.stat(obj)
			e.same("owner of "+name, got.UID, st.UID)
			e.same("group of "+name, got.GID, uint32(gid))
			e.ok("chown", obj.Chown(uid, -1))
		} else {
			e.fails("give away "+name, obj.Chown(uid+1, -1), unix.EPERM)
			e.fails("give "+name+" to another group", obj.Chown(-1, gid+1), unix.EPERM)
			e.ok("chown to oneself", obj.Chown(uid, gid))
		}
		got := e.stat(obj)
		e.same("owner of "+name, got.UID, uint32(uid))
		e.same("group of "+name, got.GID, uint32(gid))
		switch typ {
		case unix.S_IFDIR:
			e.same("mode of "+name, got.Mode, typ|0o6775)
		case unix.S_IFLNK:
		default:
			e.same("mode of "+name, got.Mode, typ|0o775)
		}
	}
	// Without x for the group, set-group-ID means mandatory locks and stays.
	f := e.open(e.root, "file", unix.O_RDWR)
	if e.Privileged {
		e.ok("chmod", f.Chmod(0o6765))
		e.ok("chown of nothing", f.Chown(-1, -1))
		e.same("mode", e.stat(f).Mode, uint32(unix.S_IFREG|0o2765))
	}
}

func testKill(e *env) {
	f := e.file(e.root, "f", "content")
	capValue := make([]byte, 20)
	capValue[3] = 2 // VFS_CAP_REVISION_2, and no capabilities
	for what, change := range map[string]func() error{
		"write":    func() error { _, err := f.WriteAt([]byte("x"), 0); return err },
		"truncate": func() error { return f.Truncate(3) },
		"allocate": func() error { return f.Allocate(0, 0, 8192) },
		"O_TRUNC":  func() error { return closed(e.root.OpenFile("f", unix.O_WRONLY|unix.O_TRUNC, 0)) },
	} {
		if e.Privileged && e.Xattrs {
			e.ok("set capability", f.Setxattr("security.capability", capValue, 0))
		}
		e.ok("chmod", f.Chmod(0o6775))
		e.ok(what, change())
		want := uint32(0o775)
		if e.Privileged {
			want = 0o6775
		}
		e.same("mode after "+what, e.stat(f).Mode, unix.S_IFREG|want)
		if !e.Xattrs {
			continue
		}
		if _, left := e.xattr(f, "security.capability"); left {
			e.Errorf("capability left after %s", what)
		}
	}
	if e.Privileged && e.Xattrs {
		e.ok("set capability", f.Setxattr("security.capability", capValue, 0))
		e.ok("chown", f.Chown(0, 0))
		if _, left := e.xattr(f, "security.capability"); left {
			e.Errorf("capability left after chown")
		}
	}
	e.ok("chmod", f.Chmod(0o6775))
	_, err := f.WriteAt(nil, 0)
	e.ok("write of nothing", err)
	e.same("mode after writing nothing", e.stat(f).Mode, uint32(unix.S_IFREG|0o6775))
}

// Flags of linux/fs.h.
const (
	flagImmutable = 0x10
	flagAppend    = 0x20
	flagNodump    = 0x40
	flagNoatime   = 0x80
)

func testFlags(e *env) {
	d := e.mkdir(e.root, "d")
	f := e.file(d, "f", "")
	for _, x := range []layer.Flagged{d, f} {
		flags, err := x.Flags()
		e.ok("flags", err)
		e.same("nodump before", flags&flagNodump, uint32(0))
		e.ok("set", x.SetFlags(flags|flagNodump|flagNoatime))
		got, err := x.Flags()
		e.ok("flags", err)
		e.same("flags", got, flags|flagNodump|flagNoatime)
		e.ok("clear", x.SetFlags(flags))
		got, err = x.Flags()
		e.ok("flags", err)
		e.same("flags", got, flags)
		e.able(e.Privileged, "immutable", x.SetFlags(flags|flagImmutable), unix.EPERM)
		e.able(e.Privileged, "append", x.SetFlags(flags|flagAppend), unix.EPERM)
		e.ok("clear", x.SetFlags(flags))
	}
}

// flagged sets flags for a while.
func (e *env) flagged(x layer.Flagged, flag uint32, while func()) {
	e.Helper()
	flags, err := x.Flags()
	e.ok("flags", err)
	e.ok("set flag", x.SetFlags(flags|flag))
	defer func() { e.ok("clear flag", x.SetFlags(flags)) }()
	while()
}

func testImmutable(e *env) {
	if !e.Privileged {
		return // TestFlags has the EPERM
	}
	d := e.mkdir(e.root, "d")
	f := e.file(d, "f", "data")
	obj := e.lookup(d, "f")
	e.flagged(f, flagImmutable, func() {
		// What was opened before may still be written to, as on tmpfs.
		e.fails("allocate", f.Allocate(0, 0, 1), unix.EPERM)
		e.fails("open for writing", closed(d.OpenFile("f", unix.O_RDWR, 0)), unix.EPERM)
		e.fails("reopen for writing", closed(obj.Reopen(unix.O_WRONLY)), unix.EPERM)
		e.ok("open for reading", closed(d.OpenFile("f", unix.O_RDONLY, 0)))
		e.fails("chmod", obj.Chmod(0), unix.EPERM)
		e.fails("chown", obj.Chown(1, 1), unix.EPERM)
		e.fails("times", obj.SetTimes(layer.Time{}, layer.Time{}), unix.EPERM)
		e.fails("setxattr", obj.Setxattr("trusted.a", nil, 0), unix.EPERM)
		e.fails("removexattr", obj.Removexattr("trusted.a"), unix.EPERM)
		e.fails("link", d.Link(obj, "g"), unix.EPERM)
		e.fails("unlink", d.Unlink("f"), unix.EPERM)
		e.fails("rename", d.Rename("f", d, "g", 0), unix.EPERM)
	})
	e.flagged(d, flagImmutable, func() {
		for what, call := range makers(d, obj, "new") {
			e.fails(what, call(), unix.EPERM)
		}
		e.fails("unlink", d.Unlink("f"), unix.EPERM)
		e.write(f, "DATA", 0)
	})
	e.same("content", e.content(f), "DATA")
}

func testAppendOnly(e *env) {
	if !e.Privileged {
		return // TestFlags has the EPERM
	}
	d := e.mkdir(e.root, "d")
	f := e.file(d, "f", "data")
	e.flagged(f, flagAppend, func() {
		e.fails("truncate", f.Truncate(0), unix.EPERM)
		e.fails("open for writing", closed(d.OpenFile("f", unix.O_RDWR, 0)), unix.EPERM)
		e.fails("open and truncate", closed(d.OpenFile("f", unix.O_RDWR|unix.O_APPEND|unix.O_TRUNC, 0)), unix.EPERM)
		e.fails("unlink", d.Unlink("f"), unix.EPERM)
		e.write(e.open(d, "f", unix.O_WRONLY|unix.O_APPEND), "+more", 0)
	})
	e.same("content", e.content(f), "data+more")
	e.flagged(d, flagAppend, func() {
		e.fails("unlink", d.Unlink("f"), unix.EPERM)
		e.fails("rename", d.Rename("f", d, "g", 0), unix.EPERM)
		e.file(d, "new", "")
	})
}
