package dataset_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/blockpool/dataset/memtree"
)

// key makes a key of an item from its first byte and numbers.
func key(kind byte, numbers ...uint64) []byte {
	k := []byte{kind}
	for _, n := range numbers {
		k = binary.BigEndian.AppendUint64(k, n)
	}
	return k
}

// victim makes a tree with something of everything, and returns it unmounted.
func victim(t testing.TB) *memtree.Tree {
	m := stage(t)
	m.must(m.mkdir("d/e"))
	m.must(m.create("d/e/deep", "x"))
	m.must(m.link("f", "d/hard"))
	m.must(m.symlink("f", "s"))
	m.must(m.AddSubvolume(m.Root(), "sub", 9))
	m.must(m.in("null", func(p *dataset.Node, name string) error { return m.made(m.Mknod(p, name, unix.S_IFCHR|0o666, 5, me)) }))
	n, _, err := m.Tmpfile(m.Root(), 0o600, me)
	m.must(err)
	_, err = m.Write(n, []byte("orphan"), 0, false)
	m.must(err)
	m.must(m.Setxattr(n, "user.big", make([]byte, 3000), 0, false))
	return m.tree.Clone("victim", 7)
}

// torment does everything to everything in a tree. Errors must tell an errno, and
// the whole must come to an end.
func torment(t testing.TB, tree *memtree.Tree, whole dataset.Tree) (errs []error) {
	t.Helper()
	timer := time.AfterFunc(time.Minute, func() { panic("it does not come to an end") })
	defer timer.Stop()
	note := func(err error) {
		var e syscall.Errno
		if err != nil && !errors.As(err, &e) {
			t.Errorf("error %v has no errno", err)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	note(dataset.Check(tree, func(object uint64, problem string) error {
		errs = append(errs, fmt.Errorf("object %d: %s: %w", object, problem, unix.EIO))
		return nil
	}))
	_, err := dataset.Diff(whole, tree)
	note(err)
	fs, err := dataset.New(tree, dataset.Options{})
	note(err)
	if err != nil {
		return errs
	}
	defer fs.Close()
	m := &mount{TB: t, FS: fs, tree: tree}
	paths := []string{""}
	for i := 0; i < len(paths) && len(paths) < 100; i++ {
		path := paths[i]
		note(m.on(path, func(n *dataset.Node) error {
			buf := make([]byte, 4000)
			_, err := m.GetAttr(n)
			note(err)
			_, err = m.Read(n, buf, 0)
			note(err)
			_, err = m.Readlink(n)
			note(err)
			_, err = m.Listxattr(n, nil)
			note(err)
			_, err = m.Getxattr(n, "user.a", nil)
			note(err)
			_, err = m.Seek(n, 0, unix.SEEK_HOLE)
			note(err)
			m.ParentIno(n)
			return m.ReadDir(n, 0, func(e dataset.Listed) bool {
				paths = append(paths, join(path, e.Name))
				return len(paths) < 100
			})
		}))
	}
	for _, path := range paths {
		note(m.write(path, 100, "x"))
		note(m.truncate(path, 50))
		note(m.setxattr(path, "user.a", text(2000, 1)))
		note(m.setxattr(path, standard, posixACL([3]uint32{userObj, 7, none}, [3]uint32{groupObj, 5, none}, [3]uint32{other, 5, none})))
		note(m.chmod(path, 0o700))
		note(m.create(join(path, "new"), ""))
		note(m.rename(path, "d/moved", 0))
		note(m.rename("d/moved", path, 0))
		note(m.link(path, "d/linked"))
		note(m.unlink("d/linked"))
	}
	for i := len(paths) - 1; i > 0; i-- {
		note(m.unlink(join(paths[i], "new")))
		note(m.unlink(paths[i]))
		note(m.rmdir(paths[i]))
	}
	fs.Settle()
	_, err = fs.Statfs()
	note(err)
	return errs
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// objectOf returns the object of a path in a tree.
func objectOf(t testing.TB, tree *memtree.Tree, path string) uint64 {
	m := &mount{TB: t, tree: tree.Snapshot("look", 70)}
	m.open()
	defer m.Close()
	return m.stat(path).Ino
}

// entryAt returns the key and value of the entry that a path ends with.
func entryAt(t testing.TB, tree *memtree.Tree, dir uint64, object uint64) (k, v []byte) {
	err := tree.Items(key(0x81, dir, 0), key(0x81, dir+1, 0), func(k2, v2 []byte) error {
		if o, _ := binary.Uvarint(v2[1:]); o == object {
			k, v = append([]byte{}, k2...), append([]byte{}, v2...)
		}
		return nil
	})
	if err != nil || k == nil {
		t.Fatalf("directory %d has no object %d: %v", dir, object, err)
	}
	return k, v
}

// TestHostileItems plants what no filesystem would write. Whoever comes across it
// gets EIO, or something harmless, and a check tells it.
func TestHostileItems(t *testing.T) {
	set := func(k, v []byte) func(testing.TB, *memtree.Tree) {
		return func(_ testing.TB, tree *memtree.Tree) { tree.SetItem(k, v) }
	}
	inodeOf := func(path string, value []byte) func(testing.TB, *memtree.Tree) {
		return func(t testing.TB, tree *memtree.Tree) { tree.SetItem(key(0x80, objectOf(t, tree, path)), value) }
	}
	// packed makes an inode of tags and numbers.
	packed := func(tagsAndValues ...uint64) []byte {
		b := []byte{1}
		for i := 0; i < len(tagsAndValues); i += 2 {
			v := binary.AppendUvarint(nil, tagsAndValues[i+1])
			b = append(append(b, byte(tagsAndValues[i]), byte(len(v))), v...)
		}
		return b
	}
	redirect := func(dir, path, to string) func(testing.TB, *memtree.Tree) {
		return func(t testing.TB, tree *memtree.Tree) {
			k, v := entryAt(t, tree, objectOf(t, tree, dir), objectOf(t, tree, path))
			_, n := binary.Uvarint(v[1:])
			w := binary.AppendUvarint([]byte{v[0]}, objectOf(t, tree, to))
			tree.SetItem(k, append(w, v[1+n:]...))
		}
	}
	for _, c := range []struct {
		name  string
		plant func(testing.TB, *memtree.Tree)
	}{
		{"no inode of a file", inodeOf("f", nil)},
		{"no inode of a directory", inodeOf("d", nil)},
		{"an empty inode", inodeOf("f", []byte{})},
		{"a newer inode", inodeOf("f", []byte{2})},
		{"a file instead of a directory", inodeOf("d", packed(1, unix.S_IFREG|0o755, 4, 1, 13, 1))},
		{"a directory instead of a file", inodeOf("f", packed(1, unix.S_IFDIR|0o755, 4, 2, 13, 1))},
		{"the value of an attribute instead of a file", inodeOf("f", packed(4, 1, 5, 10))},
		{"a file without links", inodeOf("f", packed(1, unix.S_IFREG|0o755, 13, 1))},
		{"a file of all bytes", inodeOf("f", packed(1, unix.S_IFREG|0o755, 4, 1, 5, 1<<63-1, 13, 1))},
		{"a file of many bytes", inodeOf("f", packed(1, unix.S_IFREG|0o755, 4, 1, 5, 1<<43, 13, 1, 15, 1<<31))},
		{"a link of many bytes", inodeOf("s", packed(1, unix.S_IFLNK|0o777, 4, 1, 5, 1<<40, 13, 1))},
		{"a file with many links", inodeOf("g", packed(1, unix.S_IFREG|0o755, 4, 1000, 13, 1))},
		{"records to go that are not", inodeOf("g", packed(1, unix.S_IFREG|0o755, 4, 1, 5, 1, 13, 1, 18, 1))},
		{"an unknown type", inodeOf("f", packed(1, 0o170000|0o755, 4, 1, 13, 1))},
		{"a mode without end", inodeOf("f", packed(1, 1<<31, 4, 1, 13, 1))},
		{"a directory that is its own parent", func(t testing.TB, tree *memtree.Tree) {
			d := objectOf(t, tree, "d")
			tree.SetItem(key(0x80, d), packed(1, unix.S_IFDIR|0o755, 4, 3, 5, 2, 13, d))
		}},
		{"two directories that are each other's parent", func(t testing.TB, tree *memtree.Tree) {
			d, e := objectOf(t, tree, "d"), objectOf(t, tree, "d/e")
			tree.SetItem(key(0x80, d), packed(1, unix.S_IFDIR|0o755, 4, 3, 5, 2, 13, e))
		}},
		{"a directory with two names", redirect("", "acl", "d")},
		{"a directory within itself", redirect("d", "d/e", "d")},
		{"a name that leads to its parent", redirect("d/e", "d/e/deep", "d")},
		{"a name that leads to an object of another name", redirect("", "g", "f")},
		{"the root within itself", set(key(0x81, 1, 1<<40), []byte{4, 1, 'r'})},
		{"a name of object 0", set(key(0x81, 1, 1<<40), []byte{8, 0, 'r'})},
		{"a name of an object that cannot be", set(key(0x81, 1, 1<<40), append(binary.AppendUvarint([]byte{8}, 1<<40), 'r'))},
		{"a name of tree 0", set(key(0x81, 1, 1<<40), []byte{128, 0, 'r'})},
		{"a name of an unknown type", set(key(0x81, 1, 1<<40), []byte{77, 2, 'r'})},
		{"a name with a slash", set(key(0x81, 1, 1<<40), []byte{8, 2, 'a', '/', 'b'})},
		{"a name that is ..", set(key(0x81, 1, 1<<40), []byte{8, 2, '.', '.'})},
		{"no name", set(key(0x81, 1, 1<<40), []byte{8, 2})},
		{"an entry of nothing", set(key(0x81, 1, 1<<40), []byte{})},
		{"an entry behind all positions", set(key(0x81, 1, 1<<63), []byte{8, 3, 'x'})},
		{"a short key of an entry", set(append(key(0x81, 1), 0), []byte{8, 3, 'x'})},
		{"a long key of an entry", set(append(key(0x81, 1, 1<<40), 0), []byte{8, 3, 'x'})},
		{"entries of a file", func(t testing.TB, tree *memtree.Tree) {
			tree.SetItem(key(0x81, objectOf(t, tree, "f"), 1<<40), []byte{8, 3, 'x'})
		}},
		{"an orphan that has a name", func(t testing.TB, tree *memtree.Tree) {
			tree.SetItem(key(0x83, objectOf(t, tree, "f")), []byte{1})
		}},
		{"an orphan that is not there", set(key(0x83, 1<<30), []byte{1})},
		{"a root to be removed", set(key(0x83, 1), []byte{1})},
		{"records to go of what is not there", set(key(0x83, 1<<30), []byte{2})},
		{"records to go of a directory", func(t testing.TB, tree *memtree.Tree) {
			tree.SetItem(key(0x83, objectOf(t, tree, "d")), []byte{2})
		}},
		{"an unknown orphan", set(key(0x83, 1<<30), []byte{3})},
		{"an attribute of nothing", func(t testing.TB, tree *memtree.Tree) {
			tree.SetItem(key(0x82, objectOf(t, tree, "f"), 5), []byte{})
		}},
		{"an attribute whose value is a file", func(t testing.TB, tree *memtree.Tree) {
			f := objectOf(t, tree, "f")
			tree.SetItem(key(0x82, f, 5), append([]byte("\x01\x06user.z"), binary.AppendUvarint(nil, f)...))
		}},
		{"an inode of a high number", set(key(0x80, 1<<31), packed(1, unix.S_IFREG|0o755, 4, 1))},
		{"an inode with a short key", set([]byte{0x80, 5}, packed(1, unix.S_IFREG|0o755, 4, 1))},
		{"no superblock", set(key(0x84), nil)},
		{"an empty superblock", set(key(0x84), []byte{})},
		{"a hash without bits", set(key(0x84), append(append([]byte{1, 1, 16}, make([]byte, 16)...), 2, 1, 0))},
		{"no root", set(key(0x80, 1), nil)},
		{"a root that is a file", set(key(0x80, 1), packed(1, unix.S_IFREG|0o755, 4, 1))},
		{"an item of an unknown kind", set([]byte{0xf0}, []byte("?"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := victim(t)
			whole := tree.Snapshot("whole", 8)
			c.plant(t, tree)
			told := false
			for _, err := range torment(t, tree, whole) {
				if told = errors.Is(err, unix.EIO); told {
					break
				}
			}
			if !told {
				t.Error("nothing tells of it")
			}
		})
	}
}

// TestDirectoryIsReachedByItsOwnNameOnly refuses the second name of a directory, which
// could lead a walk in circles.
func TestDirectoryIsReachedByItsOwnNameOnly(t *testing.T) {
	tree := victim(t)
	k, v := entryAt(t, tree, objectOf(t, tree, "d/e"), objectOf(t, tree, "d/e/deep"))
	loop := append(binary.AppendUvarint([]byte{4}, objectOf(t, tree, "d")), v[len(v)-len("deep"):]...)
	tree.SetItem(k, loop)
	m := &mount{TB: t, tree: tree}
	m.open()
	defer m.Close()
	_, err := m.lookup("d/e/deep")
	m.want(unix.EIO, err)
	m.want(unix.EIO, m.rmdir("d/e/deep"))
	m.want(unix.EIO, m.rename("d/e/deep", "x", 0))
	m.equal(m.list("d/e"), []string{"deep"})
}

// TestFlippedItems changes bytes of items at random, and removes some.
func TestFlippedItems(t *testing.T) {
	whole := victim(t)
	var keys [][]byte
	if err := whole.Items([]byte{blockpool.ItemCounted}, nil, func(k, _ []byte) error {
		keys = append(keys, append([]byte{}, k...))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	rounds := 400
	if testing.Short() {
		rounds = 50
	}
	for seed := range uint64(rounds) {
		rng := rand.New(rand.NewPCG(seed, 9))
		tree := whole.Clone("flipped", 7)
		for range 1 + rng.IntN(3) {
			k := keys[rng.IntN(len(keys))]
			v, err := tree.Item(k)
			if err != nil {
				t.Fatal(err)
			}
			if rng.IntN(5) == 0 || len(v) == 0 {
				tree.SetItem(k, nil)
				continue
			}
			for range 1 + rng.IntN(3) {
				v[rng.IntN(len(v))] = byte(rng.Uint32())
			}
			tree.SetItem(k, v)
		}
		torment(t, tree, whole.Snapshot("whole", 8))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestNamesThatCollide uses a filesystem whose hash has a single bit: all is as
// ever, up to the number of names that can have the same hash.
func TestNamesThatCollide(t *testing.T) {
	tree := memtree.New("weak", 7, testRecord)
	if err := dataset.FormatWeak(tree, 1); err != nil {
		t.Fatal(err)
	}
	m := &mount{TB: t, tree: tree}
	m.open()
	made := 0
	for ; ; made++ {
		err := m.create(fmt.Sprint(made), fmt.Sprint(made))
		if err != nil {
			m.want(unix.ENOSPC, err)
			break
		}
	}
	if made < 256 || made > 512 {
		t.Fatalf("%d names can be made", made)
	}
	m.equal(len(m.list("")), made)
	for i := range made {
		m.equal(m.read(fmt.Sprint(i)), i)
	}
	for i := 0; i < made; i += 2 {
		m.must(m.unlink(fmt.Sprint(i)))
	}
	m.must(m.rename("1", "2", 0))
	m.equal(m.read("2"), 1)
	m.must(m.mkdir("acl"))
	m.must(m.setxattr("acl", standard, posixACL([3]uint32{userObj, 7, none}, [3]uint32{groupObj, 7, none}, [3]uint32{group, 7, 5}, [3]uint32{mask, 6, none}, [3]uint32{other, 5, none})))
	m.must(m.mkdir("acl/sub"))
	if _, err := m.getxattr("acl/sub", access); err != nil {
		t.Fatal(err)
	}
	m.must(m.Close())
	m.check(tree.Open())
	runModel(t, weakWorld{newMemWorld()}, dataset.Options{}, 3, 1000)
}

// weakWorld is a memWorld whose names collide.
type weakWorld struct{ *memWorld }

func (w weakWorld) open() dataset.Tree {
	if w.tree.Steps() == 0 && w.tree.Open().Counted() == 0 {
		if err := dataset.FormatWeak(w.tree, 2); err != nil {
			panic(err)
		}
	}
	return w.memWorld.open()
}
