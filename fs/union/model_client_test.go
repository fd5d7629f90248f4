package union_test

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/union"
)

// knode is an inode of the kernel: what it was given an id for.
type knode struct {
	id      uint64
	lookups uint64 // references that the union has given
	opens   int
	names   []*kdentry
	file    *modelFile // that it must be
	ino     uint64     // as it was shown, where that is not for good
}

// kdentry is a name in the kernel's cache.
type kdentry struct {
	name   string
	parent *kdentry
	node   *knode
	opens  int // by this name
	kids   map[string]*kdentry
}

// A kernel is who uses a union: like Linux it remembers names and inodes, holds
// a reference for each reply that named one, and gives references back when it
// forgets. A FORGET may arrive late: the queue holds those that are under way.
type kernel struct {
	fs    *union.FS
	nodes map[uint64]*knode
	root  *kdentry
	queue []forgetting
	fail  func(format string, args ...any)
}

type forgetting struct{ id, count uint64 }

func newKernel(fs *union.FS, root *modelFile, fail func(string, ...any)) *kernel {
	k := &kernel{fs: fs, nodes: map[uint64]*knode{}, fail: fail}
	n := &knode{id: fs.Root().ID(), opens: 1, file: root}
	k.nodes[n.id] = n
	root.node = n
	k.root = &kdentry{node: n, kids: map[string]*kdentry{}}
	n.names = []*kdentry{k.root}
	return k
}

// use returns the node of an id as a request finds it.
func (k *kernel) use(n *knode) *union.Node {
	un := k.fs.Node(n.id)
	if un == nil {
		k.fail("node %d, which the kernel has %d references to, is gone", n.id, n.lookups)
	}
	return un
}

// known takes in a reply that names the node of a file and gives a reference. The
// same file must be the same node, unless nobody can get at that any more.
func (k *kernel) known(id uint64, f *modelFile) *knode {
	n := k.nodes[id]
	switch {
	case n == nil && f.node != nil && (len(f.node.names) > 0 || f.node.opens > 0):
		k.fail("the file of node %d is known as node %d as well", id, f.node.id)
	case n != nil && n.file != f:
		k.fail("node %d stands for two files", id)
	case n == nil:
		n = &knode{id: id, file: f}
		k.nodes[id] = n
		f.node = n
	}
	n.lookups++
	return n
}

// enter notes the name of a node.
func (k *kernel) enter(d *kdentry, name string, n *knode) *kdentry {
	e := &kdentry{name: name, parent: d, node: n}
	if n.file.isDir() {
		e.kids = map[string]*kdentry{}
	}
	d.kids[name] = e
	n.names = append(n.names, e)
	return e
}

// lookup finds a name below d, in the cache unless fresh.
func (k *kernel) lookup(d *kdentry, name string, want *modelFile, fresh bool) (*kdentry, error) {
	e := d.kids[name]
	if e != nil && !fresh {
		return e, nil
	}
	id, a, err := k.fs.LookupID(k.use(d.node), name)
	if err != nil || want == nil {
		if err == nil {
			k.fs.ForgetID(id, 1)
		}
		return nil, err
	}
	n := k.known(id, want)
	if e != nil && e.node != n {
		k.fail("looked up again, %q is node %d, it was %d", name, id, e.node.id)
	}
	if b, err := k.fs.GetAttr(k.use(n)); err != nil || a != b {
		k.fail("lookup of %q tells %+v, getattr %+v, %v", name, a, b, err)
	}
	if e == nil {
		e = k.enter(d, name, n)
	}
	return e, nil
}

// drop forgets a name, and all below it; it must not be in use. What has no name
// left is forgotten at once if it is gone or keep is false.
func (k *kernel) drop(e *kdentry, keep bool) {
	for _, c := range e.sorted() {
		k.drop(c, keep)
	}
	if e.parent != nil {
		delete(e.parent.kids, e.name)
	}
	n := e.node
	n.names = slices.DeleteFunc(n.names, func(o *kdentry) bool { return o == e })
	if !keep || n.file.names == 0 {
		k.evict(n)
	}
}

// evict forgets an inode unless it is in use. The union hears of it later.
func (k *kernel) evict(n *knode) {
	if len(n.names) > 0 || n.opens > 0 {
		return
	}
	delete(k.nodes, n.id)
	if n.file.node == n {
		n.file.node = nil
	}
	k.queue = append(k.queue, forgetting{n.id, n.lookups})
}

// deliver sends the FORGETs that are under way.
func (k *kernel) deliver() {
	for _, f := range k.queue {
		k.fs.ForgetID(f.id, f.count)
	}
	k.queue = k.queue[:0]
}

// pinned reports whether a name must be kept: it is in use, or one below it is.
func (e *kdentry) pinned() bool {
	if e.opens > 0 {
		return true
	}
	for _, c := range e.kids {
		if c.pinned() {
			return true
		}
	}
	return false
}

// shrink forgets all below e that is not in use, as a kernel short of memory
// does. Inodes may stay for a while without a name.
func (k *kernel) shrink(e *kdentry, keep bool) {
	for _, c := range e.sorted() {
		if c.pinned() {
			k.shrink(c, keep)
		} else {
			k.drop(c, keep && c.node.id%2 == 0)
		}
	}
	if keep {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(k.nodes)) {
		k.evict(k.nodes[id])
	}
}

// sorted returns what is below e, in an order that does not change from run to
// run.
func (e *kdentry) sorted() []*kdentry {
	var kids []*kdentry
	for _, name := range slices.Sorted(maps.Keys(e.kids)) {
		kids = append(kids, e.kids[name])
	}
	return kids
}

// moved follows a rename.
func (k *kernel) moved(od *kdentry, oname string, nd *kdentry, nname string, flags uint) {
	src, dst := od.kids[oname], nd.kids[nname]
	if src == dst {
		return
	}
	exchange := flags&unix.RENAME_EXCHANGE != 0
	if dst != nil && !exchange {
		k.drop(dst, false)
	}
	delete(od.kids, oname)
	delete(nd.kids, nname)
	if src != nil {
		src.parent, src.name = nd, nname
		nd.kids[nname] = src
	}
	if dst != nil && exchange {
		dst.parent, dst.name = od, oname
		od.kids[oname] = dst
	}
}
