//go:build integration

package datasets

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// clients are what programs do in an empty directory.
var clients = map[string]func(dir string) error{
	"data is what was written":                 writesAndReads,
	"mappings and writes are one":              mapsFiles,
	"appending, cutting and O_DIRECT":          opensInAllWays,
	"renaming":                                 renames,
	"hard links and files without a name":      links,
	"extended attributes":                      xattrs,
	"holes":                                    holes,
	"removed files that are open":              usesRemovedFiles,
	"a directory is listed while it shrinks":   listsWhileRemoving,
	"copy_file_range":                          copiesRanges,
	"times to the nanosecond":                  setsTimes,
	"special files":                            makesSpecialFiles,
	"setgid directories and umask":             inherits,
	"long names, long links, deep directories": goesToLimits,
	"a thousand operations on two files":       exercises,
}

func TestProgramsFindAPOSIXFilesystem(t *testing.T) {
	modes(t, func(t *testing.T, s *server, dir string) {
		for i, name := range slices.Sorted(maps.Keys(clients)) {
			t.Run(name, func(t *testing.T) {
				own := filepath.Join(dir, fmt.Sprint(i))
				s.run("mkdir", own)
				if err := s.client(name, own); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

// changesMode changes the mode of a directory without having looked at it.
func changesMode(dir string) error { return unix.Chmod(dir, 0o750) }

// check is the first error of several steps.
type check struct{ err error }

func (c *check) must(what string, err error) {
	if c.err == nil && err != nil {
		c.err = fmt.Errorf("%s: %w", what, err)
	}
}

func (c *check) want(what string, err, want error) {
	if c.err == nil && !errors.Is(err, want) {
		c.err = fmt.Errorf("%s: %v, want %v", what, err, want)
	}
}

func (c *check) that(ok bool, format string, args ...any) {
	if c.err == nil && !ok {
		c.err = fmt.Errorf(format, args...)
	}
}

func (c *check) open(name string, flags int) *os.File {
	f, err := os.OpenFile(name, flags, 0o644)
	c.must("open "+filepath.Base(name), err)
	if err != nil {
		return os.NewFile(^uintptr(0), name)
	}
	return f
}

func (c *check) content(name string, want []byte) {
	got, err := os.ReadFile(name)
	c.must("read "+filepath.Base(name), err)
	c.that(bytes.Equal(got, want), "%s has %d bytes, want %d, or others", filepath.Base(name), len(got), len(want))
}

func (c *check) stat(name string) (st unix.Stat_t) {
	c.must("stat "+filepath.Base(name), unix.Lstat(name, &st))
	return st
}

func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

func writesAndReads(dir string) error {
	var c check
	name := filepath.Join(dir, "f")
	rng := rand.New(rand.NewPCG(1, 2))
	f := c.open(name, os.O_RDWR|os.O_CREATE)
	defer f.Close()
	var model []byte
	for i := range 400 {
		off, n := rng.IntN(300_000), 1+rng.IntN(30_000)
		switch i % 5 {
		case 0, 1, 2:
			data := random(n, uint64(i))
			_, err := f.WriteAt(data, int64(off))
			c.must("write", err)
			if off+n > len(model) {
				model = append(model, make([]byte, off+n-len(model))...)
			}
			copy(model[off:], data)
		case 3:
			got := make([]byte, n)
			k, err := f.ReadAt(got, int64(off))
			if err != io.EOF {
				c.must("read", err)
			}
			end := min(off+n, len(model))
			c.that(k == max(0, end-off) && (k == 0 || bytes.Equal(got[:k], model[off:end])), "step %d: %d bytes at %d are others", i, k, off)
		case 4:
			size := rng.IntN(len(model) + 20_000)
			c.must("truncate", f.Truncate(int64(size)))
			if size > len(model) {
				model = append(model, make([]byte, size-len(model))...)
			}
			model = model[:size]
		}
	}
	c.must("fsync", f.Sync())
	c.content(name, model)
	return c.err
}

func mapsFiles(dir string) error {
	var c check
	name := filepath.Join(dir, "f")
	f := c.open(name, os.O_RDWR|os.O_CREATE)
	defer f.Close()
	want := random(3*4096, 1)
	_, err := f.Write(want)
	c.must("write", err)
	m, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	copy(m[5000:], "through the mapping")
	copy(want[5000:], "through the mapping")
	got := make([]byte, len(want))
	_, err = f.ReadAt(got, 0)
	c.must("read", err)
	c.that(bytes.Equal(got, want), "a write through a mapping is not read")
	_, err = f.WriteAt([]byte("by a write"), 9000)
	c.must("write", err)
	copy(want[9000:], "by a write")
	c.that(bytes.Equal(m, want), "a write is not in the mapping")
	c.must("msync", unix.Msync(m, unix.MS_SYNC))
	c.must("fsync", f.Sync())
	c.content(name, want)

	private, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(private)
	copy(private, "nobody sees this")
	c.content(name, want)
	return c.err
}

func opensInAllWays(dir string) error {
	var c check
	name := filepath.Join(dir, "f")
	a, b := c.open(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND), c.open(name, os.O_WRONLY|os.O_APPEND)
	defer a.Close()
	defer b.Close()
	for range 50 {
		_, err := a.WriteString("a")
		c.must("append", err)
		_, err = b.WriteString("b")
		c.must("append", err)
	}
	c.content(name, bytes.Repeat([]byte("ab"), 50))
	_, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	c.want("open with O_EXCL", err, unix.EEXIST)
	c.open(name, os.O_WRONLY|os.O_TRUNC).Close()
	c.content(name, nil)

	direct, err := unix.Open(name, unix.O_RDWR|unix.O_DIRECT, 0)
	c.must("open with O_DIRECT", err)
	defer unix.Close(direct)
	page, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(page)
	copy(page, random(8192, 3))
	_, err = unix.Pwrite(direct, page, 4096)
	c.must("direct write", err)
	c.content(name, append(make([]byte, 4096), page...))
	clear(page[:4096])
	_, err = unix.Pread(direct, page[:4096], 4096)
	c.must("direct read", err)
	c.that(bytes.Equal(page[:4096], random(8192, 3)[:4096]), "a direct read has other bytes")
	return c.err
}

func renames(dir string) error {
	var c check
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"a", "b", "c"} {
		c.must("write", os.WriteFile(in(name), []byte(name), 0o644))
	}
	c.must("mkdir", os.MkdirAll(in("d/e"), 0o755))
	open := c.open(in("b"), os.O_RDONLY)
	defer open.Close()
	c.must("rename over a file", os.Rename(in("a"), in("b")))
	c.content(in("b"), []byte("a"))
	old, err := io.ReadAll(open)
	c.must("read what was replaced", err)
	c.that(string(old) == "b", "what was replaced reads as %q", old)
	at := unix.AT_FDCWD
	c.want("rename with NOREPLACE", unix.Renameat2(at, in("b"), at, in("c"), unix.RENAME_NOREPLACE), unix.EEXIST)
	c.must("exchange", unix.Renameat2(at, in("b"), at, in("d"), unix.RENAME_EXCHANGE))
	c.content(in("d"), []byte("a"))
	c.that(c.stat(in("b/e")).Mode&unix.S_IFMT == unix.S_IFDIR, "the exchanged directory is none")
	c.want("rename a directory into itself", os.Rename(in("b"), in("b/e/f")), unix.EINVAL)
	c.must("mkdir", os.Mkdir(in("full"), 0o755))
	c.must("write", os.WriteFile(in("full/x"), nil, 0o644))
	c.want("rename over a full directory", unix.Rename(in("b"), in("full")), unix.ENOTEMPTY)
	c.want("rename a file over a directory", unix.Rename(in("c"), in("full")), unix.EISDIR)
	c.want("rename a directory over a file", unix.Rename(in("full"), in("c")), unix.ENOTDIR)
	c.must("move a directory", os.Rename(in("full"), in("b/e/full")))
	c.content(in("b/e/full/x"), nil)
	parent, below := c.stat(in("b/e")), c.stat(in("b/e/full/.."))
	c.that(parent.Ino == below.Ino, "the parent of a moved directory is %d, want %d", below.Ino, parent.Ino)
	return c.err
}

func links(dir string) error {
	var c check
	in := func(name string) string { return filepath.Join(dir, name) }
	c.must("write", os.WriteFile(in("a"), []byte("one"), 0o644))
	for i := range 20 {
		c.must("link", os.Link(in("a"), in(fmt.Sprint("l", i))))
	}
	c.must("write through a link", os.WriteFile(in("l7"), []byte("another"), 0o644))
	c.content(in("a"), []byte("another"))
	c.that(c.stat(in("a")).Nlink == 21 && c.stat(in("a")).Ino == c.stat(in("l3")).Ino, "the links are not one file")
	c.must("remove", os.Remove(in("a")))
	c.that(c.stat(in("l0")).Nlink == 20, "%d links, want 20", c.stat(in("l0")).Nlink)
	c.want("link a directory", unix.Link(dir, in("dir")), unix.EPERM)

	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("O_TMPFILE: %w", err)
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("unnamed"))
	c.must("write", err)
	c.must("name it", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, in("named"), unix.AT_SYMLINK_FOLLOW))
	c.content(in("named"), []byte("unnamed"))
	return c.err
}

func xattrs(dir string) error {
	var c check
	name := filepath.Join(dir, "f")
	c.must("write", os.WriteFile(name, nil, 0o644))
	big := random(64<<10, 5)
	get := func(attr string) []byte {
		b := make([]byte, 64<<10)
		n, err := unix.Getxattr(name, attr, b)
		c.must("getxattr "+attr, err)
		return b[:max(0, n)]
	}
	c.must("set", unix.Setxattr(name, "user.small", []byte("v"), unix.XATTR_CREATE))
	c.must("set a large one", unix.Setxattr(name, "user.big", big, 0))
	c.must("set an empty one", unix.Setxattr(name, "user.empty", nil, 0))
	c.that(string(get("user.small")) == "v" && bytes.Equal(get("user.big"), big) && len(get("user.empty")) == 0, "values are others")
	c.want("create again", unix.Setxattr(name, "user.small", nil, unix.XATTR_CREATE), unix.EEXIST)
	c.want("replace none", unix.Setxattr(name, "user.none", nil, unix.XATTR_REPLACE), unix.ENODATA)
	_, err := unix.Getxattr(name, "user.big", make([]byte, 10))
	c.want("too short a buffer", err, unix.ERANGE)
	list := make([]byte, 1000)
	n, err := unix.Listxattr(name, list)
	c.must("list", err)
	for _, attr := range []string{"user.small", "user.big", "user.empty"} {
		c.that(bytes.Contains(list[:max(0, n)], []byte(attr+"\x00")), "%s is not listed", attr)
	}
	c.must("remove", unix.Removexattr(name, "user.big"))
	_, err = unix.Getxattr(name, "user.big", nil)
	c.want("get what was removed", err, unix.ENODATA)
	if os.Geteuid() == 0 {
		c.must("set a trusted one", unix.Setxattr(name, "trusted.t", []byte("t"), 0))
		c.that(string(get("trusted.t")) == "t", "a trusted value is another")
	}
	return c.err
}

func holes(dir string) error {
	var c check
	const mb = 1 << 20
	f := c.open(filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE)
	defer f.Close()
	fd := int(f.Fd())
	_, err := f.WriteAt(random(mb, 1), 8*mb)
	c.must("write", err)
	c.must("truncate", f.Truncate(64<<30))
	c.must("fsync", f.Sync())
	st := c.stat(f.Name())
	c.that(st.Size == 64<<30 && st.Blocks*512 < 2*mb, "%d bytes with %d blocks", st.Size, st.Blocks)
	for _, s := range []struct {
		from   int64
		whence int
		want   int64
	}{{0, unix.SEEK_DATA, 8 * mb}, {0, unix.SEEK_HOLE, 0}, {8 * mb, unix.SEEK_HOLE, 9 * mb}} {
		at, err := unix.Seek(fd, s.from, s.whence)
		c.must("seek", err)
		c.that(at == s.want, "from %d by %d: %d, want %d", s.from, s.whence, at, s.want)
	}
	_, err = unix.Seek(fd, 9*mb, unix.SEEK_DATA)
	c.want("seek for data behind all", err, unix.ENXIO)
	const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	c.must("punch a hole", unix.Fallocate(fd, punch, 8*mb+100, mb/2))
	want := random(mb, 1)
	clear(want[100 : 100+mb/2])
	got := make([]byte, mb)
	_, err = f.ReadAt(got, 8*mb)
	c.must("read", err)
	c.that(bytes.Equal(got, want), "the hole is not where it was punched")
	c.must("zero a range", unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 8*mb, mb))
	_, err = f.ReadAt(got, 8*mb)
	c.must("read", err)
	c.that(bytes.Equal(got, make([]byte, mb)), "a range that was zeroed is not")
	c.must("allocate", unix.Fallocate(fd, 0, 64<<30, mb))
	c.that(c.stat(f.Name()).Size == 64<<30+mb, "allocated space is not in the size")
	return c.err
}

func usesRemovedFiles(dir string) error {
	var c check
	name := filepath.Join(dir, "f")
	f := c.open(name, os.O_RDWR|os.O_CREATE)
	defer f.Close()
	_, err := f.WriteString("before")
	c.must("write", err)
	c.must("remove", os.Remove(name))
	_, err = f.WriteAt([]byte("after!"), 100_000)
	c.must("write", err)
	got := make([]byte, 6)
	_, err = f.ReadAt(got, 0)
	c.must("read", err)
	var st unix.Stat_t
	c.must("fstat", unix.Fstat(int(f.Fd()), &st))
	c.that(string(got) == "before" && st.Nlink == 0 && st.Size == 100_006, "%q, %d links, %d bytes", got, st.Nlink, st.Size)
	c.must("fchmod", f.Chmod(0o600))
	c.must("fsync", f.Sync())

	sub := filepath.Join(dir, "d")
	c.must("mkdir", os.Mkdir(sub, 0o755))
	d := c.open(sub, os.O_RDONLY)
	defer d.Close()
	c.must("rmdir", os.Remove(sub))
	_, err = unix.Openat(int(d.Fd()), "x", unix.O_CREAT|unix.O_WRONLY, 0o644)
	c.want("make a file in a removed directory", err, unix.ENOENT)
	_, err = d.Readdirnames(-1)
	c.want("list a removed directory", err, unix.ENOENT)
	return c.err
}

func listsWhileRemoving(dir string) error {
	var c check
	const many = 3000
	for i := range many {
		c.must("make", os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%05d", i)), nil, 0o644))
	}
	d := c.open(dir, os.O_RDONLY)
	defer d.Close()
	seen := map[string]bool{}
	for c.err == nil {
		list, err := d.Readdirnames(100)
		if err == io.EOF {
			break
		}
		c.must("list", err)
		for _, name := range list {
			c.that(!seen[name], "%s is listed twice", name)
			seen[name] = true
			c.must("remove", os.Remove(filepath.Join(dir, name)))
		}
	}
	c.that(len(seen) == many, "%d of %d were listed", len(seen), many)
	left, err := os.ReadDir(dir)
	c.must("list", err)
	c.that(len(left) == 0, "%d are left", len(left))
	return c.err
}

func copiesRanges(dir string) error {
	var c check
	want := random(3<<20+123, 9)
	c.must("write", os.WriteFile(filepath.Join(dir, "a"), want, 0o644))
	src, dst := c.open(filepath.Join(dir, "a"), os.O_RDONLY), c.open(filepath.Join(dir, "b"), os.O_RDWR|os.O_CREATE)
	defer src.Close()
	defer dst.Close()
	for left := len(want); left > 0 && c.err == nil; {
		n, err := unix.CopyFileRange(int(src.Fd()), nil, int(dst.Fd()), nil, left, 0)
		c.must("copy_file_range", err)
		c.that(n > 0, "nothing was copied, %d bytes are left", left)
		left -= n
	}
	c.content(dst.Name(), want)
	_, err := dst.WriteAt([]byte("changed"), 1<<20)
	c.must("write", err)
	c.content(src.Name(), want)
	return c.err
}

func setsTimes(dir string) error {
	var c check
	name := filepath.Join(dir, "f")
	c.must("write", os.WriteFile(name, nil, 0o644))
	at, mt := unix.Timespec{Sec: 1_000_000_000, Nsec: 123_456_789}, unix.Timespec{Sec: -5, Nsec: 1}
	c.must("utimensat", unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{at, mt}, 0))
	st := c.stat(name)
	c.that(st.Atim == at && st.Mtim == mt, "times %v and %v, want %v and %v", st.Atim, st.Mtim, at, mt)
	var x unix.Statx_t
	c.must("statx", unix.Statx(unix.AT_FDCWD, name, 0, unix.STATX_BTIME, &x))
	c.that(x.Mask&unix.STATX_BTIME != 0 && x.Btime.Sec > 1_700_000_000, "birth time %+v", x.Btime)
	before := c.stat(name).Ctim
	time.Sleep(10 * time.Millisecond) // the kernel's clock has large steps
	c.must("chmod", os.Chmod(name, 0o600))
	c.that(unix.TimespecToNsec(c.stat(name).Ctim) > unix.TimespecToNsec(before), "chmod has left the time of the last change")
	return c.err
}

func makesSpecialFiles(dir string) error {
	var c check
	in := func(name string) string { return filepath.Join(dir, name) }
	c.must("mkfifo", unix.Mkfifo(in("fifo"), 0o640))
	c.that(c.stat(in("fifo")).Mode&(unix.S_IFMT|0o777) == unix.S_IFIFO|0o640, "mode %o", c.stat(in("fifo")).Mode)
	c.must("symlink", os.Symlink("no/where", in("link")))
	target, err := os.Readlink(in("link"))
	c.must("readlink", err)
	c.that(target == "no/where", "the link leads to %q", target)
	c.must("socket", unix.Mknod(in("socket"), unix.S_IFSOCK|0o600, 0))
	if os.Geteuid() == 0 {
		c.must("mknod", unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		c.that(c.stat(in("null")).Rdev == unix.Mkdev(1, 3), "device %x", c.stat(in("null")).Rdev)
	}
	return c.err
}

func inherits(dir string) error {
	var c check
	in := func(name string) string { return filepath.Join(dir, name) }
	unix.Umask(0o027)
	c.must("mkdir", os.Mkdir(in("d"), 0o777))
	c.that(c.stat(in("d")).Mode&0o7777 == 0o750, "mode %o", c.stat(in("d")).Mode)
	c.must("chmod", unix.Chmod(in("d"), 0o2770))
	c.must("mkdir", os.Mkdir(in("d/sub"), 0o777))
	c.that(c.stat(in("d/sub")).Mode&0o7777 == 0o2750, "mode %o below a setgid directory", c.stat(in("d/sub")).Mode)
	return c.err
}

func goesToLimits(dir string) error {
	var c check
	name := string(bytes.Repeat([]byte("n"), 255))
	c.must("a name of 255 bytes", os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644))
	c.content(filepath.Join(dir, name), []byte("x"))
	c.want("a name of 256 bytes", os.WriteFile(filepath.Join(dir, name+"n"), nil, 0o644), unix.ENAMETOOLONG)
	target := string(bytes.Repeat([]byte("t/"), 2000))
	c.must("a long link", os.Symlink(target, filepath.Join(dir, "link")))
	got, err := os.Readlink(filepath.Join(dir, "link"))
	c.must("readlink", err)
	c.that(got == target, "a long link leads elsewhere")
	deep := dir
	for range 200 {
		deep = filepath.Join(deep, "d")
	}
	c.must("a deep directory", os.MkdirAll(deep, 0o755))
	c.must("write there", os.WriteFile(filepath.Join(deep, "f"), []byte("deep"), 0o644))
	c.content(filepath.Join(deep, "f"), []byte("deep"))
	c.must("remove all", os.RemoveAll(filepath.Join(dir, "d")))
	return c.err
}
