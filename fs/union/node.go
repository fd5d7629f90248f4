package union

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/laminafs/lamina/fs/layer"
)

// A Node is one file of the union. It stays valid until [FS.Forget] has taken
// back every reference that lookups and creations have given.
//
// There may be hundreds of thousands of nodes: what few of them need is in
// nodeExt.
type Node struct {
	id   uint64
	refs atomic.Int64 // references given out; the node leaves the tables at 0

	cow sync.Mutex // one copy-up at a time

	mu     sync.Mutex
	parent *Node    // directory of the name below; nil: the root, or no name is left
	name   string   // the name in parent; also the name in the upper
	lower  *realDir // not a directory: where the lower object lies, nil if there is none
	ext    *nodeExt

	ino   atomic.Uint64 // as shown; see ownIno for when it changes
	typ   uint32        // S_IFMT; never changes
	state atomic.Uint32

	file slot[layer.File] // regular: the open data
	dir  *dirNode         // directory: its table; never changes
}

const (
	stateUpper    = 1 << iota // not a directory: the object is in the upper
	stateOrphan               // no name is left
	stateMetacopy             // in the upper without its data
	stateNoXattrs             // the lower object has no xattr at all
	stateIndexed              // is tied to the index
	stateOrigin               // the upper object carries the origin of a lower one
	stateReadOnly             // the open data in the slot may be open for reading only
)

// nodeExt is what few nodes need. Guarded by Node.mu.
type nodeExt struct {
	aliases   []place // further known names of a hard-linked object
	lowerName string  // the name in the lower directory where it is another one
	data      lowerRef
	keys      []inoKey // under which FS.hardlinks leads here
	indexAs   string   // the name in the index, where it is known
	// An object that no name leads to any more is held by one of these.
	pinObj  layer.Object
	pinFile *handle[layer.File]
	// nlinkDiff is what the shown link count has beyond the object's own.
	nlinkDiff int
}

// place is a name in a directory of the union.
type place struct {
	parent *Node
	name   string
}

// lowerRef is an object in a lower layer.
type lowerRef struct {
	dir  *realDir
	name string
}

// ID returns the number of the node, unique among the live ones; the root's
// is 1.
func (n *Node) ID() uint64 { return n.id }

// Ino returns the inode number that the union shows.
func (n *Node) Ino() uint64 { return n.ino.Load() }

// Type returns the S_IFMT bits.
func (n *Node) Type() uint32 { return n.typ }

// IsDir reports whether the node is a directory.
func (n *Node) IsDir() bool { return n.dir != nil }

func (n *Node) has(s uint32) bool { return n.state.Load()&s != 0 }
func (n *Node) set(s uint32)      { n.state.Or(s) }
func (n *Node) clear(s uint32)    { n.state.And(^s) }

// isUpper reports whether the object, or the top part of the directory, is in
// the upper.
func (n *Node) isUpper() bool {
	if n.dir != nil {
		return n.dir.upper.Load() != nil
	}
	return n.has(stateUpper)
}

// extLocked returns the rare part; Node.mu is held.
func (n *Node) extLocked() *nodeExt {
	if n.ext == nil {
		n.ext = &nodeExt{}
	}
	return n.ext
}

// where returns one name of the node; parent is nil when none is left.
func (n *Node) where() (parent *Node, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.parent, n.name
}

// lowerPlace returns where the lower object lies, dir nil if there is none.
func (n *Node) lowerPlace() lowerRef {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lowerPlaceLocked()
}

func (n *Node) lowerPlaceLocked() lowerRef {
	name := n.name
	if n.ext != nil && n.ext.lowerName != "" {
		name = n.ext.lowerName
	}
	return lowerRef{n.lower, name}
}

// addPlace records a further name. The directory's lock is held.
func (n *Node) addPlace(p *Node, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.parent == nil {
		n.keepLowerNameLocked()
		n.parent, n.name = p, name
		n.clear(stateOrphan)
		return
	}
	if n.parent == p && n.name == name {
		return
	}
	e := n.extLocked()
	if at := (place{p, name}); !slices.Contains(e.aliases, at) {
		e.aliases = append(e.aliases, at)
	}
}

// keepLowerNameLocked notes the name in the lower layer before the name in the
// union changes.
func (n *Node) keepLowerNameLocked() {
	if n.lower != nil && (n.ext == nil || n.ext.lowerName == "") {
		n.extLocked().lowerName = n.name
	}
}

// dropPlace takes a name away and reports whether another known one is left.
// The directory's lock is held.
func (n *Node) dropPlace(p *Node, name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keepLowerNameLocked()
	if n.parent == p && n.name == name {
		n.parent = nil
		if n.ext != nil && len(n.ext.aliases) > 0 {
			last := len(n.ext.aliases) - 1
			n.parent, n.name = n.ext.aliases[last].parent, n.ext.aliases[last].name
			n.ext.aliases = n.ext.aliases[:last]
		}
	} else if n.ext != nil {
		if i := slices.Index(n.ext.aliases, place{p, name}); i >= 0 {
			n.ext.aliases = slices.Delete(n.ext.aliases, i, i+1)
		}
	}
	return n.parent != nil
}

// movePlace changes a name. The locks of both directories are held.
func (n *Node) movePlace(op *Node, oname string, np *Node, nname string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keepLowerNameLocked()
	if n.parent == op && n.name == oname {
		n.parent, n.name = np, nname
		return
	}
	if n.ext != nil {
		if i := slices.Index(n.ext.aliases, place{op, oname}); i >= 0 {
			n.ext.aliases[i] = place{np, nname}
		}
	}
}

func (n *Node) closeHandles() {
	n.file.drop()
	if n.dir != nil {
		n.dir.closeHandles()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ext == nil {
		return
	}
	if n.ext.pinObj != nil {
		n.ext.pinObj.Close()
		n.ext.pinObj = nil
	}
	if n.ext.pinFile != nil {
		n.ext.pinFile.release()
		n.ext.pinFile = nil
	}
}

// ref gives out one more reference.
func (n *Node) ref() { n.refs.Add(1) }

// Forget takes back count references. With the last one the node's handles are
// closed and its id may be used anew; it reports whether that was so. A directory
// stays as long as nodes of what is in it do: the kernel may keep a file, by another
// of its names or by none, longer than the directory.
func (fs *FS) Forget(n *Node, count uint64) bool {
	if n == fs.root || n.refs.Add(-int64(count)) > 0 {
		return false
	}
	for {
		p, name := n.lastPlace()
		if p == nil {
			if !fs.forgetKey(n) || !fs.removeNode(n) {
				return false
			}
			fs.limits.freed(n)
			n.closeHandles()
			return true
		}
		p.dir.mu.Lock()
		done := fs.forgetPlaceLocked(n, p, name)
		p.dir.mu.Unlock()
		if done {
			return false
		}
		if p.refs.Load() <= 0 { // n may have been the last one that kept it
			defer fs.Forget(p, 0)
		}
	}
}

// removeNode takes a node out of the tables of ids and reports whether it was
// still there.
func (fs *FS) removeNode(n *Node) bool {
	if n.dir != nil {
		fs.virtual.dropDir(n)
	}
	if n.id&virtualBit != 0 {
		return fs.virtual.dropNode(n)
	}
	return fs.nodes.remove(n)
}

// forgetPlaceLocked takes n out of the table of p, whose lock is held, and
// reports whether there is nothing more to do. A lookup may have given the node
// out again meanwhile; it does so under the same lock, or finds it by its key.
func (fs *FS) forgetPlaceLocked(n, p *Node, name string) bool {
	if n.refs.Load() > 0 || n.hasNodes() {
		return true
	}
	if q, qname := n.lastPlace(); q != p || qname != name {
		return false
	}
	p.dir.table.detach(name, n)
	// What a lookup has found before may have been changed through n.
	p.dir.gen++
	n.dropPlace(p, name)
	return false
}

// hasNodes reports whether nodes are known of what is in a directory.
func (n *Node) hasNodes() bool {
	if n.dir == nil {
		return false
	}
	n.dir.mu.RLock()
	defer n.dir.mu.RUnlock()
	return n.dir.table.nodes > 0
}

// lastPlace returns the name that is forgotten first: of several one that is
// not the main one.
func (n *Node) lastPlace() (*Node, string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ext != nil && len(n.ext.aliases) > 0 {
		at := n.ext.aliases[len(n.ext.aliases)-1]
		return at.parent, at.name
	}
	return n.parent, n.name
}

const nodeChunk = 1024

// nodeTable maps ids to nodes: an index into chunks that never move.
type nodeTable struct {
	mu     sync.RWMutex
	chunks []*[nodeChunk]atomic.Pointer[Node]
	next   uint64
	free   []uint64
}

func (t *nodeTable) add(n *Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := len(t.free); k > 0 {
		n.id = t.free[k-1]
		t.free = t.free[:k-1]
	} else {
		t.next++
		n.id = t.next
	}
	c := int(n.id / nodeChunk)
	for len(t.chunks) <= c {
		t.chunks = append(t.chunks, new([nodeChunk]atomic.Pointer[Node]))
	}
	t.chunks[c][n.id%nodeChunk].Store(n)
}

func (t *nodeTable) get(id uint64) *Node {
	t.mu.RLock()
	defer t.mu.RUnlock()
	c := id / nodeChunk
	if c >= uint64(len(t.chunks)) {
		return nil
	}
	return t.chunks[c][id%nodeChunk].Load()
}

// remove reports whether n was still in the table.
func (t *nodeTable) remove(n *Node) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.chunks[n.id/nodeChunk][n.id%nodeChunk].CompareAndSwap(n, nil) {
		return false
	}
	t.free = append(t.free, n.id)
	return true
}

func (t *nodeTable) each(f func(*Node)) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, c := range t.chunks {
		for i := range c {
			if n := c[i].Load(); n != nil {
				f(n)
			}
		}
	}
}

// eachNode calls f for all live nodes. It must not look any up.
func (fs *FS) eachNode(f func(*Node)) {
	fs.nodes.each(f)
	fs.virtual.mu.RLock()
	defer fs.virtual.mu.RUnlock()
	for _, n := range fs.virtual.nodes {
		f(n)
	}
}

// Nodes returns the number of live nodes.
func (fs *FS) Nodes() int {
	fs.nodes.mu.RLock()
	defer fs.nodes.mu.RUnlock()
	fs.virtual.mu.RLock()
	defer fs.virtual.mu.RUnlock()
	return int(fs.nodes.next) - len(fs.nodes.free) + len(fs.virtual.nodes)
}
