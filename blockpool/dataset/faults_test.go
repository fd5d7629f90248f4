package dataset_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/blockpool/dataset/memtree"
)

// script is one of each operation, by name.
var script = []struct {
	name string
	do   func(m *mount) error
}{
	{"create", func(m *mount) error { return m.create("new", "content") }},
	{"mkdir", func(m *mount) error { return m.mkdir("newdir") }},
	{"mkdir with an ACL", func(m *mount) error { return m.mkdir("acl/newdir") }},
	{"symlink", func(m *mount) error { return m.symlink("target", "newlink") }},
	{"link", func(m *mount) error { return m.link("f", "d/f2") }},
	{"unlink", func(m *mount) error { return m.unlink("f") }},
	{"unlink in use", func(m *mount) error {
		return m.on("f", func(*dataset.Node) error { return m.unlink("f") })
	}},
	{"rmdir", func(m *mount) error { return m.rmdir("empty") }},
	{"rename", func(m *mount) error { return m.rename("f", "d/g", 0) }},
	{"rename over", func(m *mount) error { return m.rename("f", "g", 0) }},
	{"rename a directory", func(m *mount) error { return m.rename("d", "empty", 0) }},
	{"exchange", func(m *mount) error { return m.rename("d", "f", unix.RENAME_EXCHANGE) }},
	{"whiteout", func(m *mount) error { return m.rename("f", "d/g", unix.RENAME_WHITEOUT) }},
	{"write", func(m *mount) error { return m.write("f", 5000, "content") }},
	{"truncate", func(m *mount) error { return m.truncate("f", 100) }},
	{"chmod", func(m *mount) error { return m.chmod("f", 0o600) }},
	{"setxattr", func(m *mount) error { return m.setxattr("f", "user.b", text(5000, 1)) }},
	{"replace xattr", func(m *mount) error { return m.setxattr("f", "user.a", text(5000, 1)) }},
	{"removexattr", func(m *mount) error {
		return m.on("f", func(n *dataset.Node) error { return m.Removexattr(n, "user.a") })
	}},
	{"punch", func(m *mount) error {
		return m.on("f", func(n *dataset.Node) error { return m.Fallocate(n, 3, 100, 9000, false) })
	}},
	{"collapse", func(m *mount) error {
		return m.on("f", func(n *dataset.Node) error { return m.Fallocate(n, 8, 4096, 4096, false) })
	}},
	{"copy", func(m *mount) error {
		return m.on("f", func(src *dataset.Node) error {
			return m.on("g", func(dst *dataset.Node) error {
				_, err := m.CopyRange(src, dst, 0, 0, 1<<20, false)
				return err
			})
		})
	}},
	{"tmpfile", func(m *mount) error {
		n, _, err := m.Tmpfile(m.Root(), 0o600, me)
		if err != nil {
			return err
		}
		defer m.Forget(n, 1)
		if _, err := m.Link(n, m.Root(), "tmp"); err != nil {
			return err
		}
		m.Forget(n, 1)
		return nil
	}},
	{"chattr", func(m *mount) error { return m.on("f", func(n *dataset.Node) error { return m.SetFlags(n, 0x40) }) }},
	{"subvolume", func(m *mount) error { return m.AddSubvolume(m.Root(), "sub", 9) }},
}

// stage prepares what the script works on.
func stage(t testing.TB) *mount {
	m := newMount(t, dataset.Options{})
	for _, d := range []string{"d", "empty", "acl"} {
		m.must(m.mkdir(d))
	}
	m.must(m.create("f", text(20000, 1)))
	m.must(m.create("g", text(9000, 2)))
	m.must(m.setxattr("f", "user.a", text(2000, 3)))
	m.must(m.setxattr("acl", standard, posixACL([3]uint32{userObj, 7, none}, [3]uint32{groupObj, 7, none}, [3]uint32{group, 7, 5}, [3]uint32{mask, 6, none}, [3]uint32{other, 5, none})))
	return m
}

// TestChangeThatFailsChangesNothing lets each batch of each operation fail: the tree
// is then what it was, also to who has files in use, and the operation can be done
// again.
func TestChangeThatFailsChangesNothing(t *testing.T) {
	for _, c := range script {
		t.Run(c.name, func(t *testing.T) {
			for nth := 1; ; nth++ {
				m := stage(t)
				for _, path := range []string{"f", "g", "d", "empty"} {
					defer m.Forget(m.at(path), 1)
				}
				before, tree := m.dump(), m.tree.Crash(m.tree.Steps())
				first := m.tree.Steps()
				failed := false
				m.tree.Before(func(n int, _ *blockpool.Batch) error {
					if n-first == nth && !failed {
						failed = true
						return memtree.ErrFailed
					}
					return nil
				})
				err := c.do(m)
				m.tree.Before(nil)
				if !failed {
					m.must(err)
					return
				}
				if !errors.Is(err, unix.EIO) {
					t.Fatalf("batch %d fails and the error is %v", nth, err)
				}
				if nth == 1 {
					m.equal(m.dump(), before)
					var changed []string
					m.must(m.tree.DiffFrom(tree, func(key, _, _ []byte) error {
						changed = append(changed, fmt.Sprintf("%x", key))
						return nil
					}))
					m.equal(changed, []string(nil))
					m.must(c.do(m))
				}
				m.Settle()
				m.check(m.tree)
			}
		})
	}
}

// TestCrashAfterEachBatch crashes after each batch of each operation, and at the
// mount that follows.
func TestCrashAfterEachBatch(t *testing.T) {
	for _, c := range script {
		t.Run(c.name, func(t *testing.T) {
			m := stage(t)
			first := m.tree.Steps()
			m.must(c.do(m))
			m.Settle()
			for n := first; n <= m.tree.Steps(); n++ {
				again := &mount{TB: t, tree: m.tree.Crash(n)}
				m.check(again.tree)
				again.open()
				again.Settle()
				again.dump()
				again.Close()
				m.check(again.tree.Open())
				for k := range again.tree.Steps() {
					m.check(again.tree.Crash(k))
				}
			}
		})
	}
}

// TestReclaimThatFailsIsTriedAgain does not lose space because the pool was busy
// once.
func TestReclaimThatFailsIsTriedAgain(t *testing.T) {
	m := newMount(t, dataset.Options{})
	m.must(m.create("a", text(9000, 1)))
	m.must(m.create("b", ""))
	n := m.at("a")
	m.must(m.unlink("a"))
	m.tree.Before(func(int, *blockpool.Batch) error { return memtree.ErrFailed })
	m.Forget(n, 1)
	m.Settle()
	m.equal(m.Stats().ReclaimErrors.Load(), 1)
	m.tree.Before(nil)
	n = m.at("b")
	m.must(m.unlink("b"))
	m.Forget(n, 1)
	m.Settle()
	m.equal(m.tree.Counted(), 1)
}

// TestOrphanThatCannotGoKeepsNoOther does not lose the space of files because one of
// them is damaged.
func TestOrphanThatCannotGoKeepsNoOther(t *testing.T) {
	m := stage(t)
	var nodes []*dataset.Node
	for i := range 5 {
		path := fmt.Sprint("x", i)
		m.must(m.create(path, text(5000, 1)))
		m.must(m.setxattr(path, "user.a", text(5000, 1)))
		nodes = append(nodes, m.at(path))
		m.must(m.unlink(path))
	}
	before := m.tree.Counted()
	tree := m.tree.Clone("damaged", 7)
	bad := key(0x82, nodes[2].Ino(), 5)
	tree.SetItem(bad, []byte{})
	for _, n := range nodes {
		m.Forget(n, 1)
	}
	other := &mount{TB: t, tree: tree}
	other.open()
	defer other.Close()
	other.Settle()
	other.equal(tree.Counted(), before-8)
	other.equal(other.Stats().ReclaimErrors.Load() > 0, true)
}

// raceTime is how long TestRace runs.
const raceTime = 2 * time.Second

// TestRace has many goroutines use one dataset. Each has names of its own in
// directories that all share: what it made must be there. Others do whatever they
// like to names that nobody owns. In the end the tree contradicts itself nowhere,
// and a mount shows the same.
func TestRace(t *testing.T) {
	tree := memtree.New("tank/home", 7, testRecord)
	tree.KeepNoHistory()
	t.Run("memory", func(t *testing.T) { race(t, func() dataset.Tree { return tree.Open() }) })
	t.Run("pool", func(t *testing.T) { race(t, newPoolWorld(t, 4<<10, blockpool.CompressionOff).open) })
}

func race(t *testing.T, open func() dataset.Tree) {
	m := &mount{TB: t}
	mount := func() {
		fs, err := dataset.New(open(), dataset.Options{Atime: true, ShareFrom: 8 << 10})
		m.must(err)
		m.FS = fs
	}
	mount()
	dirs := []string{"a", "b", "a/x", "b/y"}
	for _, d := range dirs {
		m.must(m.mkdir(d))
	}
	m.must(m.create("shared", text(50000, 1)))
	var stop atomic.Bool
	var rascals, owners sync.WaitGroup
	for i := range 4 {
		rascals.Go(func() { rascal(m, rand.New(rand.NewPCG(uint64(i), 5)), &stop) })
	}
	problems := make(chan error, 4)
	for i := range 4 {
		owners.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 6))
			deadline := time.Now().Add(raceTime)
			for k := 0; time.Now().Before(deadline); k++ {
				if err := ownNames(m, rng, dirs, fmt.Sprintf("own-%d-%d", i, k%3)); err != nil {
					problems <- err
					return
				}
			}
		})
	}
	owners.Wait()
	stop.Store(true)
	rascals.Wait()
	close(problems)
	for err := range problems {
		t.Error(err)
	}
	m.Settle()
	m.equal(m.Nodes(), 1)
	before := m.dump()
	m.must(m.Close())
	m.must(checkTree(open()))
	mount()
	m.equal(m.dump(), before)
	m.must(m.Close())
}

// ownNames makes, changes and removes a file that nobody else touches.
func ownNames(m *mount, rng *rand.Rand, dirs []string, name string) error {
	from, to := dirs[rng.IntN(len(dirs))]+"/"+name, dirs[rng.IntN(len(dirs))]+"/"+name+"'"
	content := text(1+rng.IntN(10000), rng.Uint64())
	for _, do := range []func() error{
		func() error { return m.create(from, content) },
		func() error { return m.link(from, to) },
		func() error { return m.unlink(from) },
		func() error { return m.rename(to, from, unix.RENAME_NOREPLACE) },
		func() error {
			return m.on(from, func(n *dataset.Node) error {
				if got := m.content(n); string(got) != content {
					return fmt.Errorf("%s has %d other bytes", from, len(got))
				}
				return m.unlink(from)
			})
		},
	} {
		if err := do(); err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
	}
	return nil
}

// rascal does random things to names that nobody owns.
func rascal(m *mount, rng *rand.Rand, stop *atomic.Bool) {
	dirs := []string{"", "a/", "b/", "a/x/", "b/y/", "r1/", "r2/", "r1/r2/", "a/r1/"}
	path := func() string { return dirs[rng.IntN(len(dirs))] + []string{"r1", "r2", "r3", "shared"}[rng.IntN(4)] }
	for !stop.Load() {
		a, b := path(), path()
		switch rng.IntN(12) {
		case 0:
			_ = m.create(a, "rascal")
		case 1, 2:
			_ = m.mkdir(a)
		case 3:
			_ = m.unlink(a)
		case 4:
			_ = m.rmdir(a)
		case 5, 6, 7:
			_ = m.rename(a, b, []uint{0, 0, unix.RENAME_EXCHANGE, unix.RENAME_WHITEOUT}[rng.IntN(4)])
		case 8:
			_ = m.link(a, b)
		case 9:
			_ = m.write(a, int64(rng.IntN(50000)), text(3000, rng.Uint64()))
		case 10:
			_ = m.on(a, func(n *dataset.Node) error { return m.ReadDir(n, 0, func(dataset.Listed) bool { return true }) })
		case 11:
			_ = m.on(a, func(src *dataset.Node) error {
				return m.on(b, func(dst *dataset.Node) error {
					_, err := m.CopyRange(src, dst, 0, int64(rng.IntN(9000)), 20000, false)
					return err
				})
			})
		}
	}
}
