package dataset

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// Options are what a mount of a dataset can choose. The zero value is usable.
type Options struct {
	// ReadOnly refuses every change.
	ReadOnly bool
	// Atime lets reads move the access time, when it is not after the last change
	// or a day old (relatime of mount(8)); otherwise reads leave it.
	Atime bool
	// StrictAtime has every read move it, where Atime is set.
	StrictAtime bool
	// MaxInodes bounds the objects of the dataset, EDQUOT past it; 0 is no bound.
	MaxInodes uint64
	// Views leads to snapshots and nested subvolumes; nil: there is neither.
	Views Views
	// ShowHidden has listings of the root show .lamina, where the snapshots are.
	ShowHidden bool
	// ShareFrom is from how many bytes on CopyRange shares records rather than to copy
	// them; 0: a mebibyte. Sharing waits for the pool to make everything durable.
	ShareFrom int64
	// Now tells the time; nil: that of the system.
	Now func() time.Time
}

// FS is a mounted dataset. All methods may be called by several goroutines.
type FS struct {
	opt   atomic.Pointer[Options]
	main  *view
	root  *Node
	nodes nodeTable
	stats Stats

	// ctx ends what waits in the pool when the filesystem is closed.
	ctx    context.Context
	cancel context.CancelFunc

	viewMu sync.Mutex
	views  map[uint64]*view // other trees that are open, by number
}

// New mounts a tree. It owns the tree from then on, also when it fails, and closes
// it in Close. A tree that has no filesystem yet gets one, whose root belongs to
// uid and gid 0, unless it is read-only.
func New(tree Tree, o Options) (*FS, error) {
	fs := &FS{views: map[uint64]*view{}}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.ShareFrom <= 0 {
		o.ShareFrom = 1 << 20
	}
	fs.opt.Store(&o)
	fs.nodes.init()
	fs.ctx, fs.cancel = context.WithCancel(context.Background())
	if err := fs.start(tree); err != nil {
		fs.cancel()
		tree.Close()
		return nil, fmt.Errorf("dataset %s: %w", tree.Name(), err)
	}
	return fs, nil
}

func (fs *FS) start(tree Tree) error {
	super, err := tree.Item(superKey())
	if err != nil {
		return failed("read the superblock", 0, err)
	}
	if super == nil && !tree.ReadOnly() {
		if err := Format(fs.ctx, tree, Root{Mode: 0o755}); err != nil {
			return err
		}
	}
	fs.main = fs.newView(tree, 0)
	if err := fs.main.start(); err != nil {
		return err
	}
	fs.root = fs.nodes.grab(fs.main, rootObject)
	if _, err := fs.GetAttr(fs.root); err != nil {
		return err
	}
	if fs.root.Type() != unix.S_IFDIR {
		return damagedf("the root is no directory")
	}
	return nil
}

// A Root is who owns the root directory of a new filesystem, and its permission
// bits.
type Root struct {
	Mode     uint32
	UID, GID uint32
}

// Format makes an empty filesystem in a tree that has none: ENOTEMPTY tells that
// the tree has something. [New] does it by itself where nobody has done it.
func Format(ctx context.Context, tree Tree, root Root) error {
	super := superblock{bits: hashBits}
	if _, err := rand.Read(super.seed[:]); err != nil {
		return failed("make a filesystem", 0, err)
	}
	return formatWith(ctx, tree, root, super)
}

func formatWith(ctx context.Context, tree Tree, root Root, super superblock) error {
	old, err := tree.Item(superKey())
	if err == nil && (old != nil || tree.Objects() > 0) {
		err = unix.ENOTEMPTY
	}
	if err != nil {
		return failed("make a filesystem", 0, err)
	}
	now := timeOf(time.Now())
	in := inode{
		mode: unix.S_IFDIR | root.Mode&0o7777, uid: root.UID, gid: root.GID, nlink: 2, gen: 1, parent: rootObject,
		atime: now, mtime: now, ctime: now, btime: now,
	}
	var b blockpool.Batch
	b.Put(superKey(), super.pack())
	b.Put(inodeKey(rootObject), in.pack())
	if err := tree.Apply(ctx, &b); err != nil {
		return failed("make a filesystem", 0, err)
	}
	return nil
}

// Close gives all trees back, once what was removed has been given back to the pool.
// What has no name but is still in use goes at the next mount. No other call may be
// under way.
func (fs *FS) Close() error {
	fs.Settle()
	fs.viewMu.Lock()
	defer fs.viewMu.Unlock()
	for _, v := range fs.views {
		v.reclaim.stop()
	}
	fs.main.reclaim.stop()
	fs.cancel()
	err := fs.main.tree.Close()
	for _, v := range fs.views {
		if e := v.tree.Close(); err == nil {
			err = e
		}
	}
	return err
}

// Root returns the root directory. It is never forgotten.
func (fs *FS) Root() *Node { return fs.root }

// ReadOnly reports whether nothing can be changed.
func (fs *FS) ReadOnly() bool { return fs.main.readOnly.Load() }

// Options returns the options in force.
func (fs *FS) Options() Options { return *fs.opt.Load() }

// SetOptions has a mounted dataset do from now on what ReadOnly, Atime, StrictAtime,
// MaxInodes and ShowHidden say; the other options stay. What the trees say of
// themselves is asked anew: nested ones may have become writable, or are not any more.
// A change that is under way comes to its end.
func (fs *FS) SetOptions(o Options) error {
	fs.viewMu.Lock()
	defer fs.viewMu.Unlock()
	opt := *fs.opt.Load()
	opt.ReadOnly, opt.Atime, opt.StrictAtime, opt.MaxInodes, opt.ShowHidden = o.ReadOnly, o.Atime, o.StrictAtime, o.MaxInodes, o.ShowHidden
	fs.opt.Store(&opt)
	failed := fs.main.limit()
	for _, v := range fs.views {
		failed = errors.Join(failed, v.limit())
	}
	return failed
}

// Stats returns the live counters.
func (fs *FS) Stats() *Stats { return &fs.stats }

// Nodes returns the number of live nodes.
func (fs *FS) Nodes() int { return fs.nodes.count() }

// Settle returns when all that was removed and is no longer in use has been given
// back to the pool, as far as that is possible.
func (fs *FS) Settle() {
	fs.main.reclaim.settle()
	fs.viewMu.Lock()
	defer fs.viewMu.Unlock()
	for _, v := range fs.views {
		v.reclaim.settle()
	}
}

func (fs *FS) now() Time { return timeOf(fs.opt.Load().Now()) }

// inodeBytes is how much free space counts for one object that could be made.
const inodeBytes = 512

// Statfs returns what the dataset has and may have: its limits where it has some,
// else those of what it is in.
func (fs *FS) Statfs() (Statfs, error) {
	v := fs.main
	space, objects := v.tree.Space(), uint64(max(0, v.objects.Load()))
	available := uint64(max(0, space.Available))
	const unit = 4096
	st := Statfs{
		Bsize: uint32(v.size), Frsize: unit, NameLen: NameMax,
		Blocks: (uint64(max(0, space.Referenced)) + available) / unit, Bfree: available / unit, Bavail: available / unit,
	}
	free := blockpool.MaxObject - min(objects, blockpool.MaxObject)
	free = min(free, available/inodeBytes)
	if limit := fs.opt.Load().MaxInodes; limit > 0 {
		free = min(free, limit-min(objects, limit))
	}
	st.Files, st.Ffree = objects+free, free
	return st, nil
}
