// Package layertest is the conformance suite of package layer: what the union
// relies on, as tests that every implementation passes.
//
//	func TestHost(t *testing.T) {
//		layertest.Run(t, layertest.Ext4, func(t testing.TB) layer.Dir { … })
//	}
//
// What filesystems and callers differ in is declared by [Caps], and a missing
// ability is tested too: the union tells it by its errno.
package layertest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

// Caps declares what an implementation can do for its caller. What is false is
// expected to fail with the errno given.
type Caps struct {
	Privileged  bool // the caller has all capabilities over the files; else EPERM
	Trusted     bool // trusted xattrs can be set; else EPERM
	Whiteout    bool // mknod of a character device 0:0; else EPERM
	Xattrs      bool // trusted and security xattrs exist; else EOPNOTSUPP
	UserXattrs  bool // else EOPNOTSUPP
	ACLs        bool // else EOPNOTSUPP
	DirLinks    bool // directories count the ".." below them as links; else their count is 1
	Punch       bool // fallocate can punch holes; else EOPNOTSUPP
	ZeroRange   bool // and zero ranges; else EOPNOTSUPP
	Shift       bool // and collapse and insert ranges; else EOPNOTSUPP
	Reflink     bool // else EOPNOTSUPP
	TmpFile     bool // else EOPNOTSUPP
	Handles     bool // else EOPNOTSUPP
	RenameFlags bool // EXCHANGE and WHITEOUT; else EINVAL

	// Except names tests that an implementation does not pass on purpose, with
	// the reason, which its documentation gives too.
	Except map[string]string
}

// Ext4 is what ext4 can do for root.
var Ext4 = Caps{
	Privileged: true, Trusted: true, Whiteout: true, Xattrs: true, UserXattrs: true, ACLs: true,
	DirLinks: true, Punch: true, ZeroRange: true, Shift: true, TmpFile: true, Handles: true, RenameFlags: true,
}

// Tmpfs is what tmpfs can do for root, from Linux 6.6 on.
var Tmpfs = func() Caps {
	c := Ext4
	c.ZeroRange, c.Shift = false, false
	return c
}()

// Btrfs is what btrfs can do for root.
var Btrfs = func() Caps {
	c := Ext4
	c.DirLinks, c.Shift, c.Reflink = false, false, true
	return c
}()

// XFS is what xfs can do for root, made with reflink=1 as mkfs.xfs does.
var XFS = func() Caps {
	c := Ext4
	c.Reflink = true
	return c
}()

// Ordinary returns what is left for a caller without capabilities.
func (c Caps) Ordinary() Caps {
	c.Privileged, c.Trusted = false, false
	return c
}

// Run runs the suite. It asks open for a new and empty directory for each
// test, owned by the caller, and closes it.
func Run(t *testing.T, caps Caps, open func(testing.TB) layer.Dir) {
	for _, group := range [][]test{
		nameTests, createTests, removeTests, renameTests, linkTests, attrTests, timeTests,
		xattrTests, aclTests, fileTests, rangeTests, shareTests, handleTests,
	} {
		for _, x := range group {
			t.Run(x.name, func(t *testing.T) {
				if reason := caps.Except[x.name]; reason != "" {
					t.Skip("on purpose: " + reason)
				}
				root := open(t)
				t.Cleanup(func() {
					if err := root.Close(); err != nil {
						t.Errorf("close the root: %v", err)
					}
				})
				x.run(&env{T: t, Caps: caps, root: root})
			})
		}
	}
}

type test struct {
	name string
	run  func(*env)
}

// env is a test with its directory.
type env struct {
	*testing.T
	Caps
	root layer.Dir
}

// ok stops the test at an error.
func (e *env) ok(what string, err error) {
	e.Helper()
	if err != nil {
		e.Fatalf("%s: %v", what, err)
	}
}

// fails expects an errno.
func (e *env) fails(what string, err error, want ...syscall.Errno) {
	e.Helper()
	var got syscall.Errno
	switch {
	case err == nil:
		e.Errorf("%s succeeded, want %v", what, want)
	case !errors.As(err, &got):
		e.Errorf("%s: %v is no errno, want %v", what, err, want)
	case !slices.Contains(want, got):
		e.Errorf("%s: %v (%d), want %v", what, got, int(got), want)
	}
}

// able expects success where the ability is declared, and the errno elsewhere;
// it reports whether to go on.
func (e *env) able(has bool, what string, err error, otherwise syscall.Errno) bool {
	e.Helper()
	if has {
		e.ok(what, err)
		return true
	}
	e.fails(what+" without the ability", err, otherwise)
	return false
}

func (e *env) same(what string, got, want any) {
	e.Helper()
	if got != want {
		e.Errorf("%s is %v, want %v", what, got, want)
	}
}

// closing closes at the end of the test.
func (e *env) closing(o layer.Object) {
	e.Cleanup(func() {
		if err := o.Close(); err != nil {
			e.Errorf("close: %v", err)
		}
	})
}

func (e *env) mkdir(d layer.Dir, name string) layer.Dir {
	e.Helper()
	e.ok("mkdir "+name, d.Mkdir(name, 0o755))
	return e.opendir(d, name)
}

func (e *env) opendir(d layer.Dir, name string) layer.Dir {
	e.Helper()
	sub, err := d.OpenDir(name)
	e.ok("open directory "+name, err)
	e.closing(sub)
	return sub
}

// file makes a file with content and returns it open for reading and writing.
func (e *env) file(d layer.Dir, name, content string) layer.File {
	e.Helper()
	f, err := d.OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
	e.ok("create "+name, err)
	e.closing(f)
	if content != "" {
		e.write(f, content, 0)
	}
	return f
}

func (e *env) open(d layer.Dir, name string, flags int) layer.File {
	e.Helper()
	f, err := d.OpenFile(name, flags, 0)
	e.ok("open "+name, err)
	e.closing(f)
	return f
}

func (e *env) lookup(d layer.Dir, name string) layer.Object {
	e.Helper()
	o, err := d.Lookup(name)
	e.ok("lookup "+name, err)
	e.closing(o)
	return o
}

func (e *env) write(f layer.File, content string, off int64) {
	e.Helper()
	n, err := f.WriteAt([]byte(content), off)
	e.ok("write", err)
	e.same("bytes written", n, len(content))
}

func (e *env) content(f layer.File) string {
	e.Helper()
	st := e.stat(f)
	p := make([]byte, st.Size+10)
	n, err := f.ReadAt(p, 0)
	e.ok("read", err)
	e.same("bytes read", int64(n), st.Size)
	return string(p[:n])
}

func (e *env) contentAt(d layer.Dir, name string) string {
	e.Helper()
	f, err := d.OpenFile(name, unix.O_RDONLY, 0)
	e.ok("open "+name, err)
	defer f.Close()
	return e.content(f)
}

func (e *env) stat(o layer.Object) layer.Stat {
	e.Helper()
	st, err := o.Stat()
	e.ok("stat", err)
	return st
}

// dirLinks expects a link count of a directory.
func (e *env) dirLinks(what string, d layer.Dir, want uint32) {
	e.Helper()
	if !e.DirLinks {
		want = 1
	}
	e.same(what, e.stat(d).Nlink, want)
}

func (e *env) statAt(d layer.Dir, name string) layer.Stat {
	e.Helper()
	st, err := d.StatAt(name)
	e.ok("stat "+name, err)
	return st
}

func (e *env) absent(d layer.Dir, name string) {
	e.Helper()
	_, err := d.StatAt(name)
	e.fails("stat "+name, err, unix.ENOENT)
}

// names returns what ReadDir gives, sorted and joined.
func (e *env) names(d layer.Dir) string {
	e.Helper()
	list, err := d.ReadDir()
	e.ok("read directory", err)
	var out []string
	for _, x := range list {
		out = append(out, x.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// xattr returns a value, and whether there is one.
func (e *env) xattr(o layer.Object, attr string) (string, bool) {
	e.Helper()
	var p [1024]byte
	n, err := o.Getxattr(attr, p[:])
	if errors.Is(err, unix.ENODATA) {
		return "", false
	}
	e.ok("getxattr "+attr, err)
	return string(p[:n]), true
}

// xattrNames leaves out what the kernel adds by itself: labels, and the form
// in which xfs shows ACLs once more.
func (e *env) xattrNames(o layer.Object) []string {
	e.Helper()
	var p [1024]byte
	n, err := o.Listxattr(p[:])
	e.ok("listxattr", err)
	var out []string
	for _, b := range bytes.Split(p[:n], []byte{0}) {
		if name := string(b); name != "" && name != "security.selinux" && !strings.HasPrefix(name, "trusted.SGI_ACL_") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// pause lets the clock of the filesystem move on: the times of files may be as
// coarse as a timer tick, 10 ms at HZ=100.
func pause() { time.Sleep(21 * time.Millisecond) }

// special are the types that mknod(2) makes without privileges.
var special = map[string]uint32{"fifo": unix.S_IFIFO, "socket": unix.S_IFSOCK}
