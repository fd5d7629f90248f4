package layertest

import (
	"strings"
	"syscall"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

var createTests = []test{
	{"Create/Types", testTypes},
	{"Create/NothingIsReplaced", testExists},
	{"Create/ModesAreTakenWhole", testModes},
	{"Create/Mknod", testMknod},
	{"Create/Symlink", testSymlink},
	{"Create/TmpFile", testTmpFile},
	{"Create/SetgidDirectory", testSetgid},
	{"Create/LinksAreNotFollowed", testNoFollow},
}

// makeAll makes a child of each type that any caller can make.
func makeAll(e *env) map[string]uint32 {
	e.file(e.root, "file", "content")
	e.ok("mkdir", e.root.Mkdir("dir", 0o755))
	e.ok("symlink", e.root.Symlink("dir", "link"))
	types := map[string]uint32{"file": unix.S_IFREG, "dir": unix.S_IFDIR, "link": unix.S_IFLNK}
	for name, typ := range special {
		e.ok("mknod "+name, e.root.Mknod(name, typ|0o644, 0))
		types[name] = typ
	}
	return types
}

func testTypes(e *env) {
	types := makeAll(e)
	list, err := e.root.ReadDir()
	e.ok("read directory", err)
	inos := make(map[uint64]bool)
	for _, x := range list {
		if x.Type != 0 {
			e.same("type of entry "+x.Name, x.Type, types[x.Name])
		}
	}
	dev := e.stat(e.root).Dev
	for name, typ := range types {
		st := e.statAt(e.root, name)
		obj := e.lookup(e.root, name)
		e.same("stat by handle of "+name, e.stat(obj), st)
		e.same("type of "+name, st.Type(), typ)
		e.same("device of "+name, st.Dev, dev)
		e.same("links of "+name, st.Nlink, map[bool]uint32{true: 2, false: 1}[typ == unix.S_IFDIR && e.DirLinks])
		e.same("inode of "+name+" seen before", inos[st.Ino], false)
		e.same("device number of "+name, st.Rdev, uint64(0))
		inos[st.Ino] = true

		_, err := obj.Readlink()
		_, errAt := e.root.ReadlinkAt(name)
		if typ != unix.S_IFLNK {
			e.fails("readlink of "+name, err, unix.EINVAL)
			e.fails("readlink at "+name, errAt, unix.EINVAL)
		}
		err = closed(obj.Reopen(unix.O_RDONLY))
		if typ == unix.S_IFREG {
			e.ok("reopen", err)
		} else {
			e.fails("reopen "+name, err, unix.EINVAL)
		}
		want := map[uint32]syscall.Errno{
			unix.S_IFDIR: unix.EISDIR, unix.S_IFLNK: unix.ELOOP, unix.S_IFIFO: unix.ENXIO, unix.S_IFSOCK: unix.ENXIO,
		}
		for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY | unix.O_TRUNC, unix.O_RDWR} {
			err := closed(e.root.OpenFile(name, flags, 0))
			if typ == unix.S_IFREG {
				e.ok("open", err)
			} else {
				e.fails("open "+name, err, want[typ])
			}
		}
		if typ != unix.S_IFDIR {
			e.fails("open directory "+name, closed(e.root.OpenDir(name)), unix.ENOTDIR)
		}
	}
}

func testExists(e *env) {
	types := makeAll(e)
	obj := e.lookup(e.root, "file")
	for name := range types {
		for what, call := range makers(e.root, obj, name) {
			e.fails(what+" over "+name, call(), unix.EEXIST)
		}
	}
	e.same("content", e.contentAt(e.root, "file"), "content")
}

func testModes(e *env) {
	f, err := e.root.OpenFile("file", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o4777)
	e.ok("create", err)
	e.closing(f)
	e.same("mode of the file", e.statAt(e.root, "file").Mode, uint32(unix.S_IFREG|0o4777))
	e.ok("mkdir", e.root.Mkdir("dir", 0o7777))
	e.same("mode of the directory", e.statAt(e.root, "dir").Mode, uint32(unix.S_IFDIR|0o1777))
	e.ok("mknod", e.root.Mknod("fifo", unix.S_IFIFO|0o666, 0))
	e.same("mode of the FIFO", e.statAt(e.root, "fifo").Mode, uint32(unix.S_IFIFO|0o666))
	e.ok("symlink", e.root.Symlink("x", "link"))
	e.same("mode of the link", e.statAt(e.root, "link").Mode, uint32(unix.S_IFLNK|0o777))

	// Made for reading only, and written to by the one who made it.
	f, err = e.root.OpenFile("ro", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o400)
	e.ok("create", err)
	e.closing(f)
	e.write(f, "x", 0)
}

func testMknod(e *env) {
	e.ok("type 0", e.root.Mknod("plain", 0o640, 0))
	e.same("mode for type 0", e.statAt(e.root, "plain").Mode, uint32(unix.S_IFREG|0o640))
	e.fails("a directory", e.root.Mknod("bad", unix.S_IFDIR|0o755, 0), unix.EPERM)
	e.fails("a link", e.root.Mknod("bad", unix.S_IFLNK|0o777, 0), unix.EINVAL)
	e.fails("no type at all", e.root.Mknod("bad", unix.S_IFMT|0o777, 0), unix.EINVAL)
	e.ok("a FIFO with a device number", e.root.Mknod("fifo", unix.S_IFIFO|0o600, unix.Mkdev(1, 3)))
	e.same("its device number", e.statAt(e.root, "fifo").Rdev, uint64(0))

	err := e.root.Mknod("white", unix.S_IFCHR, 0)
	if e.able(e.Whiteout, "whiteout", err, unix.EPERM) {
		st := e.statAt(e.root, "white")
		e.same("is a whiteout", st.IsWhiteoutDevice(), true)
		e.same("mode of a whiteout", st.Mode, uint32(unix.S_IFCHR))
		e.fails("open a whiteout", closed(e.root.OpenFile("white", unix.O_RDONLY, 0)), unix.ENXIO)
		e.ok("unlink a whiteout", e.root.Unlink("white"))
	}
	for name, typ := range map[string]uint32{"chr": unix.S_IFCHR, "blk": unix.S_IFBLK} {
		dev := unix.Mkdev(254, 70000)
		if e.able(e.Privileged, name, e.root.Mknod(name, typ|0o600, dev), unix.EPERM) {
			e.same("device number", e.statAt(e.root, name).Rdev, dev)
			// No driver has that number, and none is asked.
			e.fails("open a device", closed(e.root.OpenFile(name, unix.O_RDONLY, 0)), unix.ENXIO)
			e.lookup(e.root, name)
		}
	}
	err = e.root.Mknod("blk00", unix.S_IFBLK, 0) // no whiteout
	e.able(e.Privileged, "block device 0:0", err, unix.EPERM)
}

func testSymlink(e *env) {
	for _, target := range []string{"x", "/", "../../..", "\xff", strings.Repeat("long/", 200)} {
		e.ok("symlink", e.root.Symlink(target, "link"))
		got, err := e.root.ReadlinkAt("link")
		e.ok("readlink at", err)
		e.same("target", got, target)
		got, err = e.lookup(e.root, "link").Readlink()
		e.ok("readlink", err)
		e.same("target by handle", got, target)
		e.same("size", e.statAt(e.root, "link").Size, int64(len(target)))
		e.ok("unlink", e.root.Unlink("link"))
	}
	e.fails("empty target", e.root.Symlink("", "link"), unix.ENOENT)
	e.fails("target of PATH_MAX", e.root.Symlink(strings.Repeat("x", unix.PathMax), "link"), unix.ENAMETOOLONG)
	e.fails("target with NUL", e.root.Symlink("a\x00b", "link"), unix.EINVAL)
	e.same("names", e.names(e.root), "")
}

func testTmpFile(e *env) {
	f, err := e.root.TmpFile(0o4600)
	if !e.able(e.TmpFile, "tmpfile", err, unix.EOPNOTSUPP) {
		return
	}
	e.closing(f)
	e.same("names", e.names(e.root), "")
	st := e.stat(f)
	e.same("links", st.Nlink, uint32(0))
	e.same("mode", st.Mode, uint32(unix.S_IFREG|0o4600))
	e.write(f, "data", 0)
	e.same("content", e.content(f), "data")
	e.fails("link over", e.linkOver(f), unix.EEXIST)
	e.ok("link", e.root.Link(f, "named"))
	e.same("content by name", e.contentAt(e.root, "named"), "data")
	got := e.statAt(e.root, "named")
	e.same("inode", got.Ino, st.Ino)
	e.same("links", got.Nlink, uint32(1))
	e.ok("link again", e.root.Link(f, "twice"))
	e.ok("unlink", e.root.Unlink("named"))
	e.ok("unlink", e.root.Unlink("twice"))
	e.fails("link once it has lost its names", e.root.Link(f, "again"), unix.ENOENT)
	e.same("content without a name", e.content(f), "data")
}

func (e *env) linkOver(obj layer.Object) error {
	e.Helper()
	e.ok("mkdir", e.root.Mkdir("taken", 0o755))
	err := e.root.Link(obj, "taken")
	e.ok("rmdir", e.root.Rmdir("taken"))
	return err
}

func testSetgid(e *env) {
	d := e.mkdir(e.root, "d")
	gid := int(e.stat(d).GID)
	if e.Privileged {
		gid = 4242
		e.ok("chown", d.Chown(-1, gid))
	}
	e.ok("chmod", d.Chmod(0o2777))
	e.same("mode", e.stat(d).Mode, uint32(unix.S_IFDIR|0o2777))
	e.file(d, "file", "")
	e.ok("mkdir", d.Mkdir("dir", 0o750))
	e.ok("mknod", d.Mknod("fifo", unix.S_IFIFO|0o600, 0))
	e.ok("symlink", d.Symlink("x", "link"))
	for _, name := range []string{"file", "dir", "fifo", "link"} {
		st := e.statAt(d, name)
		e.same("group of "+name, st.GID, uint32(gid))
		e.same("setgid of "+name, st.Mode&unix.S_ISGID != 0, name == "dir")
	}
	if e.TmpFile {
		f, err := d.TmpFile(0o600)
		e.ok("tmpfile", err)
		e.closing(f)
		e.same("group of a file without a name", e.stat(f).GID, uint32(gid))
	}
}

func testNoFollow(e *env) {
	d := e.mkdir(e.root, "dir")
	e.file(d, "file", "below")
	e.ok("symlink", e.root.Symlink("dir", "todir"))
	e.ok("symlink", e.root.Symlink("dir/file", "tofile"))
	e.fails("open through a link", closed(e.root.OpenFile("tofile", unix.O_RDWR, 0)), unix.ELOOP)
	e.fails("truncate through a link", closed(e.root.OpenFile("tofile", unix.O_WRONLY|unix.O_TRUNC, 0)), unix.ELOOP)
	e.fails("open a directory through a link", closed(e.root.OpenDir("todir")), unix.ENOTDIR)
	e.fails("rmdir a link", e.root.Rmdir("todir"), unix.ENOTDIR)
	st := e.stat(e.lookup(e.root, "tofile"))
	e.same("type", st.Type(), uint32(unix.S_IFLNK))
	e.ok("unlink a link", e.root.Unlink("tofile"))
	e.same("content behind the links", e.contentAt(d, "file"), "below")
}
