package dataset_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/blockpool/dataset/memtree"
)

func TestPlaceTellsWhereANodeIs(t *testing.T) {
	v := &views{snapshots: map[string]*memtree.Tree{}, trees: map[uint64]*memtree.Tree{}}
	m := newMount(t, dataset.Options{Views: v})
	m.must(m.mkdir("a"))
	m.must(m.mkdir("a/b"))
	m.must(m.create("a/b/file", "x"))
	v.snapshots["old"] = m.tree.Snapshot("tank/home@old", 21)
	f := m.at("a/b/file") // stays
	where := func(n *dataset.Node, path, tree string) {
		t.Helper()
		if p, of := m.Place(n.ID()); p != path || of != tree {
			t.Errorf("it is at %q in %q, want %q in %q", p, of, path, tree)
		}
	}
	where(f, "/a/b/file", "tank/home")
	where(m.Root(), "/", "tank/home")
	where(m.at(".lamina/snapshot"), "", "")
	where(m.at(".lamina/snapshot/old"), "/", "tank/home@old")
	where(m.at(".lamina/snapshot/old/a/b/file"), "/a/b/file", "tank/home@old")
	m.must(m.link("a/b/file", "second"))
	m.must(m.unlink("a/b/file"))
	where(f, "/second", "tank/home")
	m.must(m.rename("second", "a/third", unix.RENAME_NOREPLACE))
	where(f, "/a/third", "tank/home")
	m.must(m.unlink("a/third"))
	where(f, "", "tank/home")
	if p, of := m.Place(1 << 50); p != "" || of != "" {
		t.Errorf("a number that nobody has is at %q in %q", p, of)
	}
	m.Forget(f, 1)
}
