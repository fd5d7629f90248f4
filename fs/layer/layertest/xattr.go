package layertest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

var xattrTests = []test{
	{"Xattr/SetGetListRemove", testXattr},
	{"Xattr/Errnos", testXattrErrnos},
	{"Xattr/Namespaces", testXattrNamespaces},
	{"Xattr/OfChildrenByName", testXattrAt},
	{"Xattr/OfEveryHandle", testXattrHandles},
}

func testXattr(e *env) {
	d := e.mkdir(e.root, "d")
	f := e.file(e.root, "f", "")
	for what, o := range map[string]layer.Object{"file": f, "directory": d} {
		err := o.Setxattr("user.a", []byte("one"), 0)
		if !e.able(e.UserXattrs, "setxattr", err, unix.EOPNOTSUPP) {
			continue
		}
		v, _ := e.xattr(o, "user.a")
		e.same(what+": value", v, "one")
		e.ok("replace by a longer one", o.Setxattr("user.a", []byte(strings.Repeat("x", 300)), 0))
		v, _ = e.xattr(o, "user.a")
		e.same(what+": value", v, strings.Repeat("x", 300))
		e.ok("empty value", o.Setxattr("user.b", nil, unix.XATTR_CREATE))
		v, exists := e.xattr(o, "user.b")
		e.same(what+": empty value is there", exists, true)
		e.same(what+": empty value", v, "")
		e.ok("any bytes", o.Setxattr("user.\xff =\n", []byte{0, 255}, 0))
		e.same(what+": names", fmt.Sprint(e.xattrNames(o)), fmt.Sprint([]string{"user.a", "user.b", "user.\xff =\n"}))
		e.ok("remove", o.Removexattr("user.a"))
		_, exists = e.xattr(o, "user.a")
		e.same(what+": removed value is there", exists, false)
	}
}

func testXattrErrnos(e *env) {
	if !e.UserXattrs {
		return // TestXattr has the EOPNOTSUPP
	}
	f := e.file(e.root, "f", "")
	get := func(attr string, size int) error { _, err := f.Getxattr(attr, make([]byte, size)); return err }
	e.fails("get what is absent", get("user.a", 0), unix.ENODATA)
	e.fails("remove what is absent", f.Removexattr("user.a"), unix.ENODATA)
	e.fails("replace what is absent", f.Setxattr("user.a", nil, unix.XATTR_REPLACE), unix.ENODATA)
	e.ok("create", f.Setxattr("user.a", []byte("value"), unix.XATTR_CREATE))
	e.fails("create again", f.Setxattr("user.a", []byte("other"), unix.XATTR_CREATE), unix.EEXIST)
	e.ok("replace", f.Setxattr("user.a", []byte("value"), unix.XATTR_REPLACE))
	e.fails("unknown flags", f.Setxattr("user.a", nil, 4), unix.EINVAL)
	n, err := f.Getxattr("user.a", nil)
	e.ok("size", err)
	e.same("size", n, 5)
	e.fails("short buffer", get("user.a", 4), unix.ERANGE)
	_, err = f.Listxattr(make([]byte, 3))
	e.fails("short buffer for names", err, unix.ERANGE)
	n, err = f.Listxattr(nil)
	e.ok("size of names", err)
	m, err := f.Listxattr(make([]byte, n))
	e.ok("names", err)
	e.same("size of names", n, m)

	long := "user." + strings.Repeat("n", 251)
	e.fails("name of 256 bytes", f.Setxattr(long, nil, 0), unix.ERANGE)
	e.fails("get of 256 bytes", get(long, 0), unix.ERANGE)
	e.fails("empty name", f.Setxattr("", nil, 0), unix.ERANGE)
	e.fails("get of an empty name", get("", 0), unix.ERANGE)
	e.fails("remove of an empty name", f.Removexattr(""), unix.ERANGE)
	e.fails("value of more than 64 KiB", f.Setxattr("user.a", make([]byte, 65537), 0), unix.E2BIG)
	e.ok("name of 255 bytes", f.Setxattr(long[:255], []byte("x"), 0))
	for _, attr := range []string{"user", "userx.a", "nonsense.a", "system.a", "trusted"} {
		e.fails("set "+attr, f.Setxattr(attr, nil, 0), unix.EOPNOTSUPP)
		e.fails("get "+attr, get(attr, 0), unix.EOPNOTSUPP)
		e.fails("remove "+attr, f.Removexattr(attr), unix.EOPNOTSUPP)
	}
	e.fails("set of a bare prefix", f.Setxattr("user.", nil, 0), unix.EINVAL)
	e.fails("get of a bare prefix", get("user.", 0), unix.EINVAL)
}

func testXattrNamespaces(e *env) {
	types := makeAll(e)
	for name, typ := range types {
		o := e.lookup(e.root, name)
		if !e.Xattrs {
			for _, attr := range []string{"trusted.a", "security.a"} {
				e.fails("set "+attr, o.Setxattr(attr, nil, 0), unix.EOPNOTSUPP)
				_, err := o.Getxattr(attr, nil)
				e.fails("get "+attr, err, unix.EOPNOTSUPP)
				e.fails("remove "+attr, o.Removexattr(attr), unix.EOPNOTSUPP)
			}
			continue
		}
		plain := typ == unix.S_IFREG || typ == unix.S_IFDIR

		err := o.Setxattr("trusted.overlay.opaque", []byte("y"), 0)
		if e.able(e.Trusted, "trusted on "+name, err, unix.EPERM) {
			v, _ := e.xattr(o, "trusted.overlay.opaque")
			e.same("trusted on "+name, v, "y")
			e.same("names of "+name, slices.Contains(e.xattrNames(o), "trusted.overlay.opaque"), true)
			e.ok("remove", o.Removexattr("trusted.overlay.opaque"))
		} else {
			_, err := o.Getxattr("trusted.overlay.opaque", nil)
			e.fails("get trusted of "+name, err, unix.ENODATA)
			e.fails("remove trusted of "+name, o.Removexattr("trusted.overlay.opaque"), unix.EPERM)
		}
		err = o.Setxattr("security.lamina", []byte("s"), 0)
		if e.able(e.Privileged, "security on "+name, err, unix.EPERM) {
			v, _ := e.xattr(o, "security.lamina")
			e.same("security on "+name, v, "s")
		}
		_, err = o.Getxattr("security.absent", nil)
		e.fails("get security of "+name, err, unix.ENODATA)
		if e.UserXattrs && !plain {
			e.fails("user on "+name, o.Setxattr("user.a", nil, 0), unix.EPERM)
			_, err := o.Getxattr("user.a", nil)
			e.fails("get user of "+name, err, unix.ENODATA)
			e.fails("remove user of "+name, o.Removexattr("user.a"), unix.EPERM)
		}
	}
	if e.Privileged && e.Xattrs {
		bad := e.open(e.root, "file", unix.O_RDWR).Setxattr("security.capability", []byte("short"), 0)
		e.fails("malformed capability", bad, unix.EINVAL)
	}
}

func testXattrAt(e *env) {
	if !e.UserXattrs {
		return // TestXattr has the EOPNOTSUPP
	}
	f := e.file(e.root, "f", "")
	e.ok("setxattr", f.Setxattr("user.a", []byte("value"), 0))
	e.ok("symlink", e.root.Symlink("f", "link"))
	p := make([]byte, 64)
	n, err := e.root.GetxattrAt("f", "user.a", p)
	e.ok("getxattr at", err)
	e.same("value", string(p[:n]), "value")
	n, err = e.root.GetxattrAt("f", "user.a", nil)
	e.ok("size at", err)
	e.same("size", n, 5)
	_, err = e.root.GetxattrAt("f", "user.a", p[:2])
	e.fails("short buffer", err, unix.ERANGE)
	_, err = e.root.GetxattrAt("f", "user.b", p)
	e.fails("absent", err, unix.ENODATA)
	n, err = e.root.ListxattrAt("f", p)
	e.ok("listxattr at", err)
	e.same("names", strings.Contains(string(p[:n]), "user.a\x00"), true)
	// What a link leads to is not asked.
	_, err = e.root.GetxattrAt("link", "user.a", p)
	e.fails("of a link", err, unix.ENODATA)
	n, err = e.root.ListxattrAt("link", p)
	e.ok("listxattr of a link", err)
	e.same("names of a link", strings.Contains(string(p[:n]), "user.a"), false)
}

func testXattrHandles(e *env) {
	if !e.UserXattrs {
		return // TestXattr has the EOPNOTSUPP
	}
	f := e.file(e.root, "f", "")
	handles := []layer.Object{
		f, e.lookup(e.root, "f"), e.open(e.root, "f", unix.O_RDONLY), e.open(e.root, "f", unix.O_WRONLY),
	}
	for k, o := range handles {
		attr := fmt.Sprintf("user.%d", k)
		e.ok("setxattr", o.Setxattr(attr, []byte(attr), 0))
		for _, other := range handles {
			v, _ := e.xattr(other, attr)
			e.same("value", v, attr)
		}
	}
	e.same("number of names", len(e.xattrNames(handles[1])), len(handles))
}
