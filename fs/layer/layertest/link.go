package layertest

import (
	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

var linkTests = []test{
	{"Link/EveryTypeButDirectories", testLink},
	{"Link/ForeignObjectsAreEXDEV", testForeign},
}

func testLink(e *env) {
	types := makeAll(e)
	d := e.mkdir(e.root, "d")
	for name, typ := range types {
		obj := e.lookup(e.root, name)
		if typ == unix.S_IFDIR {
			e.fails("link a directory", d.Link(obj, name), unix.EPERM)
			e.fails("link an open directory", d.Link(e.opendir(e.root, name), name), unix.EPERM)
			continue
		}
		e.ok("link "+name, d.Link(obj, name))
		st := e.statAt(d, name)
		e.same("links of "+name, st.Nlink, uint32(2))
		e.same("other name of "+name, e.statAt(e.root, name), st)
		e.ok("unlink "+name, e.root.Unlink(name))
		e.same("links of "+name, e.stat(obj).Nlink, uint32(1))
		e.ok("link "+name+" back", e.root.Link(obj, name))
	}
	e.ok("link an open file", d.Link(e.open(e.root, "file", unix.O_RDONLY), "by-file"))
	e.same("content", e.contentAt(d, "by-file"), "content")
}

// foreign hides what an object is, as another implementation would.
type foreign struct{ layer.Object }

type foreignDir struct{ layer.Dir }

type foreignFile struct{ layer.File }

func testForeign(e *env) {
	f := e.file(e.root, "a", "x")
	e.fails("link", e.root.Link(foreign{f}, "b"), unix.EXDEV)
	e.fails("rename", e.root.Rename("a", foreignDir{e.root}, "b", 0), unix.EXDEV)
	_, err := f.CopyRangeFrom(foreignFile{f}, 0, 10, 1)
	e.fails("copy", err, unix.EXDEV)
	e.fails("clone", f.CloneFrom(foreignFile{f}), unix.EXDEV)
	e.fails("clone range", f.CloneRangeFrom(foreignFile{f}, 0, 0, 4096), unix.EXDEV)
}
