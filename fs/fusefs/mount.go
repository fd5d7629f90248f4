package fusefs

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// RawConfig says what filesystem to serve where.
type RawConfig struct {
	FS     fuse.RawFileSystem
	Target string             // an existing directory
	Flags  MountFlags         // what the kernel is told about the mount
	Kernel *fuse.MountOptions // the features that are asked of the kernel; MaxWrite must be set
	// DataWaits has every READ and WRITE handled beside others, as is best where
	// they go to a disk. Without it short ones that come at once are answered one
	// after the other, as is best where they go to a page cache: most take less
	// time than to wake another thread.
	DataWaits bool
}

// A RawMount is a mounted filesystem of whatever kind: unions are served by one,
// and so is all else of lamina's that is mounted over FUSE.
type RawMount struct {
	dev  *device
	info Info
	conn *conn

	done    chan struct{} // closed when all requests are answered
	unmount sync.Mutex
}

// MountRaw mounts a filesystem on cfg.Target, by the mount API, mount(2) or
// fusermount3, whichever this user may, and settles with the kernel what both
// can do. Whatever the filesystem is made of must be open by then, so that its
// server never goes through its own mount. Requests wait for [RawMount.Start].
//
// The error says what stands in the way and which command mends it.
func MountRaw(cfg RawConfig) (*RawMount, error) {
	dev, err := openDevice(cfg.Target, cfg.Flags)
	if err != nil {
		return nil, err
	}
	m := &RawMount{dev: dev, info: dev.info(), done: make(chan struct{})}
	m.conn, err = newConn(dev.fd, cfg.FS, cfg.Kernel)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: talk to the kernel: %w", cfg.Target, err), dev.unmount(true))
	}
	m.conn.dataWaits = cfg.DataWaits
	return m, nil
}

// Start begins to answer requests and goes on until the filesystem is unmounted,
// by whomever.
//
// The kernel takes the root directory for root's until it has asked for its attributes
// (fuse_get_root_inode), and would refuse its owner a chmod(2) that comes first. So it
// is made to ask before anybody else comes. What is asked there is answered by then.
func (m *RawMount) Start() {
	spareProcessors()
	go func() {
		defer close(m.done)
		m.conn.serve()
	}()
	var st unix.Stat_t
	_ = unix.Lstat(m.info.Target, &st) // who fails to look at it has no chmod to lose
}

// spareProcessors makes up for goroutines that wait in read(2) and hold a
// processor each: without spare ones the runtime takes theirs away at every
// request.
var spareProcessors = sync.OnceFunc(func() { runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2) })

// Info says what is mounted where.
func (m *RawMount) Info() Info { return m.info }

// Wait returns when the filesystem was unmounted and all requests are answered.
func (m *RawMount) Wait() { <-m.done }

// Unmount takes the mount away. A busy one gives EBUSY, unless lazy, which
// takes it out of sight at once and lets those who use it finish.
func (m *RawMount) Unmount(lazy bool) error {
	m.unmount.Lock()
	defer m.unmount.Unlock()
	select {
	case <-m.done:
		return nil
	default:
	}
	return m.dev.unmount(lazy)
}

// DropInode makes the kernel write out and forget what it has cached of an
// inode: attributes and data, or the listing. ENOENT tells that it does not know
// the inode at all. A request of the kernel may be waiting for what is dropped,
// so the caller holds no lock that an answer needs. With write-back the kernel
// keeps size and times of a regular file that it knows (fuse_get_cache_mask).
func (m *RawMount) DropInode(id uint64) error { return m.conn.dropInode(id) }

// DropRange makes the kernel write out and forget n bytes from off of what it has
// cached of an inode's data, and its attributes, see [RawMount.DropInode].
func (m *RawMount) DropRange(id uint64, off, n int64) error {
	if n <= 0 {
		return nil
	}
	return m.conn.invalidate(id, off, n)
}

// DropAttrs makes the kernel forget the attributes of an inode and nothing else,
// see [RawMount.DropInode].
func (m *RawMount) DropAttrs(id uint64) error { return m.conn.dropAttrs(id) }

// Prune makes the kernel forget those of the inodes that are cached only: no file of
// theirs is open, no process works in them and they hold nothing that is known. It
// fails with EINVAL before Linux 6.18, which has no such thing.
func (m *RawMount) Prune(ids []uint64) error { return m.conn.prune(ids) }

// DropEntry makes the kernel forget a name in a directory, whether it knows it to
// be there or not, see [RawMount.DropInode].
func (m *RawMount) DropEntry(dir uint64, name string) error { return m.conn.dropEntry(dir, name) }
