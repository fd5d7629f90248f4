package layertest

import "golang.org/x/sys/unix"

var removeTests = []test{
	{"Remove/Errnos", testRemove},
	{"Remove/FileLivesOnInHandles", testUnlinkedFile},
	{"Remove/DirectoryLivesOnDead", testRemovedDir},
}

func testRemove(e *env) {
	types := makeAll(e)
	e.fails("unlink a directory", e.root.Unlink("dir"), unix.EISDIR)
	d := e.opendir(e.root, "dir")
	e.file(d, "child", "")
	e.fails("rmdir with a child", e.root.Rmdir("dir"), unix.ENOTEMPTY)
	e.ok("unlink", d.Unlink("child"))
	before := e.stat(e.root).Nlink
	e.ok("rmdir", e.root.Rmdir("dir"))
	e.dirLinks("links of the parent", e.root, before-1)
	delete(types, "dir")
	for name := range types {
		e.fails("rmdir "+name, e.root.Rmdir(name), unix.ENOTDIR)
		e.ok("unlink "+name, e.root.Unlink(name))
		e.absent(e.root, name)
	}
	e.same("names", e.names(e.root), "")
}

func testUnlinkedFile(e *env) {
	f := e.file(e.root, "file", "before")
	obj := e.lookup(e.root, "file")
	ino := e.stat(f).Ino
	e.ok("unlink", e.root.Unlink("file"))
	e.file(e.root, "file", "another")

	e.write(f, "after!", 0)
	e.same("content", e.content(f), "after!")
	st := e.stat(obj)
	e.same("links", st.Nlink, uint32(0))
	e.same("inode", st.Ino, ino)
	e.same("inode used again", e.statAt(e.root, "file").Ino == ino, false)
	again, err := obj.Reopen(unix.O_RDWR)
	e.ok("reopen", err)
	e.closing(again)
	e.same("content anew", e.content(again), "after!")
	e.ok("chmod", obj.Chmod(0o600))
	e.same("mode", e.stat(f).Mode, uint32(unix.S_IFREG|0o600))
	if e.UserXattrs {
		e.ok("setxattr", obj.Setxattr("user.a", []byte("v"), 0))
		v, _ := e.xattr(f, "user.a")
		e.same("xattr", v, "v")
	}
	e.fails("link", e.root.Link(obj, "back"), unix.ENOENT)
	e.same("content of the other", e.contentAt(e.root, "file"), "another")
}

func testRemovedDir(e *env) {
	d := e.mkdir(e.root, "d")
	e.file(e.root, "file", "")
	obj := e.lookup(e.root, "file")
	e.ok("rmdir", e.root.Rmdir("d"))
	e.same("links", e.stat(d).Nlink, uint32(0))
	for what, call := range makers(d, obj, "x") {
		e.fails(what+" in a removed directory", call(), unix.ENOENT)
	}
	e.absent(d, "x")
	_, err := d.ReadDir()
	e.fails("read directory", err, unix.ENOENT)
	e.fails("rename into it", e.root.Rename("file", d, "x", 0), unix.ENOENT)
	e.ok("chmod", d.Chmod(0o700))
	e.same("mode", e.stat(d).Mode, uint32(unix.S_IFDIR|0o700))
	e.ok("sync", d.Sync())
	// The name is free again, and is another directory.
	e.ok("mkdir", e.root.Mkdir("d", 0o755))
	e.same("mode of the new one", e.statAt(e.root, "d").Mode, uint32(unix.S_IFDIR|0o755))
}
