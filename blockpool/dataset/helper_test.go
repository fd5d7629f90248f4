package dataset_test

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"sort"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/blockpool/dataset/memtree"
)

const testRecord = 4096

// A mount is a mounted dataset whose files are named by paths.
type mount struct {
	testing.TB
	*dataset.FS
	tree *memtree.Tree
	opt  dataset.Options
}

func newMount(t testing.TB, o dataset.Options) *mount {
	t.Helper()
	m := &mount{TB: t, tree: memtree.New("tank/home", 7, testRecord), opt: o}
	m.open()
	t.Cleanup(func() {
		m.Close()
		m.check(m.tree.Open())
	})
	return m
}

func (m *mount) open() {
	m.Helper()
	fs, err := dataset.New(m.tree, m.opt)
	if err != nil {
		m.Fatal(err)
	}
	m.FS = fs
}

// remount closes the filesystem and mounts what a tree has.
func (m *mount) remount(tree *memtree.Tree) {
	m.Helper()
	if err := m.Close(); err != nil {
		m.Fatal(err)
	}
	m.tree = tree.Open()
	m.open()
}

// check finds what contradicts something in a tree.
func (m *mount) check(tree dataset.Tree) {
	m.Helper()
	err := dataset.Check(tree, func(object uint64, problem string) error {
		m.Errorf("object %d: %s", object, problem)
		return nil
	})
	if err != nil {
		m.Error(err)
	}
}

// split returns the directory of a path, with a reference, and the last name.
func (m *mount) split(path string) (*dataset.Node, string) {
	m.Helper()
	i := strings.LastIndexByte(path, '/')
	return m.at(path[:max(i, 0)]), path[i+1:]
}

// lookup returns the node of a path, with a reference.
func (m *mount) lookup(path string) (*dataset.Node, error) {
	n := m.Root()
	if path == "" {
		return n, nil
	}
	for _, name := range strings.Split(path, "/") {
		c, _, err := m.Lookup(n, name)
		m.Forget(n, 1)
		if err != nil {
			return nil, err
		}
		n = c
	}
	return n, nil
}

func (m *mount) at(path string) *dataset.Node {
	m.Helper()
	n, err := m.lookup(path)
	if err != nil {
		m.Fatalf("%s: %v", path, err)
	}
	return n
}

// on calls f with the node of a path.
func (m *mount) on(path string, f func(n *dataset.Node) error) error {
	n, err := m.lookup(path)
	if err != nil {
		return err
	}
	defer m.Forget(n, 1)
	return f(n)
}

// in calls f with the directory of a path and the last name.
func (m *mount) in(path string, f func(p *dataset.Node, name string) error) error {
	i := strings.LastIndexByte(path, '/')
	return m.on(path[:max(i, 0)], func(p *dataset.Node) error { return f(p, path[i+1:]) })
}

// made gives back the reference to a new node.
func (m *mount) made(n *dataset.Node, _ dataset.Attr, err error) error {
	if err == nil {
		m.Forget(n, 1)
	}
	return err
}

var me = dataset.Caller{UID: 1000, GID: 100, Umask: 0o022}

func (m *mount) mkdir(path string) error {
	return m.in(path, func(p *dataset.Node, name string) error { return m.made(m.Mkdir(p, name, 0o777, me)) })
}

func (m *mount) create(path, content string) error {
	return m.in(path, func(p *dataset.Node, name string) error {
		n, _, err := m.Create(p, name, 0o666, me)
		if err != nil {
			return err
		}
		defer m.Forget(n, 1)
		_, err = m.Write(n, []byte(content), 0, false)
		return err
	})
}

func (m *mount) symlink(target, path string) error {
	return m.in(path, func(p *dataset.Node, name string) error { return m.made(m.Symlink(p, name, target, me)) })
}

func (m *mount) link(old, path string) error {
	return m.on(old, func(n *dataset.Node) error {
		return m.in(path, func(p *dataset.Node, name string) error {
			_, err := m.Link(n, p, name)
			if err == nil {
				m.Forget(n, 1)
			}
			return err
		})
	})
}

func (m *mount) unlink(path string) error { return m.in(path, m.Unlink) }
func (m *mount) rmdir(path string) error  { return m.in(path, m.Rmdir) }

func (m *mount) rename(old, path string, flags uint) error {
	return m.in(old, func(op *dataset.Node, oname string) error {
		return m.in(path, func(np *dataset.Node, nname string) error { return m.Rename(op, oname, np, nname, flags) })
	})
}

func (m *mount) write(path string, off int64, content string) error {
	return m.on(path, func(n *dataset.Node) error {
		_, err := m.Write(n, []byte(content), off, false)
		return err
	})
}

func (m *mount) read(path string) string {
	m.Helper()
	n := m.at(path)
	defer m.Forget(n, 1)
	return string(m.content(n))
}

func (m *mount) content(n *dataset.Node) []byte {
	m.Helper()
	a, err := m.GetAttr(n)
	if err != nil {
		m.Fatal(err)
	}
	b := make([]byte, a.Size)
	if k, err := m.Read(n, b, 0); err != nil || k != len(b) {
		m.Fatalf("read %d of %d bytes: %v", k, len(b), err)
	}
	return b
}

func (m *mount) stat(path string) dataset.Attr {
	m.Helper()
	n := m.at(path)
	defer m.Forget(n, 1)
	a, err := m.GetAttr(n)
	if err != nil {
		m.Fatal(err)
	}
	return a
}

func (m *mount) chmod(path string, mode uint32) error {
	return m.on(path, func(n *dataset.Node) error {
		_, err := m.SetAttr(n, dataset.Change{Mode: &mode})
		return err
	})
}

func (m *mount) truncate(path string, size int64) error {
	return m.on(path, func(n *dataset.Node) error {
		_, err := m.SetAttr(n, dataset.Change{Size: &size})
		return err
	})
}

func (m *mount) setxattr(path, attr, value string) error {
	return m.on(path, func(n *dataset.Node) error { return m.Setxattr(n, attr, []byte(value), 0, false) })
}

func (m *mount) getxattr(path, attr string) (value string, err error) {
	err = m.on(path, func(n *dataset.Node) error {
		size, err := m.Getxattr(n, attr, nil)
		if err != nil {
			return err
		}
		b := make([]byte, size+1)
		size, err = m.Getxattr(n, attr, b)
		value = string(b[:size])
		return err
	})
	return value, err
}

// list returns the names in a directory, sorted.
func (m *mount) list(path string) []string {
	m.Helper()
	names := m.listing(path)
	slices.Sort(names)
	return names
}

// listing returns the names in a directory in the order in which they are listed.
func (m *mount) listing(path string) (names []string) {
	m.Helper()
	n := m.at(path)
	defer m.Forget(n, 1)
	err := m.ReadDir(n, 0, func(e dataset.Listed) bool {
		names = append(names, e.Name)
		return true
	})
	if err != nil {
		m.Fatal(err)
	}
	return names
}

// must fails the test for an error.
func (m *mount) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// want fails the test if err is not that errno.
func (m *mount) want(e syscall.Errno, err error) {
	m.Helper()
	if !errors.Is(err, e) {
		m.Fatalf("error is %v, not %v", err, e)
	}
}

func (m *mount) equal(got, want any) {
	m.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		m.Fatalf("got %s, want %s", g, w)
	}
}

// dump describes all that a user can see below the root, times left out, in the
// order of paths.
func (m *mount) dump() string {
	m.Helper()
	var lines []string
	seen := map[uint64]string{}
	var walk func(n *dataset.Node, path string)
	walk = func(n *dataset.Node, path string) {
		lines = append(lines, m.describe(n, path, seen))
		if !n.IsDir() {
			return
		}
		var names []string
		if err := m.ReadDir(n, 0, func(e dataset.Listed) bool { names = append(names, e.Name); return true }); err != nil {
			m.Fatalf("list %s: %v", path, err)
		}
		slices.Sort(names)
		for _, name := range names {
			c, _, err := m.Lookup(n, name)
			if err != nil {
				m.Fatalf("%s has %s: %v", path, name, err)
			}
			walk(c, path+"/"+name)
			m.Forget(c, 1)
		}
	}
	walk(m.Root(), "")
	return strings.Join(lines, "\n")
}

func (m *mount) describe(n *dataset.Node, path string, seen map[uint64]string) string {
	m.Helper()
	a, err := m.GetAttr(n)
	if err != nil {
		m.Fatalf("%s: %v", path, err)
	}
	line := fmt.Sprintf("%s %o %d:%d links %d size %d", path, a.Mode, a.UID, a.GID, a.Nlink, a.Size)
	if first, ok := seen[a.Ino]; ok {
		return line + " is " + first
	}
	seen[a.Ino] = path
	switch n.Type() {
	case unix.S_IFREG:
		line += fmt.Sprintf(" data %08x", crc32.ChecksumIEEE(m.content(n)))
	case unix.S_IFLNK:
		target, err := m.Readlink(n)
		if err != nil {
			m.Fatalf("%s: %v", path, err)
		}
		line += " to " + target
	case unix.S_IFCHR, unix.S_IFBLK:
		line += fmt.Sprintf(" dev %d", a.Rdev)
	}
	for _, x := range m.xattrs(n) {
		line += " " + x
	}
	return line
}

// xattrs describes the attributes of a node.
func (m *mount) xattrs(n *dataset.Node) (list []string) {
	m.Helper()
	b := make([]byte, 64<<10)
	k, err := m.Listxattr(n, b)
	if err != nil {
		m.Fatal(err)
	}
	for _, attr := range strings.FieldsFunc(string(b[:k]), func(r rune) bool { return r == 0 }) {
		v := make([]byte, dataset.MaxXattr)
		k, err := m.Getxattr(n, attr, v)
		if err != nil {
			m.Fatal(attr, err)
		}
		list = append(list, fmt.Sprintf("%s=%d:%08x", attr, k, crc32.ChecksumIEEE(v[:k])))
	}
	sort.Strings(list)
	return list
}

// text is n bytes that differ from those of other seeds.
func text(n int, seed uint64) string {
	b := make([]byte, n)
	for i := range b {
		seed = seed*6364136223846793005 + 1442695040888963407
		b[i] = byte(seed >> 56)
	}
	return string(b)
}

const farAway = math.MaxInt64
