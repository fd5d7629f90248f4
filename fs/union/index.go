package union

import (
	"fmt"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// inoKey is the identity of an inode of a layer.
type inoKey struct{ dev, ino uint64 }

// linkIndex ties the names of one lower inode to one upper inode. It has the
// kernel's form (Documentation/filesystems/overlayfs.rst, "index"): a directory
// in which the copied-up inode has one more name, the encoded file handle of
// the lower inode. The link count that the union shows is kept as an xattr,
// relative to the upper inode's own, which also counts the name in the index.
//
// Names that were removed before anything was copied up are counted in a
// directory of our own, because removing a name must not copy the file.
type linkIndex struct {
	dir     layer.Dir
	dropped layer.Dir

	mu     sync.Mutex
	names  map[string]bool
	counts map[string]int // by index name: change of the link count
}

// droppedName is the directory of removed names, beside the kernel's: symbolic
// links from an index name to a number.
const droppedName = "lamina-nlink"

func (fs *FS) openIndex(b Branch) (err error) {
	x := &linkIndex{names: map[string]bool{}, counts: map[string]int{}}
	if x.dir, err = subdir(b.Root, indexName); err != nil {
		return fmt.Errorf("union: work directory %s: cannot make %q in it: %w", b.Name, indexName, err)
	}
	fs.index = x
	if x.dropped, err = subdir(b.Root, droppedName); err != nil {
		return fmt.Errorf("union: work directory %s: cannot make %q in it: %w", b.Name, droppedName, err)
	}
	list, err := x.dir.ReadDir()
	if err != nil {
		return err
	}
	for _, e := range list {
		orphan, err := fs.indexOrphan(e.Name)
		if err != nil {
			return fmt.Errorf("union: work directory %s: %s/%s: %w", b.Name, indexName, e.Name, err)
		}
		if !orphan {
			x.names[e.Name] = true
		} else if err := x.dir.Unlink(e.Name); err != nil {
			return fmt.Errorf("union: work directory %s: cannot remove %s/%s, which no name leads to: %w", b.Name, indexName, e.Name, err)
		}
	}
	if list, err = x.dropped.ReadDir(); err != nil {
		return err
	}
	for _, e := range list {
		v, err := x.dropped.ReadlinkAt(e.Name)
		if err != nil && err != unix.EINVAL { // what is no link is none of ours
			return fmt.Errorf("union: work directory %s: %s/%s: %w", b.Name, droppedName, e.Name, err)
		}
		if n, err := strconv.Atoi(v); err == nil {
			x.counts[e.Name] = n
		}
	}
	return nil
}

// indexOrphan reports whether no name leads to a copy in the index any more:
// its last name went, and then something failed.
func (fs *FS) indexOrphan(name string) (bool, error) {
	st, err := fs.index.dir.StatAt(name)
	if err != nil || st.Nlink > 1 || st.IsDir() {
		return false, err
	}
	m, err := fs.readMarks(childXattrs{fs.index.dir, name})
	return m.nlink != nil && m.nlink.Upper && m.nlink.Diff < 0, err
}

func (x *linkIndex) close() {
	x.dir.Close()
	if x.dropped != nil {
		x.dropped.Close()
	}
}

// has reports whether a name is in the index.
func (x *linkIndex) has(name string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.names[name]
}

func (x *linkIndex) empty() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.names) == 0 && len(x.counts) == 0
}

// count returns how many names of a lower inode were removed, as a negative
// number.
func (x *linkIndex) count(name string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.counts[name]
}

// setCount notes it, in one step on disk.
func (x *linkIndex) setCount(w *workDir, name string, n int) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n == 0 {
		if err := x.dropped.Unlink(name); err != nil && err != unix.ENOENT {
			return err
		}
		delete(x.counts, name)
		return nil
	}
	tmp, err := w.temp(func(d layer.Dir, tmp string) error { return d.Symlink(strconv.Itoa(n), tmp) })
	if err != nil {
		return err
	}
	if err := w.dir.Rename(tmp, x.dropped, name, 0); err != nil {
		w.remove(tmp)
		return err
	}
	x.counts[name] = n
	return nil
}

// linkedNode returns the node of an object that has several names.
func (fs *FS) linkedNode(p *Node, name string, f *found) (*Node, error) {
	fs.hardlinkMu.Lock()
	defer fs.hardlinkMu.Unlock()
	key := inoKey{f.st.Dev, f.st.Ino}
	if n := fs.hardlinks[key]; n != nil {
		n.ref()
		n.addPlace(p, name)
		return n, nil
	}
	if !f.upper && !fs.index.empty() {
		n, err := fs.indexedNode(p, name, f, key)
		if n != nil || err != nil {
			return n, err
		}
	}
	n := fs.newNode(p, name, f)
	if f.upper && f.m.nlink != nil && f.m.nlink.Upper {
		o, err := lookupAt(fs, f.top)
		if err != nil {
			return nil, err
		}
		n.set(stateIndexed)
		e := n.extLocked()
		e.pinObj, e.nlinkDiff = o, int(f.m.nlink.Diff)
		if f.m.origin != nil { // of one that cannot have a name in the index it stays empty
			e.indexAs, _ = f.m.origin.IndexName()
		}
	}
	if !f.upper && fs.index != nil && !fs.index.empty() {
		idx, err := fs.indexNameOf(f.top)
		if err != nil {
			return nil, err
		}
		n.extLocked().nlinkDiff = fs.index.count(idx)
	}
	fs.addKey(n, key)
	fs.nodes.add(n)
	return n, nil
}

// lookupAt opens an object where it lies.
func lookupAt(fs *FS, at lowerRef) (layer.Object, error) {
	h, err := at.dir.open(fs)
	if err != nil {
		return nil, err
	}
	defer h.release()
	return retryOpen(fs, func() (layer.Object, error) { return h.obj.Lookup(at.name) })
}

// hasKey reports whether the node of an inode is known: one that has a single
// name by now may have been found by another.
func (fs *FS) hasKey(key inoKey) bool {
	fs.hardlinkMu.Lock()
	defer fs.hardlinkMu.Unlock()
	return fs.hardlinks[key] != nil
}

// addKey makes a node findable by an inode; hardlinkMu is held.
func (fs *FS) addKey(n *Node, key inoKey) {
	if fs.hardlinks[key] == nil {
		fs.hardlinks[key] = n
		n.mu.Lock()
		e := n.extLocked()
		e.keys = append(e.keys, key)
		n.mu.Unlock()
	}
}

// forgetKey makes a node unfindable, unless it was found again: then it returns
// false.
func (fs *FS) forgetKey(n *Node) bool {
	n.mu.Lock()
	keyed := n.ext != nil && len(n.ext.keys) > 0
	n.mu.Unlock()
	if !keyed {
		return n.refs.Load() <= 0
	}
	fs.hardlinkMu.Lock()
	defer fs.hardlinkMu.Unlock()
	if n.refs.Load() > 0 {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range n.ext.keys {
		if fs.hardlinks[k] == n {
			delete(fs.hardlinks, k)
		}
	}
	n.ext.keys = nil
	return true
}

// registerLinked makes an upper object that just got a further name findable by
// its inode.
func (fs *FS) registerLinked(n *Node, st layer.Stat) {
	fs.hardlinkMu.Lock()
	defer fs.hardlinkMu.Unlock()
	fs.addKey(n, inoKey{st.Dev, st.Ino})
}

// indexNameOf returns the name that a lower inode has in the index, "" for one
// without a file handle, which cannot be in it.
func (fs *FS) indexNameOf(at lowerRef) (string, error) {
	name, _, err := fs.indexNameAndLinks(at)
	return name, err
}

// indexNameAndLinks also returns the number of names that the inode has in its
// layer.
func (fs *FS) indexNameAndLinks(at lowerRef) (name string, links int, err error) {
	o, err := lookupAt(fs, at)
	if err != nil {
		return "", 0, err
	}
	defer o.Close()
	st, err := o.Stat()
	if err != nil {
		return "", 0, err
	}
	fh, ok, err := fs.identify(o, st.Dev)
	if err != nil || !ok {
		return "", 0, err
	}
	name, err = fh.IndexName()
	return name, int(st.Nlink), err
}

// identify returns the handle of an object of a layer in the kernel's form;
// false tells that the filesystem has none, or none that fits. Any other error
// is a failure: to go on without the handle would change inode numbers, and
// part hard links, at the next mount.
func (fs *FS) identify(o layer.Object, dev uint64) (whiteout.FileHandle, bool, error) {
	h, err := o.Handle()
	if err != nil {
		switch errnoOf(err) {
		case unix.EOPNOTSUPP, unix.EOVERFLOW, unix.ENOSYS, unix.EPERM:
			return whiteout.FileHandle{}, false, nil
		}
		return whiteout.FileHandle{}, false, err
	}
	fh, err := fs.inos.encode(dev, h)
	return fh, err == nil, nil
}

// indexedNode returns the node of a lower object whose inode was copied up
// under another name; nil if it was not. hardlinkMu is held.
func (fs *FS) indexedNode(p *Node, name string, f *found, key inoKey) (*Node, error) {
	idx, err := fs.indexNameOf(f.top)
	if err != nil || !fs.index.has(idx) {
		return nil, err
	}
	o, err := fs.index.dir.Lookup(idx)
	if err != nil {
		return nil, err
	}
	st, err := o.Stat()
	if err != nil {
		o.Close()
		return nil, err
	}
	if n := fs.hardlinks[inoKey{st.Dev, st.Ino}]; n != nil {
		o.Close()
		n.ref()
		n.addPlace(p, name)
		fs.addKey(n, key)
		return n, nil
	}
	m, err := fs.readMarks(objectXattrs{o})
	if err != nil {
		o.Close()
		return nil, err
	}
	n := &Node{parent: p, name: name, typ: st.Type(), lower: f.top.dir}
	n.ino.Store(fs.inos.compose(f.st.Dev, f.st.Ino))
	n.refs.Store(1)
	n.set(stateUpper | stateIndexed)
	if m.origin != nil {
		n.set(stateOrigin)
	}
	e := n.extLocked()
	e.pinObj, e.indexAs = o, idx
	if f.top.name != name {
		e.lowerName = f.top.name
	}
	if m.nlink != nil && m.nlink.Upper {
		e.nlinkDiff = int(m.nlink.Diff)
	}
	if m.metacopy {
		n.set(stateMetacopy)
		if e.data = f.top; f.data.dir != nil {
			e.data = f.data
		}
	}
	fs.addKey(n, key)
	fs.addKey(n, inoKey{st.Dev, st.Ino})
	fs.nodes.add(n)
	return n, nil
}

// indexing is the entry into the index of a copy that is about to be published.
// A nil one is that of a copy which has only one name.
type indexing struct {
	fs   *FS
	n    *Node
	copy layer.Object
	name string // in the index; "": without file handles the names are tied until the union is unmounted
	diff int    // of the link count from that of the copy, once it is published
}

// indexStaged enters a staged copy of a lower inode with several names into the
// index, so that the other names lead to it as well.
//
// Crash after the link: all names of the lower inode lead to the copy, which is
// whole. Crash once the copy has its name as well: one name too many is counted,
// which only keeps the copy in the index; one too few would drop it from there
// while a name leads to it.
func (fs *FS) indexStaged(n *Node, copy layer.Object, lower *layer.Stat) (*indexing, error) {
	if fs.index == nil || lower.Nlink <= 1 {
		return nil, nil
	}
	x := &indexing{fs: fs, n: n, copy: copy}
	n.mu.Lock()
	x.diff = n.extLocked().nlinkDiff + int(lower.Nlink) - 1 // its names: this one
	n.mu.Unlock()
	if fs.opt.Prefix == whiteout.User && !lower.IsRegular() {
		return x, nil // what is neither a file nor a directory takes no note
	}
	var err error
	if x.name, err = fs.indexNameOf(n.lowerPlace()); err != nil || x.name == "" {
		return x, err
	}
	switch err := x.count(x.diff); err {
	case nil:
	case unix.EOPNOTSUPP: // nor does anything on a filesystem without xattrs
		x.name = ""
		return x, nil
	default:
		return nil, err
	}
	x.diff-- // and the one in the index
	err = fs.index.dir.Link(copy, x.name)
	if err == unix.EEXIST {
		if err = fs.index.dir.Unlink(x.name); err == nil {
			err = fs.index.dir.Link(copy, x.name)
		}
	}
	if err != nil {
		return nil, err
	}
	return x, nil
}

// count notes the difference between the link counts.
func (x *indexing) count(diff int) error {
	mark := whiteout.Nlink{Upper: true, Diff: int32(diff)}.Encode()
	return x.copy.Setxattr(x.fs.opt.Prefix.Nlink(), mark, 0)
}

// published notes that the copy has its name in the upper.
func (x *indexing) published() error {
	if x == nil || x.name == "" {
		return nil
	}
	return x.count(x.diff)
}

// drop takes a copy out of the index again that could not be published. If that
// fails, the names lead to the copy from the next mount on.
func (x *indexing) drop() {
	if x != nil && x.name != "" {
		_ = x.fs.index.dir.Unlink(x.name)
	}
}

// enter makes the copy the one to which all names of the lower inode lead.
func (x *indexing) enter() {
	if x == nil {
		return
	}
	fs, n := x.fs, x.n
	n.mu.Lock()
	n.ext.nlinkDiff, n.ext.indexAs = x.diff, x.name
	n.mu.Unlock()
	// Where this fails, the copy is found by the key of the lower inode.
	if st, err := x.copy.Stat(); err == nil {
		fs.hardlinkMu.Lock()
		fs.addKey(n, inoKey{st.Dev, st.Ino})
		fs.hardlinkMu.Unlock()
	}
	if x.name == "" {
		return
	}
	n.set(stateIndexed)
	fs.index.mu.Lock()
	fs.index.names[x.name] = true
	fs.index.mu.Unlock()
	// The copy's own mark counts from now on.
	_ = fs.index.setCount(fs.work, x.name, 0)
}

// linkAlias gives an indexed inode the name in the upper that only a lower
// layer has, so that the name can be renamed. The lock of p is held for
// writing.
func (fs *FS) linkAlias(n, p *Node, name string) error {
	o, err := fs.objectOf(n)
	if err != nil {
		return err
	}
	defer o.Close()
	err = fs.inParent(p, n.has(stateOrigin), func(d layer.Dir) error {
		if err := d.Link(unshared(o), name); err != nil {
			return err
		}
		err := fs.changeLinks(n, -1)
		if err != nil {
			_ = d.Unlink(name)
		}
		return err
	})
	if err != nil {
		return err
	}
	fs.entryIsUpper(p, name)
	return nil
}
