package layertest

import (
	"strings"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

var rangeTests = []test{
	{"Range/HolesAreFound", testHoles},
	{"Range/Allocate", testAllocate},
	{"Range/PunchHole", testPunch},
	{"Range/CollapseAndInsert", testShift},
	{"Range/Zero", testZeroRange},
}

const (
	keepSize = unix.FALLOC_FL_KEEP_SIZE
	punch    = unix.FALLOC_FL_PUNCH_HOLE | keepSize
	chunk    = 64 << 10 // whole blocks, whatever their size
)

func (e *env) seek(f layer.File, off int64, whence int, want int64) {
	e.Helper()
	got, err := f.Seek(off, whence)
	if want < 0 {
		e.fails("seek", err, unix.ENXIO)
		return
	}
	e.ok("seek", err)
	if got != want {
		e.Errorf("seek from %d (%d) is %d, want %d", off, whence, got, want)
	}
}

func testHoles(e *env) {
	f := e.file(e.root, "f", "")
	e.seek(f, 0, unix.SEEK_DATA, -1)
	e.seek(f, 0, unix.SEEK_HOLE, -1)
	e.write(f, strings.Repeat("a", chunk), chunk)
	e.write(f, strings.Repeat("b", chunk), 3*chunk)
	e.ok("truncate", f.Truncate(5*chunk))
	e.seek(f, 0, unix.SEEK_DATA, chunk)
	e.seek(f, 0, unix.SEEK_HOLE, 0)
	e.seek(f, chunk, unix.SEEK_HOLE, 2*chunk)
	e.seek(f, chunk+5, unix.SEEK_DATA, chunk+5)
	e.seek(f, 2*chunk, unix.SEEK_DATA, 3*chunk)
	e.seek(f, 2*chunk+7, unix.SEEK_HOLE, 2*chunk+7)
	e.seek(f, 3*chunk, unix.SEEK_HOLE, 4*chunk)
	e.seek(f, 4*chunk, unix.SEEK_DATA, -1)
	e.seek(f, 5*chunk, unix.SEEK_HOLE, -1)
	e.seek(f, 9*chunk, unix.SEEK_DATA, -1)
	_, err := f.Seek(0, 0)
	e.fails("seek from the beginning", err, unix.EINVAL)
	e.same("sparse", e.stat(f).Blocks*512 < 5*chunk, true)
	e.ok("cut", f.Truncate(4*chunk-10))
	e.seek(f, 3*chunk, unix.SEEK_HOLE, 4*chunk-10)
}

func testAllocate(e *env) {
	f := e.file(e.root, "f", "data")
	e.fails("nothing", f.Allocate(0, 0, 0), unix.EINVAL)
	e.fails("before the beginning", f.Allocate(0, -1, 5), unix.EINVAL)
	e.fails("unknown mode", f.Allocate(1<<12, 0, 5), unix.EOPNOTSUPP)
	e.fails("punch without keep", f.Allocate(unix.FALLOC_FL_PUNCH_HOLE, 0, 5), unix.EOPNOTSUPP)
	e.fails("too large", f.Allocate(0, 1<<62, 1<<61), unix.EFBIG, unix.ENOSPC)
	e.ok("allocate", f.Allocate(0, 0, 3*chunk))
	st := e.stat(f)
	e.same("size", st.Size, int64(3*chunk))
	e.same("allocated", st.Blocks*512 >= 3*chunk, true)
	e.ok("allocate past the end", f.Allocate(keepSize, 3*chunk, chunk))
	e.same("size", e.stat(f).Size, int64(3*chunk))
	e.same("allocated", e.stat(f).Blocks*512 >= 4*chunk, true)
	e.same("content", e.content(f), "data"+strings.Repeat("\x00", 3*chunk-4))
	e.ok("truncate to the same size", f.Truncate(3*chunk))
	e.ok("allocate what is there", f.Allocate(0, 0, 2))
	e.same("size", e.stat(f).Size, int64(3*chunk))
}

func testPunch(e *env) {
	f := e.file(e.root, "f", strings.Repeat("x", 4*chunk))
	err := f.Allocate(punch, chunk, chunk)
	if !e.able(e.Punch, "punch", err, unix.EOPNOTSUPP) {
		return
	}
	x, zero := strings.Repeat("x", chunk), strings.Repeat("\x00", chunk)
	e.same("content", e.content(f) == x+zero+x+x, true)
	e.seek(f, 0, unix.SEEK_HOLE, chunk)
	e.seek(f, chunk, unix.SEEK_DATA, 2*chunk)
	e.ok("punch a part of a block", f.Allocate(punch, 2*chunk+10, 20))
	e.same("content", e.content(f)[2*chunk:2*chunk+40], strings.Repeat("x", 10)+strings.Repeat("\x00", 20)+strings.Repeat("x", 10))
	e.ok("punch past the end", f.Allocate(punch, 3*chunk+5, 9*chunk))
	e.same("size", e.stat(f).Size, int64(4*chunk))
	e.same("content", e.content(f)[3*chunk:] == "xxxxx"+zero[5:], true)
	e.ok("punch behind the end", f.Allocate(punch, 20*chunk, chunk))
	e.same("size", e.stat(f).Size, int64(4*chunk))
}

func testShift(e *env) {
	a, b, c := strings.Repeat("a", chunk), strings.Repeat("b", chunk), strings.Repeat("c", chunk)
	zero := strings.Repeat("\x00", chunk)
	f := e.file(e.root, "f", a+b+c)
	err := f.Allocate(unix.FALLOC_FL_COLLAPSE_RANGE, chunk, chunk)
	if !e.able(e.Shift, "collapse", err, unix.EOPNOTSUPP) {
		e.fails("insert", f.Allocate(unix.FALLOC_FL_INSERT_RANGE, 0, chunk), unix.EOPNOTSUPP)
		e.same("content", e.content(f) == a+b+c, true)
		return
	}
	e.same("content after collapse", e.content(f) == a+c, true)
	e.ok("insert", f.Allocate(unix.FALLOC_FL_INSERT_RANGE, chunk, 2*chunk))
	e.same("content after insert", e.content(f) == a+zero+zero+c, true)
	e.seek(f, chunk, unix.SEEK_DATA, 3*chunk)

	e.fails("collapse of parts of blocks", f.Allocate(unix.FALLOC_FL_COLLAPSE_RANGE, 5, chunk), unix.EINVAL)
	e.fails("collapse of all", f.Allocate(unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4*chunk), unix.EINVAL)
	e.fails("insert of parts of blocks", f.Allocate(unix.FALLOC_FL_INSERT_RANGE, 0, 5), unix.EINVAL)
	e.fails("insert at the end", f.Allocate(unix.FALLOC_FL_INSERT_RANGE, 4*chunk, chunk), unix.EINVAL)
	e.fails("collapse that keeps the size", f.Allocate(unix.FALLOC_FL_COLLAPSE_RANGE|keepSize, 0, chunk), unix.EOPNOTSUPP)
	e.same("size", e.stat(f).Size, int64(4*chunk))
}

func testZeroRange(e *env) {
	a, c := strings.Repeat("a", chunk), strings.Repeat("c", chunk)
	zero := strings.Repeat("\x00", chunk)
	f := e.file(e.root, "f", a+c)
	err := f.Allocate(unix.FALLOC_FL_ZERO_RANGE, chunk-10, 20)
	if !e.able(e.ZeroRange, "zero", err, unix.EOPNOTSUPP) {
		e.same("content", e.content(f) == a+c, true)
		return
	}
	e.same("content after zero", e.content(f) == a[:chunk-10]+zero[:20]+c[10:], true)
	e.ok("zero past the end", f.Allocate(unix.FALLOC_FL_ZERO_RANGE, chunk, 2*chunk))
	e.same("size", e.stat(f).Size, int64(3*chunk))
	e.ok("zero and keep the size", f.Allocate(unix.FALLOC_FL_ZERO_RANGE|keepSize, 2*chunk, 2*chunk))
	e.same("size", e.stat(f).Size, int64(3*chunk))
	e.same("content", e.content(f) == a[:chunk-10]+zero[:10]+zero+zero, true)
	e.same("allocated", e.stat(f).Blocks*512 >= 3*chunk, true)
}
