package union

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// A Restacked directory may show other names than before a change of the
// layers.
type Restacked struct {
	Dir *Node
	// Gone are names in use that no longer stand for what they did.
	Gone []string
}

// AddLower puts a layer among the lowers as number index, 0 being the topmost
// and -1 the one below all others, and returns the directories that show other
// names now. The layer must not change from then on. It owns the layer's root,
// also when it fails.
func (fs *FS) AddLower(index int, b Branch) ([]Restacked, error) {
	fs.branchMu.Lock()
	defer fs.branchMu.Unlock()
	if index < -1 || index > len(fs.lowers) {
		b.Root.Close()
		return nil, fmt.Errorf("union: layer %s: no place %d among %d lower layers: %w", b.Name, index, len(fs.lowers), unix.EINVAL)
	}
	if index == -1 {
		index = len(fs.lowers)
	}
	br := fs.newBranch(b, 0)
	br.aufs = true
	if err := fs.inos.addBranch(br); err != nil {
		b.Root.Close()
		return nil, fmt.Errorf("union: layer %s: %w", b.Name, err)
	}
	if _, err := fs.readBranchMarks(br); err != nil {
		b.Root.Close()
		return nil, fmt.Errorf("union: layer %s: the marks of its root: %w", b.Name, err)
	}
	return fs.restack(slices.Insert(slices.Clone(fs.lowers), index, br)), nil
}

// DelLower takes the lower layer with the given name out. Files of it that are
// in use stay readable; see [FS.CloseRetired] for when its root is closed.
// ENOENT tells that there is no such layer, EBUSY that it is the last one of a
// union without an upper.
func (fs *FS) DelLower(name string) ([]Restacked, error) {
	fs.branchMu.Lock()
	defer fs.branchMu.Unlock()
	i := slices.IndexFunc(fs.lowers, func(b *branch) bool { return b.name == name })
	if i < 0 {
		return nil, fmt.Errorf("union: no lower layer %s: %w", name, unix.ENOENT)
	}
	if len(fs.lowers) == 1 && fs.upper == nil {
		return nil, fmt.Errorf("union: %s is the only layer: unmount the union instead: %w", name, unix.EBUSY)
	}
	fs.retired = append(fs.retired, fs.lowers[i])
	return fs.restack(slices.Delete(slices.Clone(fs.lowers), i, i+1)), nil
}

// CloseRetired closes the layers that were taken out and that nobody uses any
// more, so that their filesystems can be unmounted, and returns how many are
// still in use. Those that still are in the end are closed with the union.
func (fs *FS) CloseRetired() int {
	fs.branchMu.Lock()
	defer fs.branchMu.Unlock()
	if len(fs.retired) == 0 {
		return 0
	}
	used := map[*branch]bool{}
	fs.eachNode(func(n *Node) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.lower != nil {
			used[n.lower.br] = true
		}
		if n.ext != nil && n.ext.data.dir != nil {
			used[n.ext.data.dir.br] = true
		}
		if n.dir != nil && n.has(stateOrphan) { // all others have parts of the new stack only
			for _, rd := range n.dir.lowers() {
				used[rd.br] = true
			}
		}
	})
	fs.handles.shrink(fs.opt.MaxHandles) // directories of those layers among others
	fs.retired = slices.DeleteFunc(fs.retired, func(b *branch) bool {
		if used[b] {
			return false
		}
		h := b.root.pin.Swap(nil)
		h.doomed.Store(true) // closes with the last user
		h.release()
		return true
	})
	return len(fs.retired)
}

// restack replaces the lower layers while the union is in use: all directories
// that anyone knows are locked, parents before children, and merged anew. The
// result is what mounting the new stack would show; only objects in use keep
// what they had. branchMu is held.
//
// Nothing on disk changes, so a crash leaves nothing behind.
func (fs *FS) restack(lowers []*branch) []Restacked {
	fs.rename.Lock() // directories stay where they are
	defer fs.rename.Unlock()
	r := restacking{fs: fs, gone: map[*Node][]string{}}
	defer r.forgetIdle()
	defer r.unlock()
	r.lock(fs.root)
	fs.setLowers(lowers)
	roots := make([]*realDir, len(lowers))
	for i, b := range lowers {
		roots[i] = b.root
	}
	r.merge(fs.root, roots)
	return r.result()
}

func (fs *FS) setLowers(lowers []*branch) {
	for i, b := range lowers {
		b.index = i + 1
	}
	fs.lowers = lowers
}

// restacking is one change of the stack under way.
type restacking struct {
	fs   *FS
	dirs []*Node // locked, parents before children
	gone map[*Node][]string
}

// lock locks a directory and all known ones below it.
func (r *restacking) lock(n *Node) {
	n.dir.mu.Lock()
	r.dirs = append(r.dirs, n)
	for i := range n.dir.table.entries {
		if c := n.dir.table.entries[i].node; c != nil && c.dir != nil {
			r.lock(c)
		}
	}
}

func (r *restacking) unlock() {
	for i := len(r.dirs) - 1; i >= 0; i-- {
		r.dirs[i].dir.mu.Unlock()
	}
}

// forgetIdle lets directories go that only what they held has kept.
func (r *restacking) forgetIdle() {
	for _, n := range slices.Backward(r.dirs) {
		if n.refs.Load() <= 0 {
			r.fs.Forget(n, 0)
		}
	}
}

// merge gives a directory its new parts, and does the same to what is known
// below it.
func (r *restacking) merge(n *Node, lowers []*realDir) {
	d := n.dir
	old := d.lowers()
	d.setLowers(lowers)
	d.gen++
	own := d.upper.Load() != nil && len(lowers) == 0 && len(old) == 0 // all its names are the upper's, as before
	d.table.complete = d.table.complete && own
	d.absent, d.misses = "", 0
	for _, e := range slices.Clone(d.table.entries) { // entry removes some
		if e.seq != 0 && !(own && e.node == nil) {
			r.entry(n, e.name, old)
		}
	}
}

// entry looks anew at a name that is known. What it stands for now is kept; what
// it stood for before loses the name, and lives on for who uses it.
func (r *restacking) entry(p *Node, name string, old []*realDir) {
	fs, t := r.fs, &p.dir.table
	e := t.get(name)
	if e == nil {
		return
	}
	f, err := fs.resolve(p, name, 0)
	switch {
	case err == nil && f != nil && e.node != nil && e.node.dir != nil && f.isDir():
		e.part = fs.partOf(p.dir, f.top.dir)
		r.merge(e.node, f.lowers)
		return
	case err == nil && f != nil && e.node != nil && e.node.dir == nil && r.same(e.node, f):
		e.part = fs.partOf(p.dir, f.top.dir)
		return
	case err == nil && f != nil && e.node == nil && e.refs > 0 && f.mayBeVirtual(name) && f.top.dir.sameAs(old, e.part):
		e.part = fs.partOf(p.dir, f.top.dir)
		return
	}
	r.detach(p, e, old)
	t.remove(name)
	t.complete = false // should the name still stand for something
}

// same reports whether a node, no directory, is still what a name stands for.
func (r *restacking) same(n *Node, f *found) bool {
	if n.isUpper() {
		return f.upper || r.fs.index != nil && f.st.Nlink > 1
	}
	at := n.lowerPlace()
	return !f.upper && !f.isDir() && at.name == f.top.name && at.dir.is(f.top.dir)
}

// is reports whether two handles stand for one directory of one layer.
func (d *realDir) is(o *realDir) bool {
	for d != nil && o != nil {
		if d == o {
			return true
		}
		if d.br != o.br || d.name != o.name {
			return false
		}
		d, o = d.parent, o.parent
	}
	return d == o
}

// sameAs reports whether d is the part with the given number of the old ones.
func (d *realDir) sameAs(old []*realDir, part int16) bool {
	return part > 0 && int(part) <= len(old) && d.is(old[part-1])
}

// detach takes the name away from what an entry stood for. A file that was
// given out without a node gets one now, because its entry goes.
func (r *restacking) detach(p *Node, e *entry, old []*realDir) {
	n := e.node
	if n == nil {
		if e.refs == 0 || e.part <= 0 || int(e.part) > len(old) {
			return
		}
		n = &Node{parent: p, name: e.name, typ: uint32(e.typ), lower: old[e.part-1]}
		n.ino.Store(e.ino)
		n.id = virtualID(p.dir.serial, e.seq)
		n.refs.Store(int64(e.refs))
		r.fs.virtual.addNode(n)
	}
	r.gone[p] = append(r.gone[p], e.name)
	if n.dir != nil {
		r.bury(n)
	}
	if !n.dropPlace(p, e.name) {
		n.set(stateOrphan)
	}
}

// bury empties a directory that the stack no longer has, and all below it.
func (r *restacking) bury(n *Node) {
	d := n.dir
	for i := range d.table.entries {
		if e := &d.table.entries[i]; e.seq != 0 {
			r.detach(n, e, d.lowers())
		}
	}
	d.table = dirTable{lastSeq: d.table.lastSeq, complete: true}
	d.dead = true
	d.gen++
}

func (r *restacking) result() []Restacked {
	out := make([]Restacked, 0, len(r.dirs))
	for _, n := range r.dirs {
		out = append(out, Restacked{Dir: n, Gone: r.gone[n]})
	}
	return out
}
