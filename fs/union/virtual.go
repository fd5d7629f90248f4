package union

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// A walk through a tree makes the kernel remember every file, and ask nothing
// more of most of them. Such a file needs no Node: its directory's entry counts
// the references, and its id says which entry that is. The first request that
// names the file makes the Node, which keeps the id.
//
//	id:  1 | directory's serial (31 bits) | position of the entry (32 bits)
//
// Only files of lower layers with one name are served like that: nothing else
// leads to them, and nothing of them changes.
const (
	virtualBit   = 1 << 63
	virtualShift = 32
)

func virtualID(serial uint32, seq uint32) uint64 {
	return virtualBit | uint64(serial)<<virtualShift | uint64(seq)
}

// virtualTable finds what ids of files without a node of their own lead to.
type virtualTable struct {
	mu     sync.RWMutex
	serial uint32
	dirs   map[uint32]*Node // live directories
	nodes  map[uint64]*Node // nodes that were made later, by their id
}

// addDir numbers a directory. Serials are not used again: a late reference to
// an entry of a directory that is gone must not hit another one's.
func (v *virtualTable) addDir(n *Node) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.serial == 1<<31-1 {
		return // this directory's files get nodes at once
	}
	v.serial++
	if v.dirs == nil {
		v.dirs = map[uint32]*Node{}
	}
	n.dir.serial = v.serial
	v.dirs[v.serial] = n
}

func (v *virtualTable) dropDir(n *Node) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.dirs, n.dir.serial)
}

func (v *virtualTable) addNode(n *Node) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.nodes == nil {
		v.nodes = map[uint64]*Node{}
	}
	v.nodes[n.id] = n
}

// dropNode reports whether n was still there.
func (v *virtualTable) dropNode(n *Node) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.nodes[n.id] != n {
		return false
	}
	delete(v.nodes, n.id)
	return true
}

// find returns the node of an id, or else the directory of its entry; both nil
// if the id leads nowhere.
func (v *virtualTable) find(id uint64) (n, dir *Node) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if n = v.nodes[id]; n != nil {
		return n, nil
	}
	return nil, v.dirs[uint32(id&^virtualBit>>virtualShift)]
}

// LookupID is Lookup for who needs no node: it returns the node's id, with one
// more reference to give back through [FS.ForgetID], and its attributes.
func (fs *FS) LookupID(p *Node, name string) (uint64, Attr, error) {
	fs.stats.Lookups.Add(1)
	if p.dir == nil {
		return 0, Attr{}, unix.ENOTDIR
	}
	if err := layer.CheckName(name); err != nil {
		return 0, Attr{}, err
	}
	n, id, st, err := fs.lookupEntry(p, name, p.dir.serial != 0)
	if err != nil {
		return 0, Attr{}, err
	}
	if n == nil {
		a := *st
		a.Ino = fs.inos.compose(st.Dev, st.Ino)
		a.MountRoot = false
		if fs.opt.StaticNlink {
			a.Nlink = 1
		}
		return id, a, nil
	}
	if st != nil {
		return n.id, fs.shown(n, *st), nil
	}
	a, err := fs.GetAttr(n)
	if err != nil {
		fs.Forget(n, 1)
	}
	return n.id, a, err
}

// mayBeVirtual tells whether a found object can do without a node.
func (f *found) mayBeVirtual(name string) bool {
	return !f.upper && !f.isDir() && f.st.Nlink == 1 && f.data.dir == nil && f.top.name == name
}

// refEntry counts a reference to a file without a node and returns its id. The
// lock of p is held for writing.
func (fs *FS) refEntry(p *Node, name string, f *found) uint64 {
	t := &p.dir.table
	e := t.get(name)
	if e == nil {
		e = t.put(entry{name: name, ino: fs.inoOf(f), typ: uint16(f.st.Type()), part: fs.partOf(p.dir, f.top.dir)})
	}
	e.refs++
	return virtualID(p.dir.serial, e.seq)
}

// adopt makes n the node of an entry. If references were given out before there
// was a node, n takes them over with their id. The lock of p is held for
// writing.
func (fs *FS) adopt(p, n *Node, name string, part int16) {
	t := &p.dir.table
	old := t.get(name)
	if old != nil && old.refs > 0 && n.id == 0 {
		n.id = virtualID(p.dir.serial, old.seq)
		n.refs.Add(int64(old.refs))
		fs.virtual.addNode(n)
	} else if n.id == 0 {
		fs.nodes.add(n)
	}
	t.put(entry{name: name, node: n, typ: uint16(n.typ), part: part})
}

// Node returns the node that has the given id, nil if there is none.
func (fs *FS) Node(id uint64) *Node {
	if id&virtualBit == 0 {
		return fs.nodes.get(id)
	}
	n, p := fs.virtual.find(id)
	if n != nil || p == nil {
		return n
	}
	d := p.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.table.at(uint32(id))
	if e == nil {
		// Made or moved while the lock was free.
		n, _ = fs.virtual.find(id)
		return n
	}
	if e.node != nil {
		return e.node
	}
	f, err := fs.resolve(p, e.name, int(e.part))
	if err != nil || f == nil || !f.mayBeVirtual(e.name) {
		return nil // the layers were changed by someone else
	}
	n = fs.newNode(p, e.name, f)
	n.refs.Store(0)
	fs.adopt(p, n, e.name, e.part)
	return n
}

// ForgetID takes back count references to the node with the given id, and
// returns the node if those were the last ones of a node.
func (fs *FS) ForgetID(id, count uint64) *Node {
	var n, p *Node
	if id&virtualBit == 0 {
		n = fs.nodes.get(id)
	} else {
		n, p = fs.virtual.find(id)
	}
	if n == nil && p != nil {
		n = fs.forgetEntry(p, id, count)
	}
	if n != nil && fs.Forget(n, count) {
		return n
	}
	return nil
}

// forgetEntry takes back references to a file without a node, or returns the
// node that it has got meanwhile.
func (fs *FS) forgetEntry(p *Node, id, count uint64) *Node {
	d := p.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.table.at(uint32(id))
	if e == nil || e.node != nil {
		n, _ := fs.virtual.find(id)
		return n
	}
	e.refs -= uint32(min(count, uint64(e.refs)))
	if e.refs == 0 && !d.table.complete {
		d.table.remove(e.name)
	}
	return nil
}
