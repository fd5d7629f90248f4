package union

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/vfs"
	"github.com/laminafs/lamina/whiteout"
)

// A Branch is one layer of the stack and the name it has in messages.
type Branch struct {
	Name string
	Root layer.Dir
}

// Options are the rules of a union that its user can choose. The zero value is
// usable; New fills in what it leaves open.
type Options struct {
	// Prefix is the namespace of the marks that are written. Marks in both
	// namespaces are read. Empty: Trusted where it can be written, else User.
	Prefix whiteout.Prefix
	// Redirect lets directories that have lower parts be renamed; without
	// it such a rename fails with EXDEV (redirect_dir=on).
	Redirect bool
	// RedirectAuto sets Redirect where the kernel follows redirects, which it
	// does with marks in the Trusted namespace.
	RedirectAuto bool
	// NoFollow ignores redirects (redirect_dir=nofollow).
	NoFollow bool
	// Metacopy copies up attributes without data (metacopy=on).
	Metacopy bool
	// Index keeps hard links of lower files together over copy-up (index=on).
	Index bool
	// Volatile leaves out every sync; a crash may damage the upper.
	Volatile bool
	// NoXattrs keeps users from reading and writing xattrs through the union.
	NoXattrs bool
	// Ino32 shows inode numbers that fit into 32 bits, for programs that know
	// no larger ones. Two files may then show the same number.
	Ino32 bool
	// StaticNlink shows 1 as the link count of everything.
	StaticNlink bool
	// Whiteouts says how deletions are written.
	Whiteouts WhiteoutStyle
	// Self is who makes objects by making them: owner and group that need
	// no chown.
	Self Caller
	// RestorePriv says that writing clears suid and sgid bits because whoever
	// runs the union lacks CAP_FSETID outside of its user namespace.
	RestorePriv bool
	// Size and Inodes bound what the upper may hold, in bytes and objects; 0
	// is no bound.
	Size   int64
	Inodes int64
	// MaxHandles bounds the open descriptors, 0: 4,096.
	MaxHandles int
}

// WhiteoutStyle is a way of writing that a name is deleted.
type WhiteoutStyle int

const (
	// WhiteoutAuto takes devices where mknod(2) makes them, else xattrs.
	WhiteoutAuto WhiteoutStyle = iota
	// WhiteoutDevice is a character device 0:0 (kernel overlayfs).
	WhiteoutDevice
	// WhiteoutXattr is an empty file with a whiteout xattr in a directory
	// that is marked opaque=x (kernel overlayfs since 6.7).
	WhiteoutXattr
	// WhiteoutAufs is an empty file .wh.NAME (aufs).
	WhiteoutAufs
)

// Config describes a union.
type Config struct {
	// Lowers are the read-only layers, the top one first.
	Lowers []Branch
	// DataOnly layers hold nothing but the data of metacopy files; their
	// names are not part of the union.
	DataOnly []Branch
	// Upper takes the changes and Work is a directory on the same mount for
	// staging them. Without an upper the union is read-only.
	Upper, Work *Branch
	Options
}

// branch is a layer in use.
type branch struct {
	name  string
	root  *realDir
	index int  // place in the stack, the upper being 0; of data-only layers -1
	upper bool // is the upper
	aufs  bool // .wh. names are marks here
}

// The words that a union is asked in are those of all filesystems that are served.
type (
	// Attr is the attributes of a node: those of the object that provides it,
	// with the inode number and the link count that the union shows.
	Attr   = vfs.Attr
	Caller = vfs.Caller
	Change = vfs.Change
	Listed = vfs.Listed
)

var _ vfs.Filesystem[*Node] = (*FS)(nil)

// FS is a union of layers. All methods may be called by several goroutines.
type FS struct {
	opt         Options
	branchMu    sync.RWMutex // guards lowers against live changes
	upper       *branch      // nil: read-only
	lowers      []*branch
	retired     []*branch // taken out; closed when not in use
	data        []*branch // data-only layers
	whiteoutMu  sync.Mutex
	whiteoutObj layer.Object // one whiteout, linked for the next ones
	work        *workDir
	index       *linkIndex
	root        *Node
	self        Caller
	nodes       nodeTable
	virtual     virtualTable
	handles     *handleCache
	inos        inoSpace
	times       [64]sync.Mutex // see timesOf
	limits      limiter
	// noClone remembers that the filesystem of the upper cannot share data.
	noClone atomic.Bool

	rename sync.Mutex
	paths  sync.RWMutex

	// hardlinks finds the node of an object with several names.
	hardlinkMu sync.Mutex
	hardlinks  map[inoKey]*Node

	stats Stats

	// relisted is told of directories whose listing shows other numbers than
	// before.
	relisted func(dir *Node)
}

// OnRelisted sets what is called, while the directory is locked, when inode
// numbers in the listing of a directory have changed, so that caches of the
// listing can be dropped. It must not call back into the union.
func (fs *FS) OnRelisted(f func(dir *Node)) { fs.relisted = f }

// Stats counts what a union has done. All fields only grow.
type Stats struct {
	Lookups, CopyUps, CopyUpBytes, MetaCopyUps, Whiteouts, Listings, Redirects atomic.Uint64
}

// Stats returns the live counters.
func (fs *FS) Stats() *Stats { return &fs.stats }

// New builds a union. It owns the roots of all branches from then on, also
// when it fails, and closes them in Close.
func New(cfg Config) (*FS, error) {
	fs := &FS{opt: cfg.Options, self: cfg.Self, hardlinks: map[inoKey]*Node{}}
	fs.inos.fold = cfg.Ino32
	if fs.opt.MaxHandles <= 0 {
		fs.opt.MaxHandles = 4096
	}
	fs.handles = newHandleCache(fs.opt.MaxHandles)
	for i, b := range cfg.Lowers {
		fs.lowers = append(fs.lowers, fs.newBranch(b, i+1))
	}
	for _, b := range cfg.DataOnly {
		fs.data = append(fs.data, fs.newBranch(b, -1))
	}
	if cfg.Upper != nil {
		fs.upper = fs.newBranch(*cfg.Upper, 0)
		fs.upper.upper = true
	}
	if err := fs.start(cfg); err != nil {
		if cfg.Work != nil && fs.work == nil {
			cfg.Work.Root.Close()
		}
		fs.Close()
		return nil, err
	}
	return fs, nil
}

func (fs *FS) start(cfg Config) error {
	if len(fs.lowers) == 0 && fs.upper == nil {
		return errors.New("union: no layers: name at least one lower directory")
	}
	if fs.upper != nil {
		if cfg.Work == nil {
			return fmt.Errorf("union: upper %s: no work directory: name an empty one on the same filesystem", fs.upper.name)
		}
		if err := fs.openWork(*cfg.Work); err != nil {
			return err
		}
		if err := fs.chooseMarks(); err != nil {
			return err
		}
		if fs.opt.RedirectAuto {
			fs.opt.Redirect = fs.opt.Prefix == whiteout.Trusted && fs.opt.Whiteouts != WhiteoutAufs
		}
		counted := []layer.Dir{cfg.Upper.Root}
		if fs.index != nil {
			counted = append(counted, fs.index.dir)
		}
		if err := fs.limits.start(fs.opt.Size, fs.opt.Inodes, counted...); err != nil {
			return err
		}
	}
	for _, b := range fs.allBranches() {
		if err := fs.inos.addBranch(b); err != nil {
			return err
		}
		if !b.upper {
			b.aufs = true
		}
	}
	return fs.openRoot()
}

func (fs *FS) allBranches() []*branch {
	var all []*branch
	if fs.upper != nil {
		all = append(all, fs.upper)
	}
	all = append(all, fs.lowers...)
	return append(all, fs.data...)
}

func (fs *FS) newBranch(b Branch, index int) *branch {
	br := &branch{name: b.Name, index: index}
	br.root = &realDir{br: br}
	// The root is held as long as the branch is: everything below it is
	// opened anew from there.
	h := &handle[layer.Dir]{obj: b.Root}
	h.refs.Store(1)
	br.root.pin.Store(h)
	return br
}

// Close gives all descriptors back. No other call may be under way.
func (fs *FS) Close() error {
	fs.eachNode((*Node).closeHandles)
	for _, b := range append(fs.allBranches(), fs.retired...) {
		if h := b.root.pin.Load(); h != nil {
			h.obj.Close()
		}
	}
	fs.handles.close()
	if fs.whiteoutObj != nil {
		fs.whiteoutObj.Close()
	}
	if fs.index != nil {
		fs.index.close()
	}
	if fs.work != nil {
		return fs.work.close()
	}
	return nil
}

// ReadOnly reports whether the union has no upper.
func (fs *FS) ReadOnly() bool { return fs.upper == nil }

// Root returns the root directory. It is never forgotten.
func (fs *FS) Root() *Node { return fs.root }

// Prefix returns the namespace of the marks that are written.
func (fs *FS) Prefix() whiteout.Prefix { return fs.opt.Prefix }

// Statfs returns the numbers of the filesystem that takes the changes, within
// the limits of the union; without an upper those of the top lower layer.
func (fs *FS) Statfs() (layer.Statfs, error) {
	b := fs.upper
	if b == nil {
		fs.branchMu.RLock()
		b = fs.lowers[0]
		fs.branchMu.RUnlock()
	}
	h, err := b.root.open(fs)
	if err != nil {
		return layer.Statfs{}, err
	}
	defer h.release()
	st, err := h.obj.Statfs()
	if err == nil {
		fs.limits.apply(&st)
	}
	return st, err
}

func (fs *FS) openRoot() error {
	d := &dirNode{}
	if fs.upper != nil {
		d.upper.Store(fs.upper.root)
	}
	var lowers []*realDir
	for _, b := range fs.lowers {
		lowers = append(lowers, b.root)
	}
	d.setLowers(lowers)
	n := &Node{typ: unix.S_IFDIR, dir: d}
	if err := d.readRootMarks(fs); err != nil {
		return err
	}
	st, err := fs.rootStat(d)
	if err != nil {
		return err
	}
	n.ino.Store(fs.inos.compose(st.Dev, st.Ino))
	n.refs.Store(1)
	fs.nodes.add(n)
	fs.virtual.addDir(n)
	fs.root = n
	return nil
}

// rootStat returns the attributes whose inode number the root shows: those of
// the topmost lower layer, so that it is the same with and without an upper.
func (fs *FS) rootStat(d *dirNode) (layer.Stat, error) {
	rd := d.upper.Load()
	if lowers := d.lowers(); len(lowers) > 0 {
		rd = lowers[0]
	}
	h, err := rd.open(fs)
	if err != nil {
		return layer.Stat{}, err
	}
	defer h.release()
	return h.obj.Stat()
}

// errnoOf returns the errno inside of err, EIO where there is none.
func errnoOf(err error) syscall.Errno {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}
