package dataset_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
)

func TestWhatWasMadeIsThereAfterRemounting(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.mkdir("etc"))
	m.must(m.create("etc/passwd", "root:x:0:0"))
	m.must(m.link("etc/passwd", "etc/shadow"))
	m.must(m.symlink("etc/passwd", "link"))
	long := strings.Repeat("0123456789", 400)
	m.must(m.symlink(long, "longlink"))
	m.must(m.in("null", func(p *dataset.Node, name string) error {
		return m.made(m.Mknod(p, name, unix.S_IFCHR|0o666, unix.Mkdev(1, 3), me))
	}))
	m.must(m.in("pipe", func(p *dataset.Node, name string) error {
		return m.made(m.Mknod(p, name, unix.S_IFIFO|0o600, 0, me))
	}))
	before := m.dump()
	m.remount(m.tree)
	m.equal(m.dump(), before)
	m.equal(m.read("etc/shadow"), "root:x:0:0")
	m.equal(m.stat("etc/shadow").Nlink, 2)
	m.equal(m.stat("etc").Mode, unix.S_IFDIR|0o755)
	m.equal(m.stat("").Nlink, 3)
	target, err := m.Readlink(m.at("longlink"))
	m.must(err)
	m.equal(target, long)
}

func TestImpossibleNamesAreRefused(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.create("file", ""))
	m.must(m.mkdir("dir"))
	root := m.Root()
	for name, e := range map[string]unix.Errno{
		"": unix.EINVAL, ".": unix.EINVAL, "..": unix.EINVAL, "a/b": unix.EINVAL, "a\x00b": unix.EINVAL,
		strings.Repeat("x", 256): unix.ENAMETOOLONG, "file": unix.EEXIST, "dir": unix.EEXIST,
	} {
		m.want(e, m.made(m.Create(root, name, 0o600, me)))
		m.want(e, m.made(m.Mkdir(root, name, 0o700, me)))
		m.want(e, m.made(m.Symlink(root, name, "x", me)))
	}
	m.must(m.create(strings.Repeat("x", 255), ""))
	m.want(unix.ENOTDIR, m.create("file/x", ""))
	m.want(unix.ENAMETOOLONG, m.symlink(strings.Repeat("x", 4096), "s"))
	m.want(unix.EPERM, m.link("dir", "hard"))
	m.want(unix.EISDIR, m.unlink("dir"))
	m.want(unix.ENOTDIR, m.rmdir("file"))
	m.want(unix.ENOENT, m.unlink("absent"))
	m.must(m.create("dir/x", ""))
	m.want(unix.ENOTEMPTY, m.rmdir("dir"))
}

func TestRemovedFileStaysReadableWhileInUse(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.create("f", text(20000, 1)))
	n := m.at("f")
	m.must(m.unlink("f"))
	m.equal(string(m.content(n)) == text(20000, 1), true)
	a, err := m.GetAttr(n)
	m.must(err)
	m.equal(a.Nlink, 0)
	_, err = m.Write(n, []byte("more"), 20000, false)
	m.must(err)
	_, err = m.Link(n, m.Root(), "again")
	m.want(unix.ENOENT, err)
	m.Forget(n, 1)
	m.Settle()
	m.equal(m.tree.Counted(), 1)
	m.equal(m.tree.Space().Referenced, 0)
}

func TestFileRemovedWhileInUseGoesAtTheNextMount(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.create("f", text(20000, 1)))
	m.must(m.setxattr("f", "user.big", text(5000, 2)))
	m.must(m.mkdir("d"))
	m.at("f")
	m.at("d")
	m.must(m.unlink("f"))
	m.must(m.rmdir("d"))
	m.equal(m.tree.Counted(), 4)
	m.remount(m.tree.Crash(m.tree.Steps()))
	m.Settle()
	m.equal(m.tree.Counted(), 1)
	m.equal(m.tree.Space().Referenced, 0)
}

func TestTmpfileGetsANameOrGoes(t *testing.T) {
	m := newMount(t, dataset.Options{})
	n, a, err := m.Tmpfile(m.Root(), 0o600, me)
	m.must(err)
	m.equal(a.Nlink, 0)
	_, err = m.Write(n, []byte("x"), 0, false)
	m.must(err)
	_, err = m.Link(n, m.Root(), "named")
	m.must(err)
	_, err = m.Link(n, m.Root(), "second")
	m.must(err)
	m.Forget(n, 3)
	other, _, err := m.Tmpfile(m.Root(), 0o600, me)
	m.must(err)
	m.Forget(other, 1)
	m.Settle()
	m.equal(m.tree.Counted(), 2)
	m.remount(m.tree)
	m.equal(m.read("named"), "x")
	// Once it had a name it is like any other file.
	n, _, err = m.Tmpfile(m.Root(), 0o600, me)
	m.must(err)
	_, err = m.Link(n, m.Root(), "gone")
	m.must(err)
	m.must(m.unlink("gone"))
	_, err = m.Link(n, m.Root(), "again")
	m.want(unix.ENOENT, err)
	m.Forget(n, 2)
}

func TestRemovedDirectoryTakesNoNames(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.mkdir("d"))
	m.must(m.create("f", ""))
	d, f := m.at("d"), m.at("f")
	m.must(m.rmdir("d"))
	m.want(unix.ENOENT, m.made(m.Create(d, "x", 0o600, me)))
	m.want(unix.ENOENT, m.made(m.Tmpfile(d, 0o600, me)))
	_, err := m.Link(f, d, "x")
	m.want(unix.ENOENT, err)
	m.want(unix.ENOENT, m.Rename(m.Root(), "f", d, "x", 0))
	m.Forget(d, 1)
	m.Forget(f, 1)
}

func TestHardLinksKnowAllTheirNames(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.mkdir("d"))
	m.must(m.create("a", "x"))
	for i := range 5 {
		m.must(m.link("a", fmt.Sprintf("d/%d", i)))
	}
	m.equal(m.stat("a").Nlink, 6)
	m.must(m.unlink("a")) // the name that the inode tells
	m.check(m.tree)
	m.must(m.rename("d/1", "b", 0))
	m.must(m.rename("d/2", "b", 0)) // two names of one file: nothing happens
	m.equal(m.stat("d/2").Nlink, 5)
	m.check(m.tree)
	for _, path := range []string{"d/0", "d/2", "d/4", "d/3"} {
		m.must(m.unlink(path))
		m.check(m.tree)
	}
	m.equal(m.stat("b").Nlink, 1)
	m.equal(m.read("b"), "x")
}

func TestRename(t *testing.T) {
	m := newMount(t, dataset.Options{})
	for _, d := range []string{"a", "a/b", "a/b/c", "e", "full", "full/x"} {
		m.must(m.mkdir(d))
	}
	m.must(m.create("f", "f"))
	m.must(m.create("g", "g"))
	for _, c := range []struct {
		from, to string
		flags    uint
		want     unix.Errno
	}{
		{"a", "a/b/x", 0, unix.EINVAL},
		{"a", "a/b/c", 0, unix.EINVAL},
		{"a", "a/x", 0, unix.EINVAL},
		{"a/b/c", "a", 0, unix.ENOTEMPTY},
		{"a/b/c", "a", unix.RENAME_EXCHANGE, unix.EINVAL},
		{"a", "a/b/c", unix.RENAME_EXCHANGE, unix.EINVAL},
		{"f", "e", 0, unix.EISDIR},
		{"e", "f", 0, unix.ENOTDIR},
		{"e", "full", 0, unix.ENOTEMPTY},
		{"f", "g", unix.RENAME_NOREPLACE, unix.EEXIST},
		{"f", "none", unix.RENAME_EXCHANGE, unix.ENOENT},
		{"none", "x", 0, unix.ENOENT},
		{"f", "g", unix.RENAME_EXCHANGE | unix.RENAME_NOREPLACE, unix.EINVAL},
		{"f", "g", 1 << 10, unix.EINVAL},
	} {
		before := m.dump()
		m.want(c.want, m.rename(c.from, c.to, c.flags))
		m.equal(m.dump(), before)
	}
	m.must(m.rename("f", "f", 0))
	m.must(m.rename("f", "g", 0))
	m.equal(m.read("g"), "f")
	m.must(m.rename("a/b", "e/b", 0))
	m.equal(m.stat("a").Nlink, 2)
	m.equal(m.stat("e").Nlink, 3)
	m.equal(m.ParentIno(m.at("e/b")), m.stat("e").Ino)
	m.must(m.rename("e/b", "g", unix.RENAME_EXCHANGE))
	m.equal(m.read("e/b"), "f")
	m.equal(m.list("g"), []string{"c"})
	m.equal(m.stat("e").Nlink, 2)
	m.must(m.rename("g/c", "a", 0)) // over an empty directory
	m.equal(m.list("g"), []string(nil))
	m.must(m.rename("e/b", "w", unix.RENAME_WHITEOUT))
	a := m.stat("e/b")
	m.equal(a.Mode&unix.S_IFMT, unix.S_IFCHR)
	m.equal(a.Rdev, 0)
	m.equal(m.stat("e").Size, 1)
	m.check(m.tree)
}

func TestTimesMoveAsPOSIXSays(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.mkdir("d"))
	m.must(m.create("d/f", "x"))
	old := dataset.Time{Sec: 1000}
	for _, c := range []struct {
		what                string
		do                  func() error
		dir, content, inode bool // mtime of d, mtime of d/f, ctime of d/f
	}{
		{"write", func() error { return m.write("d/f", 0, "y") }, false, true, true},
		{"chmod", func() error { return m.chmod("d/f", 0o600) }, false, false, true},
		{"truncate", func() error { return m.truncate("d/f", 0) }, false, true, true},
		{"link", func() error { return m.link("d/f", "d/g") }, true, false, true},
		{"rename", func() error { return m.rename("d/g", "d/h", 0) }, true, false, true},
		{"unlink", func() error { return m.unlink("d/h") }, true, false, true},
		{"setxattr", func() error { return m.setxattr("d/f", "user.a", "1") }, false, false, true},
		{"mkdir", func() error { return m.mkdir("d/sub") }, true, false, false},
		{"stat", func() error { m.stat("d/f"); return nil }, false, false, false},
		{"read", func() error { m.read("d/f"); return nil }, false, false, false},
	} {
		for _, path := range []string{"d/f", "d"} {
			m.must(m.on(path, func(n *dataset.Node) error {
				_, err := m.SetAttr(n, dataset.Change{Atime: &old, Mtime: &old})
				return err
			}))
		}
		before := m.stat("d/f").Ctime
		m.must(c.do())
		f := m.stat("d/f")
		got := []bool{m.stat("d").Mtime != old, f.Mtime != old, f.Ctime != before}
		if want := []bool{c.dir, c.content, c.inode}; !slices.Equal(got, want) {
			t.Errorf("%s moves mtime of the directory, mtime, ctime: %v, want %v", c.what, got, want)
		}
		m.equal(f.Atime, old)
	}
}

func TestSetgidDirectoryHandsItsGroupOn(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.mkdir("d"))
	gid := uint32(77)
	m.must(m.on("d", func(n *dataset.Node) error {
		mode := uint32(0o2775)
		_, err := m.SetAttr(n, dataset.Change{Mode: &mode, GID: &gid})
		return err
	}))
	m.must(m.create("d/f", ""))
	m.must(m.mkdir("d/e"))
	m.equal(m.stat("d/f").GID, 77)
	m.equal(m.stat("d/f").Mode, unix.S_IFREG|0o644)
	m.equal(m.stat("d/e").Mode, unix.S_IFDIR|unix.S_ISGID|0o755)
}

// TestListingGoesOnWhileTheDirectoryChanges lists a directory in small pieces over
// changes and mounts: what is there all the time is listed exactly once.
func TestListingGoesOnWhileTheDirectoryChanges(t *testing.T) {
	m := newMount(t, dataset.Options{})
	for i := range 1000 {
		m.must(m.create(fmt.Sprint("keep", i), ""))
		m.must(m.create(fmt.Sprint("drop", i), ""))
	}
	seen := map[string]int{}
	for pos, i := uint64(0), 0; ; i++ {
		n, last := 0, pos
		err := m.ReadDir(m.Root(), pos, func(e dataset.Listed) bool {
			if e.Pos <= last || e.Pos >= 1<<63-2 {
				t.Fatalf("position %d after %d", e.Pos, last)
			}
			seen[e.Name]++
			pos, last, n = e.Pos, e.Pos, n+1
			return n < 7
		})
		m.must(err)
		if n == 0 {
			break
		}
		if i < 1000 {
			m.must(m.unlink(fmt.Sprint("drop", i)))
			m.must(m.create(fmt.Sprint("new", i), ""))
		}
		if i%100 == 0 {
			m.remount(m.tree)
		}
	}
	for i := range 1000 {
		if n := seen[fmt.Sprint("keep", i)]; n != 1 {
			t.Fatalf("keep%d is listed %d times", i, n)
		}
	}
	for name, n := range seen {
		if n != 1 {
			t.Fatalf("%s is listed %d times", name, n)
		}
	}
}

// TestLargeDirectory makes LAMINA_DIR names, 20,000 without it.
func TestLargeDirectory(t *testing.T) {
	count := 20000
	if s := os.Getenv("LAMINA_DIR"); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil {
			t.Fatalf("LAMINA_DIR=%s: a number of names is wanted", s)
		}
	}
	m := newMount(t, dataset.Options{})
	m.tree.KeepNoHistory()
	m.must(m.mkdir("d"))
	d := m.at("d")
	for i := range count {
		m.must(m.made(m.Create(d, fmt.Sprintf("file-%d", i), 0o600, me)))
	}
	seen := make([]bool, count)
	m.must(m.ReadDir(d, 0, func(e dataset.Listed) bool {
		i, err := strconv.Atoi(strings.TrimPrefix(e.Name, "file-"))
		if err != nil || seen[i] {
			t.Fatalf("%s: %v, listed before: %v", e.Name, err, err == nil && seen[i])
		}
		seen[i] = true
		return true
	}))
	if i := slices.Index(seen, false); i >= 0 {
		t.Fatalf("file-%d is not listed", i)
	}
	for i := range count {
		m.must(m.Unlink(d, fmt.Sprintf("file-%d", i)))
	}
	m.Forget(d, 1)
	m.must(m.rmdir("d"))
	m.Settle()
	m.equal(m.tree.Counted(), 1)
}

func TestInodeLimit(t *testing.T) {
	m := newMount(t, dataset.Options{MaxInodes: 3})
	m.must(m.create("a", ""))
	m.must(m.create("b", ""))
	m.want(unix.EDQUOT, m.create("c", ""))
	m.want(unix.EDQUOT, m.rename("a", "c", unix.RENAME_WHITEOUT))
	st, err := m.Statfs()
	m.must(err)
	m.equal([]uint64{st.Files, st.Ffree}, []uint64{3, 0})
	m.must(m.unlink("a"))
	m.must(m.create("c", "")) // also when the removed one is just being reclaimed
}

func TestSnapshotIsReadOnly(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.create("f", "old"))
	snap := m.tree.Snapshot("tank/home@a", 9)
	m.must(m.write("f", 0, "new"))
	s := &mount{TB: t, tree: snap}
	s.open()
	defer s.Close()
	s.equal(s.read("f"), "old")
	for _, err := range []error{
		s.create("g", ""), s.mkdir("g"), s.unlink("f"), s.write("f", 0, "x"), s.truncate("f", 0), s.chmod("f", 0), s.link("f", "g"),
		s.rename("f", "g", 0), s.setxattr("f", "user.a", "1"), s.symlink("f", "g"),
	} {
		s.want(unix.EROFS, err)
	}
}

// TestNumbersAreFoundWhenAllWereGivenOut makes files when the numbers of objects have
// come to their end: those that are free are used, and none that is not.
func TestNumbersAreFoundWhenAllWereGivenOut(t *testing.T) {
	m := newMount(t, dataset.Options{})
	for i := range 10 {
		m.must(m.create(fmt.Sprint("old", i), fmt.Sprint(i)))
	}
	used := m.at("old3")
	m.must(m.unlink("old3")) // in use, so its number is
	m.must(m.unlink("old5"))
	m.must(m.unlink("old6"))
	m.Settle()
	m.GiveOutNext(blockpool.MaxObject)
	for i := range 10 {
		m.must(m.create(fmt.Sprint("new", i), "new"))
	}
	m.equal(m.stat("new0").Ino, blockpool.MaxObject)
	m.equal([]uint64{m.stat("new1").Ino, m.stat("new2").Ino, m.stat("new3").Ino}, []uint64{7, 8, 12})
	m.equal(string(m.content(used)), 3)
	m.equal(m.read("old4"), 4)
	m.Forget(used, 1)
	m.remount(m.tree)
	m.must(m.create("after", ""))
	m.check(m.tree)
}
