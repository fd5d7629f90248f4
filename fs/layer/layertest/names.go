package layertest

import (
	"fmt"
	"strings"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

var nameTests = []test{
	{"Name/OneComponentOnly", testBadNames},
	{"Name/LongestAndNotUTF8", testLongNames},
	{"Name/AbsentIsENOENT", testAbsent},
	{"Name/ReadDirListsEachEntryOnce", testReadDir},
	{"Name/ReadDirSeesChanges", testReadDirChanges},
}

// atMethods calls each method that takes the name of a child which exists.
func atMethods(d layer.Dir, name string) map[string]func() error {
	return map[string]func() error{
		"StatAt":      func() error { _, err := d.StatAt(name); return err },
		"GetxattrAt":  func() error { _, err := d.GetxattrAt(name, "user.a", nil); return err },
		"ListxattrAt": func() error { _, err := d.ListxattrAt(name, nil); return err },
		"ReadlinkAt":  func() error { _, err := d.ReadlinkAt(name); return err },
		"Lookup":      func() error { return closed(d.Lookup(name)) },
		"OpenFile":    func() error { return closed(d.OpenFile(name, unix.O_RDONLY, 0)) },
		"OpenDir":     func() error { return closed(d.OpenDir(name)) },
		"Unlink":      func() error { return d.Unlink(name) },
		"Rmdir":       func() error { return d.Rmdir(name) },
		"Rename from": func() error { return d.Rename(name, d, "new", 0) },
	}
}

// makers calls each method that makes a child.
func makers(d layer.Dir, obj layer.Object, name string) map[string]func() error {
	return map[string]func() error{
		"create":  func() error { return closed(d.OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o600)) },
		"Mkdir":   func() error { return d.Mkdir(name, 0o700) },
		"Mknod":   func() error { return d.Mknod(name, unix.S_IFIFO|0o600, 0) },
		"Symlink": func() error { return d.Symlink("target", name) },
		"Link":    func() error { return d.Link(obj, name) },
	}
}

func closed[T layer.Object](o T, err error) error {
	if err == nil {
		o.Close()
	}
	return err
}

func testBadNames(e *env) {
	e.file(e.root, "file", "")
	obj := e.lookup(e.root, "file")
	for _, name := range []string{"", ".", "..", "/", "a/b", "../file", "file/", "a\x00b"} {
		for what, call := range atMethods(e.root, name) {
			e.fails(fmt.Sprintf("%s %q", what, name), call(), unix.EINVAL)
		}
		for what, call := range makers(e.root, obj, name) {
			e.fails(fmt.Sprintf("%s %q", what, name), call(), unix.EINVAL)
		}
		e.fails(fmt.Sprintf("Rename to %q", name), e.root.Rename("file", e.root, name, 0), unix.EINVAL)
	}
	long := strings.Repeat("x", 256)
	for what, call := range atMethods(e.root, long) {
		e.fails(what+" of 256 bytes", call(), unix.ENAMETOOLONG)
	}
	for what, call := range makers(e.root, obj, long) {
		e.fails(what+" of 256 bytes", call(), unix.ENAMETOOLONG)
	}
	e.fails("Rename to 256 bytes", e.root.Rename("file", e.root, long, 0), unix.ENAMETOOLONG)
	e.same("names", e.names(e.root), "file")
}

func testLongNames(e *env) {
	for _, name := range []string{strings.Repeat("y", 255), "\xff\xfe \n", "...", "-", ".wh.x"} {
		e.file(e.root, name, name)
		e.same("names", e.names(e.root), name)
		e.same("content", e.contentAt(e.root, name), name)
		e.ok("unlink", e.root.Unlink(name))
	}
}

func testAbsent(e *env) {
	for what, call := range atMethods(e.root, "absent") {
		e.fails(what, call(), unix.ENOENT)
	}
	_, err := e.root.OpenFile("absent", unix.O_RDWR, 0)
	e.fails("open for writing", err, unix.ENOENT)
	e.same("names", e.names(e.root), "")
}

func testReadDir(e *env) {
	d := e.mkdir(e.root, "d")
	want := make(map[string]uint64)
	for n := range 1500 {
		name := fmt.Sprintf("entry-%d-%s", n, strings.Repeat("z", n%100))
		e.ok("mknod", d.Mknod(name, unix.S_IFREG|0o600, 0))
		want[name] = e.statAt(d, name).Ino
	}
	for range 2 { // a second reading begins anew
		list, err := d.ReadDir()
		e.ok("read directory", err)
		e.same("number of entries", len(list), len(want))
		seen := make(map[string]bool)
		for _, x := range list {
			if seen[x.Name] || want[x.Name] != x.Ino || x.Type != 0 && x.Type != unix.S_IFREG {
				e.Fatalf("entry %+v twice, unknown, or not with inode %d", x, want[x.Name])
			}
			seen[x.Name] = true
		}
	}
}

func testReadDirChanges(e *env) {
	e.same("names of an empty directory", e.names(e.root), "")
	e.file(e.root, "a", "")
	e.ok("mkdir", e.root.Mkdir("b", 0o755))
	e.same("names", e.names(e.root), "a b")
	e.ok("unlink", e.root.Unlink("a"))
	e.ok("rename", e.root.Rename("b", e.root, "c", 0))
	e.same("names", e.names(e.root), "c")
}
