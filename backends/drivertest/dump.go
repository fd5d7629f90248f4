package drivertest

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/tree"
)

// A dump says all that a tree is, one line for each path.
type dump map[string]string

// dumpDir describes a directory through the system. Owners are left out where
// the view shows all as one user's.
func dumpDir(t testing.TB, root string, owners bool) dump {
	t.Helper()
	d := drawing{}
	err := filepath.Walk(root, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		l := line{mode: st.Mode, mtime: st.Mtim.Sec*1e9 + st.Mtim.Nsec, rdev: st.Rdev, xattrs: xattrsOf(t, path)}
		if owners {
			l.owner = fmt.Sprintf("%d:%d", st.Uid, st.Gid)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			l.content = digest(data)
		case unix.S_IFLNK:
			if l.content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		d.add(rel, st.Ino, l)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return d.dump()
}

func xattrsOf(t testing.TB, path string) (list []string) {
	buf, value := make([]byte, 4096), make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		if err == unix.EOPNOTSUPP {
			return nil
		}
		t.Fatalf("xattrs of %s: %v", path, err)
	}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if attr == "" || attr == "security.selinux" {
			continue
		}
		k, err := unix.Lgetxattr(path, attr, value)
		if err != nil {
			t.Fatalf("xattr %s of %s: %v", attr, path, err)
		}
		list = append(list, fmt.Sprintf("%s=%x", attr, value[:k]))
	}
	slices.Sort(list)
	return list
}

// dumpView describes a view that is not mounted.
func dumpView(t testing.TB, v *tree.View, owners bool) dump {
	t.Helper()
	root, err := v.Root()
	if err != nil {
		t.Fatal(err)
	}
	d := drawing{}
	var walk func(rel string, n *tree.Node)
	walk = func(rel string, n *tree.Node) {
		st := n.Stat
		l := line{mode: st.Mode, mtime: st.Mtime.Sec*1e9 + int64(st.Mtime.Nsec), rdev: st.Rdev}
		if owners {
			l.owner = fmt.Sprintf("%d:%d", st.UID, st.GID)
		}
		attrs, err := n.Xattrs()
		if err != nil {
			t.Fatal(err)
		}
		for k, value := range attrs {
			l.xattrs = append(l.xattrs, fmt.Sprintf("%s=%x", k, value))
		}
		slices.Sort(l.xattrs)
		switch st.Type() {
		case unix.S_IFREG:
			data := make([]byte, st.Size)
			if _, err := n.ReadAt(data, 0); err != nil {
				t.Fatal(err)
			}
			l.content = digest(data)
		case unix.S_IFLNK:
			if l.content, err = n.Readlink(); err != nil {
				t.Fatal(err)
			}
		}
		d.add(rel, st.Ino, l)
		names, err := n.Names()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			c, err := n.Child(name)
			if err != nil {
				t.Fatalf("%s/%s: %v", rel, name, err)
			}
			walk(filepath.Join(rel, name), c)
			c.Close()
		}
	}
	walk(".", root)
	return d.dump()
}

// A drawing is a dump in the making. Which names are one file is said of names in
// the tree; other layers may have further ones.
type drawing struct {
	lines  map[string]line
	inodes map[uint64][]string
}

func (d *drawing) add(path string, ino uint64, l line) {
	if d.lines == nil {
		d.lines, d.inodes = map[string]line{}, map[uint64][]string{}
	}
	d.lines[path] = l
	if l.mode&unix.S_IFMT != unix.S_IFDIR {
		d.inodes[ino] = append(d.inodes[ino], path)
	}
}

func (d *drawing) dump() dump {
	for _, names := range d.inodes {
		if len(names) == 1 {
			continue
		}
		slices.Sort(names)
		for _, name := range names {
			l := d.lines[name]
			l.same = names[0]
			d.lines[name] = l
		}
	}
	out := dump{}
	for path, l := range d.lines {
		out[path] = l.String()
	}
	return out
}

// A line is one file of a dump.
type line struct {
	mode    uint32
	owner   string
	mtime   int64
	rdev    uint64
	content string
	same    string // the first name of a file with several
	xattrs  []string
}

func (l line) String() string {
	if l.mode&unix.S_IFMT != unix.S_IFCHR && l.mode&unix.S_IFMT != unix.S_IFBLK {
		l.rdev = 0
	}
	return fmt.Sprintf("%o %s mtime=%d rdev=%x %s same=%s %q", l.mode, l.owner, l.mtime, l.rdev, l.content, l.same, l.xattrs)
}

func digest(data []byte) string { return fmt.Sprintf("%d bytes %x", len(data), sha256.Sum256(data)) }

// equal tells where two trees differ. The time of the root is left out: archives
// do not carry it for a change below alone.
func equal(t testing.TB, what string, got, want dump) {
	t.Helper()
	var paths []string
	for p := range got {
		paths = append(paths, p)
	}
	for p := range want {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	told := 0
	for _, p := range slices.Compact(paths) {
		if got[p] == want[p] || p == "." || told == 12 {
			continue
		}
		told++
		t.Errorf("%s: %s\n got %s\nwant %s", what, p, orNone(got[p]), orNone(want[p]))
	}
}

func orNone(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}
