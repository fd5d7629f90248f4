package union

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// realDir is a directory of one layer. It knows the way back to the root of
// the layer, so its descriptor can be closed and opened anew.
type realDir struct {
	br *branch
	// parent and name lead here from the root. In a lower layer they never
	// change; in the upper they are guarded by FS.paths.
	parent *realDir
	name   string

	slot slot[layer.Dir]
	// pin is held for good: of a root, and of an upper directory that was
	// removed while in use.
	pin atomic.Pointer[handle[layer.Dir]]
	// xattrWhiteouts tells that the directory is marked opaque=x: empty files
	// in it may be whiteouts.
	xattrWhiteouts bool
	// opaque tells that the directory, one of the upper, is marked opaque.
	opaque bool
	// dev is the device of the directory, 0 while unknown.
	dev atomic.Uint64
	// noAufs tells that the directory was read and holds no .wh. name.
	noAufs atomic.Bool
}

// open returns the directory's handle, held.
func (d *realDir) open(fs *FS) (*handle[layer.Dir], error) {
	if h := d.pin.Load(); h != nil && h.hold() {
		return h, nil
	}
	if h := d.slot.acquire(); h != nil {
		return h, nil
	}
	if d.br.upper {
		fs.paths.RLock()
		defer fs.paths.RUnlock()
	}
	return d.openPath(fs)
}

// openPath opens the directory from its parent; FS.paths is held for reading
// if it is in the upper.
func (d *realDir) openPath(fs *FS) (*handle[layer.Dir], error) {
	if h := d.pin.Load(); h != nil && h.hold() {
		return h, nil
	}
	if h := d.slot.acquire(); h != nil {
		return h, nil
	}
	if d.parent == nil {
		return nil, unix.ESTALE // of a layer that was taken out
	}
	up, err := d.parent.openPath(fs)
	if err != nil {
		return nil, err
	}
	defer up.release()
	obj, err := retryOpen(fs, func() (layer.Dir, error) { return up.obj.OpenDir(d.name) })
	if err != nil {
		return nil, err
	}
	return d.slot.put(fs.handles, obj), nil
}

// keep holds the directory's handle for good, before its name goes away.
func (d *realDir) keep(fs *FS) error {
	h, err := d.open(fs)
	if err != nil {
		return err
	}
	if !d.pin.CompareAndSwap(nil, h) {
		h.release()
	}
	return nil
}

// close lets go of the handle.
func (d *realDir) close() {
	if d.parent == nil {
		return // a root is closed with its branch
	}
	if h := d.pin.Swap(nil); h != nil {
		h.release()
	}
	d.slot.drop()
}

// dirNode is what a directory has beyond other nodes.
type dirNode struct {
	mu sync.RWMutex
	// upper is the part in the upper. Set once, under mu.
	upper atomic.Pointer[realDir]
	// below holds the parts in lower layers, see lowers. Only a change of the
	// live branches replaces them, under mu.
	below atomic.Pointer[[]*realDir]
	table dirTable
	// serial numbers the directory among all there ever were, see virtual.go.
	serial uint32
	// gen counts the changes of the table, and the nodes that leave it, for who
	// resolves without holding mu for writing.
	gen uint64
	// dead tells that the directory was removed: nothing can be made in it.
	dead bool
	// absent is a name that a lookup has just not found, while gen is
	// absentGen: what is made next is mostly that.
	absent    string
	absentGen uint64
	// redirect is what the upper part is marked with.
	redirect atomic.Pointer[whiteout.Redirect]
	// misses counts answers that took system calls in every part.
	misses int
	// impure tells that the upper part is marked as holding copied-up or
	// moved objects.
	impure bool
	// acl caches whether the directory has a default ACL.
	acl defaultACLState
}

func (d *dirNode) closeHandles() {
	if up := d.upper.Load(); up != nil {
		up.close()
	}
	for _, l := range d.lowers() {
		l.close()
	}
}

// lowers returns the parts in lower layers, topmost first. Who does not hold mu
// may see others the next time.
func (d *dirNode) lowers() []*realDir {
	if p := d.below.Load(); p != nil {
		return *p
	}
	return nil
}

func (d *dirNode) setLowers(parts []*realDir) {
	if len(parts) == 0 {
		d.below.Store(nil)
		return
	}
	d.below.Store(&parts)
}

// merged reports whether the directory shows names of a lower layer.
func (d *dirNode) merged() bool { return d.below.Load() != nil }

// parts calls f for the parts, topmost first, until it returns false or an
// error.
func (d *dirNode) parts(f func(*realDir) (bool, error)) error {
	if up := d.upper.Load(); up != nil {
		if more, err := f(up); err != nil || !more {
			return err
		}
	}
	for _, l := range d.lowers() {
		if more, err := f(l); err != nil || !more {
			return err
		}
	}
	return nil
}

// readRootMarks reads the marks of the layers' roots that count: opaque=x tells
// that a root may hold xattr whiteouts, impure that entries of the upper one come
// from elsewhere. That a root is opaque for the layers below
// it means nothing, as in the kernel.
func (d *dirNode) readRootMarks(fs *FS) error {
	for _, b := range fs.allBranches() {
		m, err := fs.readBranchMarks(b)
		if err != nil {
			return fmt.Errorf("union: layer %s: the marks of its root: %w", b.name, err)
		}
		d.impure = d.impure || b.upper && m.impure
	}
	return nil
}

// readBranchMarks reads the marks of one layer's root. Without them deleted
// files could be back.
func (fs *FS) readBranchMarks(b *branch) (marks, error) {
	h, err := b.root.open(fs)
	if err != nil {
		return marks{}, err
	}
	defer h.release()
	m, err := fs.readMarks(objectXattrs{h.obj})
	b.root.xattrWhiteouts = m.xattrWhiteouts
	return m, err
}
