package serve

import (
	"errors"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A node is a directory or volume that the kernel has been told of.
type node struct {
	id  uint64 // in requests
	key nodeKey

	lookups uint64 // how often the kernel has been told; guarded by table.mu

	mu     sync.Mutex
	name   string // as of the last lookup
	opened int    // descriptors
	// block is the open volume, nil while opened is 0. It is set and taken away
	// under mu.
	block atomic.Pointer[openBlock]
	// written is when data was last written through this mount, in nanoseconds of
	// Unix time; 0: never.
	written atomic.Int64

	// cached tells that the kernel may hold data in its page cache.
	cached atomic.Bool
	// changes is [WatchedBlock.Changes] when the volume was closed, to which that
	// data belongs; guarded by mu.
	changes uint64
}

// openBlock is a volume with what is found out once about it.
type openBlock struct {
	Block
	allocator Allocator // nil: everything counts as data
	readOnly  bool
	watched   WatchedBlock // nil: nothing is to be cached
}

func newOpenBlock(block Block, direct bool) *openBlock {
	b := &openBlock{Block: block}
	b.allocator, _ = block.(Allocator)
	if r, ok := block.(ReadOnlyBlock); ok {
		b.readOnly = r.ReadOnly()
	}
	if !direct {
		b.watched, _ = block.(WatchedBlock)
	}
	return b
}

// nodeKey is what makes a node the same one: a volume by its ID, a directory by
// its path.
type nodeKey struct {
	volume uint64
	dir    string
	isDir  bool
}

func (n *node) isDir() bool { return n.key.isDir }

func (n *node) currentName() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.name
}

func (n *node) touch() { n.written.Store(time.Now().UnixNano()) }

// table holds the nodes that the kernel knows.
type table struct {
	mu    sync.RWMutex
	byID  map[uint64]*node
	byKey map[nodeKey]*node
	last  uint64 // id given out last
}

func newTable() *table {
	root := &node{id: fuse.FUSE_ROOT_ID, key: nodeKey{isDir: true}, lookups: 1}
	return &table{
		byID:  map[uint64]*node{root.id: root},
		byKey: map[nodeKey]*node{root.key: root},
		last:  root.id,
	}
}

func (t *table) get(id uint64) *node {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byID[id]
}

// lookup returns the node of a key, a new one if need be, and counts that the
// kernel is told of it.
func (t *table) lookup(key nodeKey, name string) *node {
	t.mu.Lock()
	n := t.byKey[key]
	if n == nil {
		t.last++
		n = &node{id: t.last, key: key}
		t.byID[n.id], t.byKey[key] = n, n
	}
	n.lookups++
	t.mu.Unlock()
	n.mu.Lock()
	n.name = name
	n.mu.Unlock()
	return n
}

func (t *table) forget(id, count uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil || id == fuse.FUSE_ROOT_ID {
		return
	}
	if n.lookups -= min(count, n.lookups); n.lookups == 0 {
		delete(t.byID, id)
		delete(t.byKey, n.key)
	}
}

func (t *table) all() []*node {
	t.mu.RLock()
	defer t.mu.RUnlock()
	nodes := make([]*node, 0, len(t.byID))
	for _, n := range t.byID {
		nodes = append(nodes, n)
	}
	return nodes
}

// open adds a descriptor. The first one opens the volume by open, and has drop
// forget what the kernel holds of it if it has changed since it was closed.
func (n *node) open(open func() (*openBlock, error), drop func(off, n int64)) (*openBlock, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.block.Load()
	if b == nil {
		var err error
		if b, err = open(); err != nil {
			return nil, err
		}
		if b.watched != nil {
			b.watched.Watch(drop)
			if b.watched.Changes() != n.changes {
				drop(0, math.MaxInt64) // nothing is open, so no request waits for it
				n.cached.Store(false)
			}
		}
		n.block.Store(b)
	}
	n.opened++
	return b, nil
}

// release takes a descriptor away. The last one closes the volume.
func (n *node) release() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.opened == 0 {
		return errors.New("a file was closed that is not open")
	}
	if n.opened--; n.opened > 0 {
		return nil
	}
	return n.closeLocked()
}

// abandon closes the volume whoever had it open: the mount is gone.
func (n *node) abandon() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opened = 0
	return n.closeLocked()
}

func (n *node) closeLocked() error {
	b := n.block.Swap(nil)
	if b == nil {
		return nil
	}
	if b.watched != nil {
		n.changes = b.watched.Changes()
	}
	if c, ok := b.Block.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
