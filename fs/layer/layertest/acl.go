package layertest

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

var aclTests = []test{
	{"ACL/AndModeAreOne", testACLMode},
	{"ACL/DefaultIsInherited", testACLInherit},
	{"ACL/Errnos", testACLErrnos},
}

const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// acl makes the value of an ACL xattr from triples of tag, permissions and id
// (linux/posix_acl_xattr.h).
func acl(entries ...[3]uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, x := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(x[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(x[1]))
		b = binary.LittleEndian.AppendUint32(b, x[2])
	}
	return b
}

const none = ^uint32(0)

// named is an ACL with an entry for user 77 below a mask.
func named(user, named, group, mask, other uint32) []byte {
	return acl([3]uint32{1, user, none}, [3]uint32{2, named, 77}, [3]uint32{4, group, none},
		[3]uint32{0x10, mask, none}, [3]uint32{0x20, other, none})
}

func plain(user, group, other uint32) []byte {
	return acl([3]uint32{1, user, none}, [3]uint32{4, group, none}, [3]uint32{0x20, other, none})
}

func testACLMode(e *env) {
	f := e.file(e.root, "f", "")
	err := f.Setxattr(accessACL, named(6, 7, 4, 5, 0), 0)
	if !e.able(e.ACLs, "set ACL", err, unix.EOPNOTSUPP) {
		_, err := f.Getxattr(accessACL, nil)
		e.fails("get ACL", err, unix.EOPNOTSUPP, unix.ENODATA)
		return
	}
	e.same("mode", e.stat(f).Mode, uint32(unix.S_IFREG|0o650))
	v, _ := e.xattr(f, accessACL)
	e.same("ACL", v, string(named(6, 7, 4, 5, 0)))
	e.same("names", fmt.Sprint(e.xattrNames(f)), fmt.Sprint([]string{accessACL}))

	e.ok("chmod", f.Chmod(0o731))
	v, _ = e.xattr(f, accessACL)
	e.same("ACL after chmod", v, string(named(7, 7, 4, 3, 1)))

	e.ok("set an ACL that a mode can say", f.Setxattr(accessACL, plain(6, 4, 2), 0))
	e.same("mode", e.stat(f).Mode, uint32(unix.S_IFREG|0o642))
	_, exists := e.xattr(f, accessACL)
	e.same("ACL is there", exists, false)

	e.ok("set ACL", f.Setxattr(accessACL, named(6, 7, 4, 5, 0), 0))
	e.ok("remove ACL", f.Removexattr(accessACL))
	_, exists = e.xattr(f, accessACL)
	e.same("ACL is there", exists, false)
	e.same("mode keeps the mask", e.stat(f).Mode, uint32(unix.S_IFREG|0o650))
	e.ok("remove what is absent", f.Removexattr(accessACL))

	// By an O_PATH handle, as copy-up does it for what it cannot open.
	o := e.lookup(e.root, "f")
	e.ok("set by handle", o.Setxattr(accessACL, named(7, 6, 4, 4, 4), 0))
	v, _ = e.xattr(o, accessACL)
	e.same("ACL by handle", v, string(named(7, 6, 4, 4, 4)))
}

func testACLInherit(e *env) {
	if !e.ACLs {
		return // TestACLMode has the EOPNOTSUPP
	}
	d := e.mkdir(e.root, "d")
	def := named(7, 6, 5, 7, 1)
	e.ok("set default ACL", d.Setxattr(defaultACL, def, 0))
	e.same("mode of the directory", e.stat(d).Mode, uint32(unix.S_IFDIR|0o755))
	e.same("names", slices.Contains(e.xattrNames(d), defaultACL), true)

	check := func(name string, mode uint32, access []byte) {
		e.Helper()
		o := e.lookup(d, name)
		e.same("mode of "+name, e.stat(o).Mode&0o7777, mode)
		v, _ := e.xattr(o, accessACL)
		e.same("ACL of "+name, v, string(access))
	}
	f, err := d.OpenFile("file", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o666)
	e.ok("create", err)
	e.closing(f)
	check("file", 0o660, named(6, 6, 5, 6, 0))
	e.ok("mknod", d.Mknod("fifo", unix.S_IFIFO|0o640, 0))
	check("fifo", 0o640, named(6, 6, 5, 4, 0))
	e.ok("mkdir", d.Mkdir("sub", 0o777))
	check("sub", 0o771, named(7, 6, 5, 7, 1))
	v, _ := e.xattr(e.lookup(d, "sub"), defaultACL)
	e.same("default ACL of the directory", v, string(def))
	e.ok("symlink", d.Symlink("x", "link"))
	link := e.lookup(d, "link")
	_, err = link.Getxattr(accessACL, nil)
	e.fails("ACL of a link", err, unix.EOPNOTSUPP)

	// A default ACL that a mode can say leaves only the mode.
	e.ok("set default ACL", d.Setxattr(defaultACL, plain(6, 4, 0), 0))
	e.ok("mknod", d.Mknod("plain", unix.S_IFREG|0o777, 0))
	check("plain", 0o640, nil)
	if e.TmpFile {
		f, err := d.TmpFile(0o777)
		e.ok("tmpfile", err)
		e.closing(f)
		e.same("mode of a file without a name", e.stat(f).Mode, uint32(unix.S_IFREG|0o640))
	}
	e.ok("remove default ACL", d.Removexattr(defaultACL))
	e.ok("mknod", d.Mknod("free", unix.S_IFREG|0o777, 0))
	check("free", 0o777, nil)
}

func testACLErrnos(e *env) {
	if !e.ACLs {
		return // TestACLMode has the EOPNOTSUPP
	}
	f := e.file(e.root, "f", "")
	d := e.mkdir(e.root, "d")
	_, err := f.Getxattr(accessACL, nil)
	e.fails("absent", err, unix.ENODATA)
	_, err = d.Getxattr(defaultACL, nil)
	e.fails("absent default", err, unix.ENODATA)
	e.fails("default of a file", f.Setxattr(defaultACL, named(7, 7, 7, 7, 7), 0), unix.EACCES)
	e.fails("too short", f.Setxattr(accessACL, []byte{2}, 0), unix.EINVAL)
	e.fails("other version", f.Setxattr(accessACL, []byte{9, 0, 0, 0}, 0), unix.EOPNOTSUPP)
	e.fails("half an entry", f.Setxattr(accessACL, plain(7, 7, 7)[:14], 0), unix.EINVAL)
	e.fails("no entry for others", f.Setxattr(accessACL, plain(7, 7, 7)[:20], 0), unix.EINVAL)
	e.fails("wrong order", f.Setxattr(accessACL, acl([3]uint32{4, 7, none}, [3]uint32{1, 7, none}, [3]uint32{0x20, 7, none}), 0), unix.EINVAL)
	e.fails("unknown permissions", f.Setxattr(accessACL, plain(8, 0, 0), 0), unix.EINVAL)
	noMask := acl([3]uint32{1, 7, none}, [3]uint32{2, 7, 77}, [3]uint32{4, 7, none}, [3]uint32{0x20, 7, none})
	e.fails("named entry without a mask", f.Setxattr(accessACL, noMask, 0), unix.EINVAL)
	e.ok("set", f.Setxattr(accessACL, named(7, 6, 5, 4, 3), 0))
	_, err = f.Getxattr(accessACL, make([]byte, 5))
	e.fails("short buffer", err, unix.ERANGE)
	e.ok("no entries remove it", f.Setxattr(accessACL, acl(), 0))
	_, exists := e.xattr(f, accessACL)
	e.same("ACL is there", exists, false)
	e.ok("symlink", e.root.Symlink("f", "link"))
	e.fails("set on a link", e.lookup(e.root, "link").Setxattr(accessACL, plain(7, 7, 7), 0), unix.EOPNOTSUPP)
}
