package dataset_test

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/blockpool/dataset/memtree"
)

// views leads to trees in memory.
type views struct {
	snapshots map[string]*memtree.Tree
	trees     map[uint64]*memtree.Tree
}

func (v *views) Snapshots() (list []dataset.Snapshot, err error) {
	for name, t := range v.snapshots {
		list = append(list, dataset.Snapshot{Name: name, ID: t.ID()})
	}
	return list, nil
}

func (v *views) OpenSnapshot(name string) (dataset.Tree, error) {
	if t := v.snapshots[name]; t != nil {
		return t.Open(), nil
	}
	return nil, unix.ENOENT
}

func (v *views) OpenTree(in dataset.Tree, id uint64) (dataset.Tree, error) {
	if t := v.trees[id]; t != nil && strings.HasPrefix(t.Name(), in.Name()+"/") {
		return t.Open(), nil
	}
	return nil, unix.ENOENT
}

func TestSnapshotsAreBrowsable(t *testing.T) {
	v := &views{snapshots: map[string]*memtree.Tree{}}
	m := newMount(t, dataset.Options{Views: v})
	m.must(m.mkdir("d"))
	m.must(m.create("d/f", text(1<<20, 1)))
	v.snapshots["monday"] = m.tree.Snapshot("tank/home@monday", 21)
	v.snapshots["tuesday"] = m.tree.Snapshot("tank/home@tuesday", 20)
	m.must(m.write("d/f", 0, "changed"))
	m.equal(m.list(""), []string{"d"})
	m.equal(m.list(".lamina"), []string{"snapshot"})
	m.equal(m.list(".lamina/snapshot"), []string{"monday", "tuesday"})
	const old = ".lamina/snapshot/monday"
	m.equal(m.read(old+"/d/f") == text(1<<20, 1), true)
	m.equal(m.stat(old+"/d/f").Ino, 21<<31|m.stat("d/f").Ino)
	m.equal(m.ParentIno(m.at(old)), m.stat(".lamina/snapshot").Ino)
	m.equal(m.ParentIno(m.at(old+"/d")), m.stat(old).Ino)
	m.want(unix.ENOENT, m.on(".lamina/snapshot/sunday", func(*dataset.Node) error { return nil }))
	for _, err := range []error{
		m.create(old+"/x", ""), m.unlink(old + "/d/f"), m.mkdir(".lamina/x"), m.rmdir(".lamina"), m.rename("d", ".lamina", 0),
		m.create(".lamina/snapshot/x", ""), m.write(old+"/d/f", 0, "x"), m.rename(".lamina", "x", 0),
	} {
		m.want(unix.EROFS, err)
	}
	m.want(unix.EXDEV, m.link(old+"/d/f", "d/g"))
	m.must(m.on(old+"/d/f", func(src *dataset.Node) error {
		return m.on("d/f", func(dst *dataset.Node) error {
			_, err := m.CopyRange(src, dst, 0, 0, 1<<20, false)
			return err
		})
	}))
	m.equal(m.Stats().Shared.Load(), 1<<20)
	m.equal(m.read("d/f") == text(1<<20, 1), true)

	// A snapshot that is to be destroyed leaves the mount.
	n := m.at(old + "/d/f")
	if !slices.Contains(m.Views(), 21) || !m.Detach(21) || m.Detach(21) {
		t.Fatal("the snapshot is not taken out")
	}
	delete(v.snapshots, "monday")
	_, err := m.Read(n, make([]byte, 10), 0)
	m.want(unix.ESTALE, err)
	m.Forget(n, 1)
	m.equal(m.list(".lamina/snapshot"), []string{"tuesday"})
}

// TestSnapshotIsClosedAfterItsLastUser keeps no tree open that nobody looks at.
func TestSnapshotIsClosedAfterItsLastUser(t *testing.T) {
	v := &views{snapshots: map[string]*memtree.Tree{}}
	m := newMount(t, dataset.Options{Views: v})
	m.must(m.create("f", "x"))
	v.snapshots["a"] = m.tree.Snapshot("tank/home@a", 21)
	for range 3 {
		m.equal(m.read(".lamina/snapshot/a/f"), "x")
		m.equal(m.Views(), []uint64(nil))
		if _, err := v.snapshots["a"].Item([]byte{0x84}); err == nil {
			t.Fatal("the snapshot's tree is still open")
		}
	}
	m.equal(m.Nodes(), 1)
}

// TestSnapshotLeavesSubvolumesOut, also while they are in use in the dataset: what is
// changed there must not show in the snapshot.
func TestSnapshotLeavesSubvolumesOut(t *testing.T) {
	v := &views{snapshots: map[string]*memtree.Tree{}, trees: map[uint64]*memtree.Tree{30: memtree.New("tank/home/sub", 30, testRecord)}}
	m := newMount(t, dataset.Options{Views: v, ShowHidden: true})
	m.must(dataset.Format(t.Context(), v.trees[30], dataset.Root{Mode: 0o700}))
	m.must(m.in("sub", func(p *dataset.Node, name string) error { return m.AddSubvolume(p, name, 30) }))
	m.must(m.create("sub/f", "inside"))
	v.snapshots["s"] = m.tree.Snapshot("tank/home@s", 21)
	n := m.at("sub/f") // in use
	m.equal(m.list(".lamina/snapshot/s"), []string{"sub"})
	m.equal(m.list(".lamina/snapshot/s/sub"), []string(nil))
	m.equal(m.list("sub"), []string{"f"})
	m.Forget(n, 1)
	m.equal(m.list(".lamina/snapshot/s/sub"), []string(nil))
	m.equal(m.list(""), []string{".lamina", "sub"}) // shown when that is asked for
}

func TestNestedSubvolume(t *testing.T) {
	v := &views{snapshots: map[string]*memtree.Tree{}, trees: map[uint64]*memtree.Tree{30: memtree.New("tank/home/sub", 30, testRecord)}}
	m := newMount(t, dataset.Options{Views: v})
	m.must(dataset.Format(t.Context(), v.trees[30], dataset.Root{Mode: 0o700, UID: 5, GID: 6}))
	m.must(m.mkdir("d"))
	m.must(m.in("d/sub", func(p *dataset.Node, name string) error { return m.AddSubvolume(p, name, 30) }))
	m.equal(m.stat("d").Nlink, 3)
	m.must(m.create("d/sub/f", "inside"))
	a := m.stat("d/sub")
	m.equal([]uint64{a.Ino, uint64(a.UID), uint64(a.Mode)}, []uint64{30<<31 | 1, 5, unix.S_IFDIR | 0o700})
	m.equal(m.ParentIno(m.at("d/sub")), m.stat("d").Ino)
	m.want(unix.EBUSY, m.rmdir("d/sub"))
	m.want(unix.ENOTEMPTY, m.rmdir("d"))
	m.want(unix.EXDEV, m.rename("d/sub/f", "f", 0))
	m.must(m.mkdir("e"))
	m.want(unix.EBUSY, m.rename("e", "d/sub", 0))
	m.must(m.rename("d/sub", "moved", 0))
	m.equal(m.read("moved/f"), "inside")
	m.equal(m.list(""), []string{"d", "e", "moved"})
	m.equal(m.stat("d").Nlink, 2)
	m.must(m.rename("moved", "e", unix.RENAME_EXCHANGE))
	m.equal(m.read("e/f"), "inside")
	m.check(m.tree)

	// The parent's snapshot has an empty directory there.
	delete(v.trees, 30)
	m.remount(m.tree)
	m.equal(m.list("e"), []string(nil))
	m.want(unix.EROFS, m.create("e/x", ""))
	tree, err := m.RemoveSubvolume(m.Root(), "e")
	m.must(err)
	m.equal(tree, 30)
	_, err = m.RemoveSubvolume(m.Root(), "d")
	m.want(unix.EINVAL, err)
	m.equal(m.list(""), []string{"d", "moved"})
}

func TestDiff(t *testing.T) {
	m := newMount(t, dataset.Options{})
	for _, d := range []string{"keep", "dir", "dir/sub", "gone"} {
		m.must(m.mkdir(d))
	}
	for _, f := range []string{"keep/same", "keep/content", "keep/mode", "keep/owner", "keep/xattr", "keep/read", "dir/sub/deep", "move", "gone/f", "linked", "replaced"} {
		m.must(m.create(f, f))
	}
	m.must(m.in("volume", func(p *dataset.Node, name string) error { return m.AddSubvolume(p, name, 99) }))
	old := m.tree.Snapshot("tank/home@old", 8)

	m.must(m.write("keep/content", 0, "K"))
	m.must(m.chmod("keep/mode", 0o600))
	m.must(m.on("keep/owner", func(n *dataset.Node) error {
		uid := uint32(1)
		_, err := m.SetAttr(n, dataset.Change{UID: &uid})
		return err
	}))
	m.must(m.setxattr("keep/xattr", "user.a", text(3000, 1)))
	atime := dataset.Time{Sec: 5}
	m.must(m.on("keep/read", func(n *dataset.Node) error {
		_, err := m.SetAttr(n, dataset.Change{Atime: &atime})
		return err
	}))
	m.must(m.rename("dir", "renamed", 0))
	m.must(m.write("renamed/sub/deep", 0, "D"))
	m.must(m.rename("move", "keep/moved", 0))
	m.must(m.write("keep/moved", 100, "and changed"))
	m.must(m.unlink("gone/f"))
	m.must(m.rmdir("gone"))
	m.must(m.mkdir("new"))
	m.must(m.create("new/f", "f"))
	m.must(m.link("linked", "new/link"))
	m.must(m.unlink("replaced"))
	m.must(m.create("replaced", "another file"))
	m.must(m.rename("volume", "new/volume", 0))
	m.at("keep/same")
	m.must(m.unlink("keep/same")) // still in use: gone all the same

	list, err := dataset.Diff(old, m.tree)
	m.must(err)
	var got []string
	for _, d := range list {
		line := d.Kind.String() + " " + d.Path
		if d.OldPath != "" {
			line += " from " + d.OldPath
		}
		for _, f := range []struct {
			name string
			set  bool
		}{{"content", d.Content}, {"mode", d.Mode}, {"owner", d.Owner}, {"times", d.Times}, {"xattrs", d.Xattrs}, {"links", d.Links}} {
			if f.set {
				line += " " + f.name
			}
		}
		got = append(got, line)
	}
	want := `changed  content times
removed gone
removed gone/f
changed keep content times
changed keep/content content times
changed keep/mode mode
renamed keep/moved from move content times
changed keep/owner owner
removed keep/same
changed keep/xattr xattrs
changed linked links
added new
added new/f
added new/link
renamed new/volume from volume
renamed renamed from dir
changed renamed/sub/deep content times
added replaced
removed replaced`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	same, err := dataset.Diff(old, old)
	m.must(err)
	m.equal(len(same), 0)
}

func TestNewerFilesystemIsRefusedByName(t *testing.T) {
	for _, c := range []struct{ super, want string }{
		{"\x02", "version 2"},
		{"\x01\x01\x100123456789abcdef\x02\x01\x36\x03\x06future", `feature "future"`},
	} {
		tree := memtree.New("tank/home", 7, testRecord)
		tree.SetItem([]byte{0x84}, []byte(c.super))
		_, err := dataset.New(tree, dataset.Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "newer") {
			t.Errorf("error is %v, which does not tell %s", err, c.want)
		}
	}
}
