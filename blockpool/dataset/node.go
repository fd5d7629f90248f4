package dataset

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Node is one object in use. It stays valid until [FS.Forget] has taken back
// every reference that lookups and creations have given. The kernel refers to as many
// as it has inodes cached, so those that were not asked for lately are without their
// inodes, see [nodeTable.loaded].
type Node struct {
	id      uint64
	object  uint64
	view    *view       // nil: not an object of any tree
	virtual *virtualDir // set where view is nil
	refs    int64       // guarded by the table

	mu sync.RWMutex
	in *inode // as the tree has it, where loaded is set
	// known is one more than the number of a record that is there, 0: none is
	// known.
	known uint64

	typ    atomic.Uint32
	loaded bool
	// noCaps tells that the file has no capabilities that a write would take.
	noCaps bool
	// linkable tells that the file was made without a name and may get one.
	linkable bool
	gone     bool // the tree no longer has the object
}

// ID returns the number of the node, unique among the live ones; the root's is 1.
func (n *Node) ID() uint64 { return n.id }

// Ino returns the inode number: that of the object, and for objects of other trees
// the number of the tree, times 2³¹, on top.
func (n *Node) Ino() uint64 { return n.id }

// Type returns the S_IFMT bits.
func (n *Node) Type() uint32 { return n.typ.Load() }

// IsDir reports whether the node is a directory.
func (n *Node) IsDir() bool { return n.Type() == unix.S_IFDIR }

// lock locks a node for changing it, with its inode loaded.
func (n *Node) lock() error {
	n.mu.Lock()
	if err := n.loadLocked(); err != nil {
		n.mu.Unlock()
		return err
	}
	return nil
}

// rlock locks a node for reading it, with its inode loaded.
func (n *Node) rlock() error {
	for {
		n.mu.RLock()
		if n.loaded && (n.view == nil || !n.view.gone.Load()) {
			return nil
		}
		n.mu.RUnlock()
		if err := n.lock(); err != nil {
			return err
		}
		n.mu.Unlock()
	}
}

// loadLocked reads the inode if that was not done yet. Nodes enter the table
// without it, so that nobody can read an inode that another node of the same
// object changes.
func (n *Node) loadLocked() error {
	if n.view != nil && n.view.gone.Load() {
		return unix.ESTALE
	}
	if n.loaded {
		return nil
	}
	in, err := n.view.readInode(n.object)
	if err != nil {
		return err
	}
	if in.typ() == 0 {
		return failed("read the inode", n.object, damagedf("the value of an attribute is no file"))
	}
	n.setLocked(&in)
	return nil
}

// setLocked has the node, which is locked, know its inode.
func (n *Node) setLocked(in *inode) {
	if n.in == nil {
		n.in = new(inode)
	}
	*n.in = *in
	n.typ.Store(in.typ())
	if !n.loaded {
		n.loaded = true
		n.view.fs.nodes.loaded(n)
	}
}

// unload has a node forget its inode, unless somebody has the node locked or Forget
// must know that it has no name. The node is not in use by a request then, or that
// reads the inode again.
func (n *Node) unload() bool {
	if !n.mu.TryLock() {
		return false
	}
	defer n.mu.Unlock()
	if n.view == nil || !n.loaded || n.gone || n.in.nlink == 0 {
		return false
	}
	n.in, n.loaded = nil, false
	return true
}

// attr returns the attributes. The node is locked.
func (n *Node) attr() Attr {
	in := n.in
	a := Attr{
		Ino: n.id, Mode: in.mode, Nlink: in.nlink, UID: in.uid, GID: in.gid, Rdev: uint64(in.rdev), Size: in.size,
		Blksize: sizeUnit, Atime: in.atime, Mtime: in.mtime, Ctime: in.ctime, Btime: in.btime,
	}
	if n.view == nil || in.isDir() {
		return a
	}
	if in.isFile() {
		a.Blksize = uint32(n.view.size)
	}
	rounded := (in.size + sizeUnit - 1) / sizeUnit * sizeUnit
	a.Blocks = min(int64(in.mapped)*n.view.size, rounded) / 512
	return a
}

// sizeUnit is what the space of a file is told in multiples of.
const sizeUnit = 4096

const nodeShards = 64

// maxLoaded is how many inodes the nodes of a shard keep; all shards together about
// 30 MB of them.
var maxLoaded = 2048

// nodeTable finds nodes by their numbers.
//
// A shard is locked last, with nodes locked or not.
type nodeTable struct{ shards [nodeShards]nodeShard }

type nodeShard struct {
	mu    sync.Mutex
	nodes map[uint64]*Node
	inode int // how many of them, and of those that are about to be there, are loaded
}

// loaded tells that a node, which is locked, has its inode now. Where that makes too
// many, a quarter of them have theirs no more, whichever the map has first.
func (t *nodeTable) loaded(n *Node) {
	s := t.shard(n.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inode++
	if s.inode <= maxLoaded {
		return
	}
	for _, other := range s.nodes {
		if other.unload() {
			s.inode--
		}
		if s.inode <= maxLoaded*3/4 {
			return
		}
	}
}

func (t *nodeTable) init() {
	for i := range t.shards {
		t.shards[i].nodes = map[uint64]*Node{}
	}
}

func (t *nodeTable) shard(id uint64) *nodeShard { return &t.shards[id%nodeShards] }

func (t *nodeTable) get(id uint64) *Node {
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[id]
}

// grab returns the node of an object with one more reference. Its inode may not be
// loaded yet. Something must keep the object from being removed meanwhile.
func (t *nodeTable) grab(v *view, object uint64) *Node {
	return t.add(&Node{id: v.numberOf(object), object: object, view: v})
}

// add returns the node that has the number of n, which may become n itself, with
// one more reference.
func (t *nodeTable) add(n *Node) *Node {
	s := t.shard(n.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.nodes[n.id]; old != nil && old.view == n.view {
		n = old
	} else {
		// One that is there all the same is of a tree that was taken away.
		s.nodes[n.id] = n
		if n.view != nil {
			n.view.users.Add(1)
		}
	}
	n.refs++
	return n
}

func (t *nodeTable) ref(n *Node) {
	s := t.shard(n.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	n.refs++
}

// alone reports whether nobody else has a reference.
func (t *nodeTable) alone(n *Node) bool {
	s := t.shard(n.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return n.refs == 1
}

// drop takes references back and reports whether those were the last ones.
func (t *nodeTable) drop(n *Node, count uint64) bool {
	s := t.shard(n.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.refs <= 0 {
		return false
	}
	n.refs -= int64(min(count, uint64(n.refs)))
	if n.refs > 0 {
		return false
	}
	if s.nodes[n.id] == n {
		delete(s.nodes, n.id)
	}
	if n.loaded && n.view != nil {
		s.inode--
	}
	return true
}

func (t *nodeTable) count() (total int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		total += len(s.nodes)
		s.mu.Unlock()
	}
	return total
}

// Node returns the node that has the given id, nil if there is none.
func (fs *FS) Node(id uint64) *Node { return fs.nodes.get(id) }

// Again returns a node with one more reference, which Forget takes back.
func (fs *FS) Again(n *Node) *Node {
	if n != fs.root {
		fs.nodes.ref(n)
	}
	return n
}

// Forget takes back count references. With the last one the node is gone, and so is
// an object that has no name; it reports whether that was so.
func (fs *FS) Forget(n *Node, count uint64) bool {
	if n == fs.root || !fs.nodes.drop(n, count) {
		return false
	}
	v := n.view
	if v == nil {
		return true
	}
	if n.loaded && n.in.nlink == 0 && !n.gone && !v.readOnly.Load() && !v.gone.Load() {
		v.reclaim.add(n.object)
	}
	fs.leave(v)
	return true
}

// ForgetID takes back count references to the node with the given id, and returns
// the node if those were the last ones.
func (fs *FS) ForgetID(id, count uint64) *Node {
	n := fs.nodes.get(id)
	if n != nil && fs.Forget(n, count) {
		return n
	}
	return nil
}
