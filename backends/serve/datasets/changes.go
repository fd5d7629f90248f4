package datasets

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/dataset"
)

// Where the snapshots of a dataset are shown.
const (
	hiddenName    = ".lamina"
	snapshotsName = "snapshot"
)

// findSnapshots finds the directory of the snapshots, whose number stays.
func (f *filesystem) findSnapshots() error {
	n, forget, err := f.walk(hiddenName + "/" + snapshotsName)
	if err != nil {
		return fmt.Errorf("find the directory of snapshots: %w", err)
	}
	defer forget()
	f.snapshots = n.ID()
	return nil
}

// Restless implements [vfs.Restless]: snapshots come and go by commands.
func (f filesystem) Restless(p *dataset.Node) bool { return p.ID() == f.snapshots }

// walk returns the node at a path below the root. It follows no symbolic links.
func (f *filesystem) walk(name string) (n *dataset.Node, forget func(), err error) {
	n, forget = f.Root(), func() {}
	for part := range strings.SplitSeq(strings.Trim(path.Clean("/"+name), "/"), "/") {
		if part == "" {
			continue // the root itself
		}
		next, _, err := f.FS.Lookup(n, part)
		forget()
		if err != nil {
			return nil, nil, fmt.Errorf("look up %s: %w", name, err)
		}
		n, forget = next, func() { f.FS.Forget(next, 1) }
	}
	return n, forget, nil
}

// The errors of telling the kernel say only that it does not know what it is to
// forget.

// dropName makes the kernel forget a name, and the listing and the attributes of the
// directory.
func (m *Mount) dropName(dir uint64, name string) {
	_ = m.raw.DropEntry(dir, name)
	_ = m.raw.DropInode(dir)
}

// SnapshotsChanged has the mount show which snapshots there are now.
func (m *Mount) SnapshotsChanged() { _ = m.raw.DropInode(m.fs.snapshots) }

// AddSubvolume gives a dataset, whose name must lie below that of the mounted one, a
// name in a directory of the mount, by which it is entered from then on. dir is a
// path from the root of the mount.
func (m *Mount) AddSubvolume(dir, name, subvolume string) error {
	if !strings.HasPrefix(subvolume, datasetOf(m.Dataset())+"/") {
		return fmt.Errorf("subvolume %s: %w: its name must lie below %s", subvolume, unix.EINVAL, m.Dataset())
	}
	i, err := m.mounts.pool.Volume(subvolume)
	if err != nil {
		return err
	}
	return m.changeIn(dir, name, func(p *dataset.Node) error { return m.fs.AddSubvolume(p, name, i.ID) })
}

// RemoveSubvolume takes the name of a nested subvolume out of a directory and returns
// the number of its tree, which stays in the pool and is not in use any more. EBUSY
// tells that files in it are open.
func (m *Mount) RemoveSubvolume(dir, name string) (id uint64, err error) {
	err = m.changeIn(dir, name, func(p *dataset.Node) error {
		n, a, err := m.fs.FS.Lookup(p, name)
		if err != nil {
			return err
		}
		m.fs.FS.Forget(n, 1)
		if tree := treeOf(a.Ino); tree != treeOf(p.Ino()) && !m.letGo(tree, p.ID(), name) {
			return fmt.Errorf("files in it are open: %w", unix.EBUSY)
		}
		id, err = m.fs.RemoveSubvolume(p, name)
		return err
	})
	if err == nil {
		m.fs.Detach(id) // who has looked into it just now finds it gone
	}
	return id, err
}

// changeIn changes a name in a directory and tells the kernel.
func (m *Mount) changeIn(dir, name string, change func(p *dataset.Node) error) error {
	p, forget, err := m.fs.walk(dir)
	if err == nil {
		err = change(p)
		m.dropName(p.ID(), name)
		forget()
	}
	if err != nil {
		return fmt.Errorf("subvolume %s in %s: %w", name, path.Join(m.target, dir), err)
	}
	return nil
}

// treeOf returns the number of the tree that an inode number tells of, 0 for the
// dataset that is mounted.
func treeOf(ino uint64) uint64 { return ino >> 31 }

// letGo makes the kernel forget another tree of the mount, which has a name in
// directory dir if that is not 0, and reports whether nobody uses it.
//
// Inodes that are only cached are forgotten from the leaves up, a level at a time. A
// directory in which a name was looked for in vain goes only together with its name,
// which would take a directory that somebody works in out of sight: so not before all
// files are gone. Linux before 6.18 knows only the second way, and keeps what was open
// once until it needs the memory.
func (m *Mount) letGo(tree, dir uint64, name string) bool {
	const patience = 300 * time.Millisecond // the kernel says what it has forgotten a little later
	known := 0
	for start := time.Now(); slices.Contains(m.fs.Views(), tree); time.Sleep(time.Millisecond) {
		ids := m.fs.NodesOf(tree)
		switch {
		case time.Since(start) > patience:
			return false
		case len(ids) == known:
			continue
		}
		known = len(ids)
		old := false
		for some := range slices.Chunk(ids, maxPrune) {
			old = old || errors.Is(m.raw.Prune(some), unix.EINVAL)
		}
		if dir != 0 && (old || !m.anyFile(ids)) {
			_ = m.raw.DropEntry(dir, name)
		}
		start = time.Now()
	}
	return true
}

// maxPrune is how many inodes are named in one message.
const maxPrune = 4096

// anyFile reports whether one of the nodes is no directory.
func (m *Mount) anyFile(ids []uint64) bool {
	return slices.ContainsFunc(ids, func(id uint64) bool {
		n := m.fs.Node(id)
		return n != nil && !n.IsDir()
	})
}
