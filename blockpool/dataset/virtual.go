package dataset

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
)

// Views leads to other trees of the pool.
type Views interface {
	// Snapshots lists the snapshots of the dataset.
	Snapshots() ([]Snapshot, error)
	// OpenSnapshot opens a snapshot of the dataset by its name, ENOENT if there is
	// none. The filesystem closes the tree.
	OpenSnapshot(name string) (Tree, error)
	// OpenTree opens the dataset with that number for a subvolume nested in another
	// tree of the mount, ENOENT if there is none or it is not nested in that one: a
	// snapshot has the names of the subvolumes, and not these. Nobody else may write
	// to it as long as it is open.
	OpenTree(in Tree, id uint64) (Tree, error)
}

// A Snapshot is a snapshot of the dataset: its name without that of the dataset,
// and the number of its tree.
type Snapshot struct {
	Name string
	ID   uint64
}

// The names below which snapshots are shown. No listing of the root has the first
// one.
const (
	hiddenName    = ".lamina"
	snapshotsName = "snapshot"
)

// A virtualDir is a directory that is in no tree.
type virtualDir struct {
	kind      int
	parentIno uint64
}

const (
	virtualHidden    = 1 + iota // .lamina
	virtualSnapshots            // .lamina/snapshot
	virtualEmpty                // stands for a subvolume whose tree is not there
)

const (
	// virtualIno begins the numbers of virtual directories, above those of all
	// trees; emptyIno those of subvolumes that are not there, by the tree that names
	// one and by its own.
	virtualIno = 1 << 62
	emptyIno   = virtualIno | 1<<61
	// maxTree is the highest number of a tree that numbers of nodes have room for.
	maxTreeBits = 30
	maxTree     = 1<<maxTreeBits - 1
)

// reserved tells whether a name is the hidden directory's.
func (fs *FS) reserved(p *Node, name string) bool {
	return p == fs.root && name == hiddenName && fs.opt.Load().Views != nil
}

// rootIno returns the number of the root of another tree.
func rootIno(tree uint64) uint64 { return tree<<objectBits | rootObject }

// subvolumeIno returns the number that a nested subvolume has in a tree, if it is
// there.
func (v *view) subvolumeIno(tree uint64) uint64 {
	if v.tree.ReadOnly() {
		return v.emptyIno(tree)
	}
	return rootIno(tree)
}

// emptyIno returns the number of the directory that stands for a subvolume.
func (v *view) emptyIno(tree uint64) uint64 { return emptyIno | v.id<<maxTreeBits | tree }

// virtual returns the node of a virtual directory, with one more reference.
func (fs *FS) virtual(kind int, ino, parent uint64) (*Node, Attr) {
	n := &Node{id: ino, virtual: &virtualDir{kind: kind, parentIno: parent}, loaded: true}
	n.in = &inode{mode: unix.S_IFDIR | 0o555, nlink: 2}
	n.in.atime = fs.now()
	n.in.mtime, n.in.ctime, n.in.btime = n.in.atime, n.in.atime, n.in.atime
	n.typ.Store(unix.S_IFDIR)
	n = fs.nodes.add(n)
	return n, n.attr()
}

// lookupVirtual finds a name in a virtual directory, or the hidden one in the root.
func (fs *FS) lookupVirtual(p *Node, name string) (*Node, Attr, error) {
	kind := 0
	if p.virtual != nil {
		kind = p.virtual.kind
	}
	switch {
	case kind == 0:
		n, a := fs.virtual(virtualHidden, virtualIno|virtualHidden, p.id)
		return n, a, nil
	case kind == virtualHidden && name == snapshotsName:
		n, a := fs.virtual(virtualSnapshots, virtualIno|virtualSnapshots, p.id)
		return n, a, nil
	case kind == virtualSnapshots:
		list, err := fs.opt.Load().Views.Snapshots()
		if err != nil {
			return nil, Attr{}, failed("list snapshots", 0, err)
		}
		i := slices.IndexFunc(list, func(s Snapshot) bool { return s.Name == name })
		if i < 0 {
			return nil, Attr{}, unix.ENOENT
		}
		return fs.enter(p, list[i].ID, func() (Tree, error) { return fs.opt.Load().Views.OpenSnapshot(name) })
	}
	return nil, Attr{}, unix.ENOENT
}

// readVirtual lists a virtual directory. Positions of snapshots are the numbers of
// their trees, which stay whatever comes and goes.
func (fs *FS) readVirtual(p *Node, pos uint64, emit func(Listed) bool) error {
	switch p.virtual.kind {
	case virtualHidden:
		if pos == 0 {
			emit(Listed{Name: snapshotsName, Ino: virtualIno | virtualSnapshots, Type: unix.S_IFDIR, Pos: 1})
		}
	case virtualSnapshots:
		list, err := fs.opt.Load().Views.Snapshots()
		if err != nil {
			return failed("list snapshots", 0, err)
		}
		slices.SortFunc(list, func(a, b Snapshot) int { return int(int64(a.ID) - int64(b.ID)) })
		for _, s := range list {
			if s.ID < pos {
				continue
			}
			if !emit(Listed{Name: s.Name, Ino: rootIno(s.ID), Type: unix.S_IFDIR, Pos: s.ID + 1}) {
				return nil
			}
		}
	}
	return nil
}

// enterSubvolume returns the root of a nested subvolume, or an empty directory
// where its tree is not there. A snapshot of the parent leads nowhere: it has no
// snapshot of the subvolume, and the live one has its place already. A directory in
// two places would be moved from one to the other by the kernel that finds it there.
func (fs *FS) enterSubvolume(p *Node, tree uint64) (*Node, Attr, error) {
	err := error(unix.ENOENT)
	if fs.opt.Load().Views != nil && !p.view.tree.ReadOnly() {
		var n *Node
		var a Attr
		n, a, err = fs.enter(p, tree, func() (Tree, error) { return fs.opt.Load().Views.OpenTree(p.view.tree, tree) })
		if err == nil {
			return n, a, nil
		}
	}
	if !isErrno(err, unix.ENOENT) {
		return nil, Attr{}, err
	}
	n, a := fs.virtual(virtualEmpty, p.view.emptyIno(tree), p.id)
	return n, a, nil
}

// enter returns the root of another tree, which open opens unless it is open.
func (fs *FS) enter(p *Node, id uint64, open func() (Tree, error)) (*Node, Attr, error) {
	v, err := fs.openView(p, id, open)
	if err != nil {
		return nil, Attr{}, err
	}
	n := fs.nodes.grab(v, rootObject)
	fs.leave(v) // the node keeps it open
	a, err := fs.GetAttr(n)
	if err == nil && !n.IsDir() {
		err = failed("enter "+v.tree.Name(), rootObject, damagedf("the root is no directory"))
	}
	if err != nil {
		fs.Forget(n, 1)
		return nil, Attr{}, err
	}
	return n, a, nil
}

// openView returns another tree as part of the mount. The caller is one user of it.
func (fs *FS) openView(p *Node, id uint64, open func() (Tree, error)) (*view, error) {
	if id == 0 || id > maxTree {
		return nil, failed("open a tree", 0, damagedf("number %d", id))
	}
	fs.viewMu.Lock()
	defer fs.viewMu.Unlock()
	if v := fs.views[id]; v != nil {
		if p.view != nil && v.in != p.view {
			return nil, unix.ENOENT // it is nested in another tree
		}
		v.users.Add(1)
		return v, nil
	}
	if id == fs.main.tree.ID() {
		return nil, failed("open a tree", 0, unix.ELOOP) // it would contain itself
	}
	tree, err := open()
	if err != nil {
		return nil, failed("open a tree", 0, err)
	}
	v := fs.newView(tree, id)
	v.users.Add(1) // the caller, also while start uses nodes
	if err := v.start(); err != nil {
		v.reclaim.stop()
		tree.Close()
		return nil, err
	}
	v.in = p.view
	v.parentIno.Store(p.id)
	fs.views[id] = v
	return v, nil
}

// leave says that one user of a tree is gone. Without users another tree is closed.
func (fs *FS) leave(v *view) {
	if v.users.Add(-1) > 0 || v == fs.main {
		return
	}
	v.reclaim.settle()
	fs.viewMu.Lock()
	defer fs.viewMu.Unlock()
	if v.users.Load() == 0 && fs.views[v.id] == v {
		fs.closeViewLocked(v)
	}
}

func (fs *FS) closeViewLocked(v *view) {
	delete(fs.views, v.id)
	v.gone.Store(true)
	v.reclaim.stop()
	// What could not be closed stays open until the pool is.
	_ = v.tree.Close()
}

// Detach takes another tree out of the mount although nodes of it are in use, so
// that it can be destroyed: they answer ESTALE from then on. It reports whether the
// tree was open.
func (fs *FS) Detach(tree uint64) bool {
	fs.viewMu.Lock()
	defer fs.viewMu.Unlock()
	v := fs.views[tree]
	if v != nil {
		fs.closeViewLocked(v)
	}
	return v != nil
}

// Views returns the numbers of the other trees that are open, in order.
func (fs *FS) Views() []uint64 {
	fs.viewMu.Lock()
	defer fs.viewMu.Unlock()
	var ids []uint64
	for id := range fs.views {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// NodesOf returns the numbers of the live nodes of another tree that is open, the
// largest first: what was made in a directory mostly has a larger one than that.
func (fs *FS) NodesOf(tree uint64) []uint64 {
	var ids []uint64
	for i := range fs.nodes.shards {
		s := &fs.nodes.shards[i]
		s.mu.Lock()
		for id, n := range s.nodes {
			if n.view != nil && n.view != fs.main && n.view.id == tree {
				ids = append(ids, id)
			}
		}
		s.mu.Unlock()
	}
	slices.SortFunc(ids, func(a, b uint64) int { return cmp.Compare(b, a) })
	return ids
}

// AddSubvolume gives the tree with a number a name in directory p. That the tree is
// there is the caller's matter; as long as it is not, the name shows an empty
// directory.
func (fs *FS) AddSubvolume(p *Node, name string, tree uint64) error {
	if tree == 0 || tree > maxTree {
		return unix.EINVAL
	}
	if err := fs.mayChangeNames(p, name); err != nil {
		return err
	}
	if err := p.lock(); err != nil {
		return err
	}
	defer p.mu.Unlock()
	at, err := fs.freeSlotLocked(p, name)
	if err != nil {
		return err
	}
	s := p.view.step()
	s.enter(p, at.pos, entry{typ: unix.S_IFDIR, subvol: true, object: tree, name: name})
	return s.commit("enter subvolume "+name, p.object)
}

// RemoveSubvolume takes the name of a nested subvolume away and returns the number
// of its tree, which stays. EINVAL tells that the name is none's.
func (fs *FS) RemoveSubvolume(p *Node, name string) (tree uint64, err error) {
	if err := fs.mayChangeNames(p, name); err != nil {
		return 0, err
	}
	if err := p.lock(); err != nil {
		return 0, err
	}
	defer p.mu.Unlock()
	at, found, err := fs.takenLocked(p, name)
	defer fs.forgetAll(found)
	switch {
	case err != nil:
		return 0, err
	case !at.entry.subvol:
		return 0, unix.EINVAL
	case p.in.flags&(flagImmutable|flagAppend) != 0:
		return 0, unix.EPERM
	}
	s := p.view.step()
	s.leave(p, at.pos, at.entry.typ)
	return at.entry.object, s.commit("remove subvolume "+name, p.object)
}
