package memlayer

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

// Options say what a filesystem offers and who calls it. The zero value is
// ext4 without limits, called by root.
type Options struct {
	Dev  uint64   // device number of all files; one of its own if zero
	UUID [16]byte // what UUID returns

	// UID and GID are the caller: they own the root and what is made below it.
	UID, GID uint32
	// Unprivileged takes all capabilities from the caller. Permission bits
	// and ACLs then count, only owners change attributes, devices other than
	// whiteouts cannot be made, and trusted xattrs do not exist.
	Unprivileged bool

	// Blocks and Inodes limit the space, in units of 4 KiB, and the number of
	// files, the root included. Zero is no limit. Past them is ENOSPC, or
	// EDQUOT if Quota is set.
	Blocks, Inodes int64
	Quota          bool
	// MaxLinks is the highest link count of a file, 65,000 (EXT4_LINK_MAX) if zero.
	MaxLinks uint32

	// Reflink makes CloneFrom and CloneRangeFrom work, as on btrfs and xfs.
	Reflink bool

	NoWhiteoutDevice bool // mknod of 0:0 is EPERM, as in old or confined user namespaces
	NoTrusted        bool // trusted xattrs are EPERM to set and absent, as without CAP_SYS_ADMIN
	NoUserXattrs     bool // user xattrs are EOPNOTSUPP, as on tmpfs before Linux 6.6
	NoXattrs         bool // all xattrs are EOPNOTSUPP, as on filesystems without them
	NoACLs           bool // ACLs are EOPNOTSUPP, as with the mount option noacl
	NoTmpFile        bool // TmpFile is EOPNOTSUPP, as on NFS
	NoHandles        bool // Handle is EOPNOTSUPP
	NoRenameFlags    bool // Rename with flags is EINVAL, as on filesystems with plain rename
	NoDirentTypes    bool // ReadDir leaves types out (DT_UNKNOWN)
	OneDirLink       bool // the link count of directories is 1, as on btrfs
}

// FS is a filesystem in memory.
type FS struct {
	opts Options

	mu      sync.Mutex
	st      *state
	calls   int
	hook    func(Call) error
	current Call // the call that holds mu
	handles map[*handle]struct{}
	base    *state // what Record found
	log     []step
}

// devices counts the filesystems of the process, to tell them apart.
var devices atomic.Uint64

// New returns a filesystem with an empty root directory.
func New(o Options) *FS {
	if o.Dev == 0 {
		o.Dev = unix.Mkdev(0, uint32(1000+devices.Add(1)))
	}
	if o.UUID == [16]byte{} {
		copy(o.UUID[:], "memlayer")
		binary.BigEndian.PutUint64(o.UUID[8:], o.Dev)
	}
	if o.MaxLinks == 0 {
		o.MaxLinks = 65000
	}
	o.NoACLs = o.NoACLs || o.NoXattrs
	return newFS(o, newState(o.UID, o.GID))
}

func newFS(o Options, st *state) *FS {
	return &FS{opts: o, st: st, handles: make(map[*handle]struct{})}
}

// Root returns a new handle to the root directory.
func (fs *FS) Root() layer.Dir {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return &dir{fs.open(fs.st.inodes[rootIno], "/", 0, false)}
}

// Dir returns a new handle to the directory at path, "upper" or "a/b". It
// panics if there is none: a test names what it has built.
func (fs *FS) Dir(path string) layer.Dir {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	i := fs.st.inodes[rootIno]
	for _, name := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' }) {
		i = fs.st.inodes[i.entries[name]]
		if i == nil || !i.isDir() {
			panic("memlayer: no directory " + path)
		}
	}
	return &dir{fs.open(i, "/"+strings.Trim(path, "/"), 0, false)}
}

// SetLimits changes Blocks and Inodes of the options, also below what is in
// use already.
func (fs *FS) SetLimits(blocks, inodes int64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.opts.Blocks, fs.opts.Inodes = blocks, inodes
}

// Now returns the time of the last change.
func (fs *FS) Now() layer.Time {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.st.now()
}

// Advance lets time pass.
func (fs *FS) Advance(seconds int64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.st.clock += seconds * 1_000_000_000
	if fs.base != nil {
		fs.log = append(fs.log, step{quiet: true, do: func(s *state) { s.clock += seconds * 1_000_000_000 }})
	}
}

// Open returns the handles that are not closed, each by the path that it was
// opened with, sorted. A test that expects none prints what leaked.
func (fs *FS) Open() []string {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var out []string
	for h := range fs.handles {
		out = append(out, h.path)
	}
	slices.Sort(out)
	return out
}

// Orphans returns the number of inodes that have no name but a handle.
func (fs *FS) Orphans() (n int) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, i := range fs.st.inodes {
		if i.nlink == 0 {
			n++
		}
	}
	return n
}

// room returns the error of taking more space than there is.
func (fs *FS) room(blocks, inodes int64) error {
	full := fs.opts.Blocks > 0 && blocks > 0 && fs.st.used()+blocks > fs.opts.Blocks ||
		fs.opts.Inodes > 0 && inodes > 0 && int64(len(fs.st.inodes))+inodes > fs.opts.Inodes
	switch {
	case !full:
		return nil
	case fs.opts.Quota:
		return syscall.EDQUOT
	}
	return syscall.ENOSPC
}

// commit makes one change, and remembers it for Crash.
func (fs *FS) commit(do func(*state)) {
	fs.step(func(st *state) {
		st.clock += tick
		do(st)
	})
}

// step is commit for what takes no time: a change only of what is durable.
func (fs *FS) step(do func(*state)) {
	do(fs.st)
	if fs.base != nil {
		fs.log = append(fs.log, step{call: fs.current, do: do})
	}
}
