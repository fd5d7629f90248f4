package layertest

import "golang.org/x/sys/unix"

var renameTests = []test{
	{"Rename/ReplacesInOneStep", testRenameReplace},
	{"Rename/Errnos", testRenameErrnos},
	{"Rename/DirectoriesAndTheirLinks", testRenameDirs},
	{"Rename/TwoNamesOfOneFileStay", testRenameSame},
	{"Rename/NoReplace", testRenameNoReplace},
	{"Rename/Exchange", testRenameExchange},
	{"Rename/Whiteout", testRenameWhiteout},
	{"Rename/HandlesFollow", testRenameHandles},
}

func testRenameReplace(e *env) {
	d := e.mkdir(e.root, "d")
	f := e.file(e.root, "a", "new")
	old := e.file(d, "b", "old")
	ino := e.stat(f).Ino
	e.ok("rename", e.root.Rename("a", d, "b", 0))
	e.absent(e.root, "a")
	e.same("inode", e.statAt(d, "b").Ino, ino)
	e.same("content", e.contentAt(d, "b"), "new")
	e.same("links of the replaced", e.stat(old).Nlink, uint32(0))
	e.same("content of the replaced", e.content(old), "old")
	e.ok("a link over a file", e.root.Symlink("x", "l"))
	e.ok("rename", e.root.Rename("l", d, "b", 0))
	st := e.statAt(d, "b")
	e.same("type", st.Type(), uint32(unix.S_IFLNK))
}

func testRenameErrnos(e *env) {
	d := e.mkdir(e.root, "d")
	sub := e.mkdir(d, "sub")
	empty := e.mkdir(e.root, "empty")
	e.file(e.root, "file", "")
	e.fails("absent", e.root.Rename("absent", e.root, "x", 0), unix.ENOENT)
	e.fails("absent over something", e.root.Rename("absent", e.root, "file", 0), unix.ENOENT)
	e.fails("file over directory", e.root.Rename("file", e.root, "empty", 0), unix.EISDIR)
	e.fails("directory over file", e.root.Rename("empty", e.root, "file", 0), unix.ENOTDIR)
	e.fails("directory over full directory", e.root.Rename("empty", e.root, "d", 0), unix.ENOTEMPTY, unix.EEXIST)
	e.fails("file over full directory", e.root.Rename("file", e.root, "d", 0), unix.EISDIR)
	e.fails("directory into itself", e.root.Rename("d", d, "x", 0), unix.EINVAL)
	e.fails("directory below itself", e.root.Rename("d", sub, "x", 0), unix.EINVAL)
	e.fails("directory over its parent", d.Rename("sub", e.root, "d", 0), unix.ENOTEMPTY)
	e.file(sub, "deep", "")
	e.fails("file over a directory above", sub.Rename("deep", e.root, "d", 0), unix.ENOTEMPTY)
	e.fails("unknown flags", e.root.Rename("file", e.root, "x", 1<<5), unix.EINVAL)
	for _, flags := range []uint{unix.RENAME_EXCHANGE | unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE | unix.RENAME_WHITEOUT} {
		e.fails("flags that exclude each other", e.root.Rename("file", e.root, "d", flags), unix.EINVAL)
	}
	e.same("names", e.names(e.root), "d empty file")
	e.ok("over itself", e.root.Rename("file", e.root, "file", 0))
	e.ok("directory over empty directory", d.Rename("sub", e.root, "empty", 0))
	e.same("names", e.names(e.root), "d empty file")
	e.same("links of the replaced", e.stat(empty).Nlink, uint32(0))
	e.same("names below", e.names(e.opendir(e.root, "empty")), "deep")
}

func testRenameDirs(e *env) {
	a, b := e.mkdir(e.root, "a"), e.mkdir(e.root, "b")
	e.mkdir(a, "sub")
	e.mkdir(b, "empty")
	e.dirLinks("links", a, 3)
	e.ok("move", a.Rename("sub", b, "sub", 0))
	e.dirLinks("links of the old parent", a, 2)
	e.dirLinks("links of the new parent", b, 4)
	e.ok("replace", b.Rename("sub", b, "empty", 0))
	e.dirLinks("links after replacing", b, 3)
	e.ok("rename", b.Rename("empty", b, "again", 0))
	e.dirLinks("links after renaming", b, 3)
	e.ok("move", e.root.Rename("a", b, "a", 0))
	e.same("names", e.names(b), "a again")
}

func testRenameSame(e *env) {
	f := e.file(e.root, "a", "x")
	e.ok("link", e.root.Link(f, "b"))
	e.ok("rename", e.root.Rename("a", e.root, "b", 0))
	e.same("names", e.names(e.root), "a b")
	e.same("links", e.stat(f).Nlink, uint32(2))
	e.fails("no replace", e.root.Rename("a", e.root, "b", unix.RENAME_NOREPLACE), unix.EEXIST)
}

func testRenameNoReplace(e *env) {
	e.file(e.root, "a", "a")
	e.file(e.root, "b", "b")
	e.ok("mkdir", e.root.Mkdir("d", 0o755))
	e.fails("over a file", e.root.Rename("a", e.root, "b", unix.RENAME_NOREPLACE), unix.EEXIST)
	e.fails("over a directory", e.root.Rename("a", e.root, "d", unix.RENAME_NOREPLACE), unix.EEXIST)
	e.fails("absent", e.root.Rename("x", e.root, "y", unix.RENAME_NOREPLACE), unix.ENOENT)
	err := e.root.Rename("a", e.root, "c", unix.RENAME_NOREPLACE)
	if e.able(e.RenameFlags, "to a free name", err, unix.EINVAL) {
		e.same("names", e.names(e.root), "b c d")
	}
}

func testRenameExchange(e *env) {
	a, b := e.mkdir(e.root, "a"), e.mkdir(e.root, "b")
	e.file(a, "file", "file")
	sub := e.mkdir(b, "sub")
	e.file(sub, "inner", "")
	e.fails("with nothing", a.Rename("file", b, "absent", unix.RENAME_EXCHANGE), unix.ENOENT)
	e.fails("nothing", a.Rename("absent", b, "sub", unix.RENAME_EXCHANGE), unix.ENOENT)
	e.fails("with a directory below", e.root.Rename("b", b, "sub", unix.RENAME_EXCHANGE), unix.EINVAL)
	e.fails("with a directory above", b.Rename("sub", e.root, "b", unix.RENAME_EXCHANGE), unix.EINVAL)
	err := a.Rename("file", b, "sub", unix.RENAME_EXCHANGE)
	if !e.able(e.RenameFlags, "file and directory", err, unix.EINVAL) {
		return
	}
	e.same("content", e.contentAt(b, "sub"), "file")
	e.same("names in the directory", e.names(e.opendir(a, "file")), "inner")
	e.dirLinks("links of the new parent", a, 3)
	e.dirLinks("links of the old parent", b, 2)
	e.ok("within a directory", e.root.Rename("a", e.root, "b", unix.RENAME_EXCHANGE))
	e.same("names in what was a", e.names(e.opendir(e.root, "b")), "file")
	e.ok("with itself", e.root.Rename("a", e.root, "a", unix.RENAME_EXCHANGE))
}

func testRenameWhiteout(e *env) {
	d := e.mkdir(e.root, "d")
	e.file(e.root, "a", "a")
	e.file(d, "b", "b")
	err := e.root.Rename("a", d, "b", unix.RENAME_WHITEOUT)
	otherwise := unix.EINVAL
	if e.RenameFlags {
		otherwise = unix.EPERM
	}
	if !e.able(e.RenameFlags && e.Whiteout, "whiteout", err, otherwise) {
		e.same("content", e.contentAt(d, "b"), "b")
		return
	}
	st := e.statAt(e.root, "a")
	e.same("is a whiteout", st.IsWhiteoutDevice(), true)
	e.same("its mode", st.Mode, uint32(unix.S_IFCHR))
	e.same("content", e.contentAt(d, "b"), "a")
	e.ok("directory", e.root.Rename("d", e.root, "e", unix.RENAME_WHITEOUT|unix.RENAME_NOREPLACE))
	st = e.statAt(e.root, "d")
	e.same("is a whiteout", st.IsWhiteoutDevice(), true)
	e.same("names", e.names(e.root), "a d e")
}

func testRenameHandles(e *env) {
	a, b := e.mkdir(e.root, "a"), e.mkdir(e.root, "b")
	d := e.mkdir(a, "d")
	f := e.file(d, "file", "x")
	obj := e.lookup(d, "file")
	ino := e.stat(d).Ino
	e.ok("rename", a.Rename("d", b, "e", 0))
	e.file(d, "more", "by handle")
	e.same("content by the new name", e.contentAt(e.opendir(b, "e"), "more"), "by handle")
	e.same("inode", e.statAt(b, "e").Ino, ino)
	e.ok("rename", d.Rename("file", a, "moved", 0))
	e.write(f, "y", 0)
	e.ok("chmod", obj.Chmod(0o611))
	e.same("content", e.contentAt(a, "moved"), "y")
	e.same("mode", e.statAt(a, "moved").Mode, uint32(unix.S_IFREG|0o611))
}
