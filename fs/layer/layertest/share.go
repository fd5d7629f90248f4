package layertest

import (
	"strings"

	"golang.org/x/sys/unix"
)

var shareTests = []test{
	{"Share/CopyRange", testCopyRange},
	{"Share/Clone", testClone},
	{"Share/CloneRange", testCloneRange},
}

func testCopyRange(e *env) {
	src := e.file(e.root, "src", "0123456789")
	dst := e.file(e.root, "dst", "abc")
	n, err := dst.CopyRangeFrom(src, 2, 1, 4)
	e.ok("copy", err)
	e.same("copied", n, 4)
	e.same("content", e.content(dst), "a2345")
	n, err = dst.CopyRangeFrom(src, 8, 5, 100)
	e.ok("copy past the end", err)
	e.same("copied", n, 2)
	n, err = dst.CopyRangeFrom(src, 50, 0, 5)
	e.ok("copy behind the end", err)
	e.same("copied", n, 0)
	n, err = dst.CopyRangeFrom(src, 0, 0, 0)
	e.ok("copy of nothing", err)
	e.same("copied", n, 0)
	e.same("content", e.content(dst), "a234589")
	_, err = src.CopyRangeFrom(src, 0, 2, 5)
	e.fails("copy onto itself", err, unix.EINVAL)
	n, err = src.CopyRangeFrom(src, 0, 10, 5)
	e.ok("copy within", err)
	e.same("copied", n, 5)
	e.same("content", e.content(src), "012345678901234")
	app := e.open(e.root, "dst", unix.O_WRONLY|unix.O_APPEND)
	_, err = app.CopyRangeFrom(src, 0, 0, 5)
	e.fails("copy to what appends", err, unix.EBADF)
}

func testClone(e *env) {
	content := strings.Repeat("x", chunk) + "tail"
	src := e.file(e.root, "src", content)
	dst := e.file(e.root, "dst", "old")
	r := e.open(e.root, "dst", unix.O_RDONLY)
	err := dst.CloneFrom(src)
	if !e.able(e.Reflink, "clone", err, unix.EOPNOTSUPP) {
		e.same("content", e.content(dst), "old")
		return
	}
	e.same("content", e.content(dst) == content, true)
	e.write(src, "changed", 0)
	e.same("content after a change of the source", e.content(dst) == content, true)
	e.fails("clone to what is open for reading", r.CloneFrom(src), unix.EBADF)
}

func testCloneRange(e *env) {
	a, b := strings.Repeat("a", chunk), strings.Repeat("b", chunk)
	src := e.file(e.root, "src", a+b+"tail")
	dst := e.file(e.root, "dst", b+b)
	err := dst.CloneRangeFrom(src, 0, chunk, chunk)
	if !e.able(e.Reflink, "clone range", err, unix.EOPNOTSUPP) {
		e.same("content", e.content(dst) == b+b, true)
		return
	}
	e.same("content", e.content(dst) == b+a, true)
	e.ok("to the end", dst.CloneRangeFrom(src, chunk, 0, 2*chunk))
	e.same("content", e.content(dst) == b+a+b+"tail", true)
	e.fails("parts of blocks", dst.CloneRangeFrom(src, 5, chunk, 0), unix.EINVAL)
	e.fails("to a part of a block", dst.CloneRangeFrom(src, 0, chunk, 5), unix.EINVAL)
	e.fails("past the end", dst.CloneRangeFrom(src, chunk, 5*chunk, 0), unix.EINVAL)
	e.fails("the tail into the middle", dst.CloneRangeFrom(src, 2*chunk, 4, 0), unix.EINVAL)
	e.fails("onto itself", src.CloneRangeFrom(src, 0, 2*chunk, chunk), unix.EINVAL)
}
