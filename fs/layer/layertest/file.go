package layertest

import (
	"strings"

	"golang.org/x/sys/unix"
)

var fileTests = []test{
	{"File/ReadAndWrite", testReadWrite},
	{"File/OpenModesBind", testOpenModes},
	{"File/Append", testAppend},
	{"File/Truncate", testTruncate},
	{"File/OpenTruncateAndExclusive", testOpenFlags},
	{"File/HandlesShareContent", testShareContent},
	{"File/SyncsSucceed", testSync},
}

func testReadWrite(e *env) {
	f := e.file(e.root, "f", "hello")
	p := make([]byte, 10)
	n, err := f.ReadAt(p, 3)
	e.ok("read to the end", err)
	e.same("bytes", string(p[:n]), "lo")
	n, err = f.ReadAt(p, 5)
	e.ok("read at the end", err)
	e.same("number", n, 0)
	n, err = f.ReadAt(p, 1<<40)
	e.ok("read past the end", err)
	e.same("number", n, 0)
	_, err = f.ReadAt(p, -1)
	e.fails("read before the beginning", err, unix.EINVAL)
	_, err = f.WriteAt(p, -1)
	e.fails("write before the beginning", err, unix.EINVAL)
	n, err = f.ReadAt(nil, 0)
	e.ok("read of nothing", err)
	e.same("number", n, 0)
	e.write(f, "HE", 0)
	e.write(f, "!", 7)
	e.same("content", e.content(f), "HEllo\x00\x00!")
	long := strings.Repeat("0123456789abcdef", 20000)
	e.write(f, long, 5000)
	e.same("long content", e.content(f), "HEllo\x00\x00!"+strings.Repeat("\x00", 4992)+long)
	st := e.stat(f)
	e.same("size", st.Size, int64(5000+len(long)))
	e.same("blocks are there", st.Blocks*512 >= st.Size, true)
}

func testOpenModes(e *env) {
	e.file(e.root, "f", "data")
	r, w := e.open(e.root, "f", unix.O_RDONLY), e.open(e.root, "f", unix.O_WRONLY)
	p := make([]byte, 4)
	_, err := w.ReadAt(p, 0)
	e.fails("read of what is open for writing", err, unix.EBADF)
	_, err = r.WriteAt(p, 0)
	e.fails("write of what is open for reading", err, unix.EBADF)
	e.fails("truncate", r.Truncate(0), unix.EINVAL)
	e.fails("allocate", r.Allocate(0, 0, 10), unix.EBADF)
	e.fails("truncate to less than nothing", w.Truncate(-1), unix.EINVAL)
	_, err = r.CopyRangeFrom(r, 0, 100, 1)
	e.fails("copy to it", err, unix.EBADF)
	_, err = w.CopyRangeFrom(w, 0, 100, 1)
	e.fails("copy from it", err, unix.EBADF)
	reopened, err := w.Reopen(unix.O_RDONLY)
	e.ok("reopen for reading", err)
	e.closing(reopened)
	e.same("content", e.content(reopened), "data")
}

func testAppend(e *env) {
	e.file(e.root, "f", "data")
	a := e.open(e.root, "f", unix.O_RDWR|unix.O_APPEND)
	e.write(a, "1", 0)
	e.write(a, "2", 100)
	e.same("content", e.content(a), "data12")
}

func testTruncate(e *env) {
	f := e.file(e.root, "f", strings.Repeat("x", 10000))
	e.ok("shorten", f.Truncate(5000))
	e.same("size", e.stat(f).Size, int64(5000))
	e.ok("lengthen", f.Truncate(9000))
	e.same("content", e.content(f), strings.Repeat("x", 5000)+strings.Repeat("\x00", 4000))
	e.ok("to nothing", f.Truncate(0))
	e.same("blocks", e.stat(f).Blocks, int64(0))
	e.ok("large and sparse", f.Truncate(1<<40))
	e.same("size", e.stat(f).Size, int64(1<<40))
	e.same("blocks", e.stat(f).Blocks, int64(0))
	e.write(f, "end", 1<<40)
}

func testOpenFlags(e *env) {
	e.file(e.root, "f", "data")
	e.same("content", e.contentAt(e.root, "f"), "data")
	excl := e.open(e.root, "f", unix.O_RDONLY|unix.O_EXCL)
	e.same("content, exclusively without creating", e.content(excl), "data")
	_, err := e.root.OpenFile("f", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
	e.fails("create what is there", err, unix.EEXIST)
	f := e.open(e.root, "f", unix.O_RDWR|unix.O_TRUNC)
	e.same("content", e.content(f), "")
	e.write(f, "more", 0)
	g, err := f.Reopen(unix.O_RDWR | unix.O_TRUNC)
	e.ok("reopen and truncate", err)
	e.closing(g)
	e.same("content", e.content(f), "")
	for name, typ := range special {
		e.ok("mknod", e.root.Mknod(name, typ|0o644, 0))
		// Without O_CREAT the flag O_EXCL is ignored by files, and must not
		// be what opens a FIFO.
		e.fails("open "+name+" exclusively", closed(e.root.OpenFile(name, unix.O_RDONLY|unix.O_EXCL, 0)), unix.ENXIO)
	}
}

func testShareContent(e *env) {
	f := e.file(e.root, "f", "one")
	g := e.open(e.root, "f", unix.O_RDONLY)
	h, err := e.lookup(e.root, "f").Reopen(unix.O_RDWR)
	e.ok("reopen", err)
	e.closing(h)
	e.write(f, "two", 3)
	e.same("content by another handle", e.content(g), "onetwo")
	e.ok("truncate", h.Truncate(1))
	e.same("content by another handle", e.content(g), "o")
	e.ok("link", e.root.Link(f, "g"))
	e.same("content by another name", e.contentAt(e.root, "g"), "o")
}

func testSync(e *env) {
	f := e.file(e.root, "f", "data")
	e.ok("sync", f.Sync(false))
	e.ok("sync of data", f.Sync(true))
	e.ok("write-out", f.WriteOut())
	r := e.open(e.root, "f", unix.O_RDONLY)
	e.ok("sync of a file open for reading", r.Sync(false))
	e.ok("write-out of a file open for reading", r.WriteOut())
	e.ok("sync of the directory", e.root.Sync())
}
