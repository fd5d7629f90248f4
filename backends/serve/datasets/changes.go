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
		_ = m.raw.DropEntry(p.ID(), name)
		if tree := treeOf(a.Ino); tree != treeOf(p.Ino()) && !m.isLeft(tree) {
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

// letGo makes the kernel forget another tree of the mount, and reports whether that
// is not in use.
func (m *Mount) letGo(tree uint64) bool {
	if !slices.Contains(m.fs.Views(), tree) {
		return true
	}
	list, err := (&views{mounts: m.mounts, name: m.tree.Name}).Snapshots()
	if err != nil {
		return false
	}
	for _, s := range list {
		if s.ID == tree {
			_ = m.raw.DropEntry(m.fs.snapshots, s.Name)
		}
	}
	return m.isLeft(tree)
}

// isLeft reports whether nobody is in another tree. The kernel says so soon after it
// was told to forget the name.
func (m *Mount) isLeft(tree uint64) bool {
	for wait := time.Millisecond; slices.Contains(m.fs.Views(), tree); wait *= 2 {
		if wait > 200*time.Millisecond {
			return false
		}
		time.Sleep(wait)
	}
	return true
}

// Flush has the kernel hand over what it holds back of written files, and makes all
// that durable. A snapshot has what the programs have written before it, mapped files
// and write-back included.
func (m *Mount) Flush() error {
	fd, err := unix.Open(m.target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Syncfs(fd), m.fs.Fsync(m.fs.Root(), false), unix.Close(fd))
	}
	if err != nil {
		return fmt.Errorf("flush %s: %w", m.target, err)
	}
	return nil
}
