package memlayer

import (
	"sync/atomic"
	"syscall"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

// counter counts from 1, for several goroutines.
type counter struct{ n atomic.Int64 }

func (c *counter) next() int { return int(c.n.Add(1)) }

// handle holds an inode, as a descriptor does: whatever happens to its names.
type handle struct {
	fs    *FS
	i     *inode
	path  string // when it was opened
	flags int    // of open(2), for a file
	quiet bool   // of the package's own: neither counted nor shown to OnCall

	closed bool // guarded by fs.mu
}

// open returns a handle to i. The caller holds fs.mu.
func (fs *FS) open(i *inode, path string, flags int, quiet bool) *handle {
	h := &handle{fs: fs, i: i, path: path, flags: flags, quiet: quiet}
	i.handles++
	if !quiet {
		fs.handles[h] = struct{}{}
	}
	return h
}

// Close lets go of the inode, which ends if it has no name. Closing twice is
// EBADF: on the host it would close a stranger's descriptor.
func (h *handle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return syscall.EBADF
	}
	h.closed = true
	delete(h.fs.handles, h)
	h.i.handles--
	h.fs.st.reap(h.i.ino)
	return nil
}

// String names the object for messages.
func (h *handle) String() string { return "memlayer:" + h.path }

// do is the frame of every call: the hook sees it, and then f has the
// filesystem for itself.
func (h *handle) do(c Call, f func(i *inode) error) error {
	fs := h.fs
	c.Path = h.path
	if !h.quiet {
		fs.mu.Lock()
		fs.calls++
		c.N = fs.calls
		hook := fs.hook
		fs.mu.Unlock()
		if hook != nil {
			if err := hook(c); err != nil {
				return err
			}
		}
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if h.closed {
		return syscall.EBADF
	}
	fs.current = c
	return f(h.i)
}

// at is do for a call on a child, whose name is checked before anything else.
func (h *handle) at(c Call, f func(d *inode) error) error {
	if err := layer.CheckName(c.Name); err != nil {
		return err
	}
	return h.do(c, f)
}

// child returns what the directory d has by name. The caller holds fs.mu.
func (fs *FS) child(d *inode, name string) (*inode, error) {
	if err := fs.may(d, mayExec); err != nil {
		return nil, err
	}
	ino, ok := d.entries[name]
	if !ok {
		return nil, syscall.ENOENT
	}
	return fs.st.inodes[ino], nil
}

func (h *handle) join(name string) string {
	if h.path == "/" {
		return "/" + name
	}
	return h.path + "/" + name
}

func (fs *FS) stat(i *inode) layer.Stat {
	blocks, nlink := i.blocks()*(blockSize/512), i.nlink
	if i.isDir() && fs.opts.OneDirLink {
		nlink = min(nlink, 1)
	}
	return layer.Stat{
		Dev: fs.opts.Dev, Ino: i.ino, Mode: i.mode, Nlink: nlink, UID: i.uid, GID: i.gid, Rdev: i.rdev,
		Size: i.size(), Blocks: blocks, Blksize: blockSize,
		Atime: i.atime, Mtime: i.mtime, Ctime: i.ctime, Btime: i.btime,
	}
}

// object is a handle to an inode of any type, as O_PATH gives it.
type object struct{ *handle }

var (
	_ layer.Object = (*object)(nil)
	_ layer.File   = (*file)(nil)
	_ layer.Dir    = (*dir)(nil)
)

func (h *handle) Stat() (st layer.Stat, err error) {
	err = h.do(Call{Op: "Stat"}, func(i *inode) error {
		st = h.fs.stat(i)
		return nil
	})
	return st, err
}

func (h *handle) Readlink() (target string, err error) {
	err = h.do(Call{Op: "Readlink"}, func(i *inode) error {
		target, err = readlink(i)
		return err
	})
	return target, err
}

func readlink(i *inode) (string, error) {
	if i.typ() != unix.S_IFLNK {
		return "", syscall.EINVAL
	}
	return i.target, nil
}

func (h *handle) Reopen(flags int) (f layer.File, err error) {
	err = h.do(Call{Op: "Reopen", Flag: flags, Mutates: flags&unix.O_TRUNC != 0}, func(i *inode) error {
		if !i.isRegular() {
			return syscall.EINVAL
		}
		f, err = h.fs.openFile(i, h.path, flags, h.quiet)
		return err
	})
	return f, err
}

// Handle gives what ext4 gives: FILEID_INO32_GEN of linux/exportfs.h.
func (h *handle) Handle() (fh layer.FileHandle, err error) {
	err = h.do(Call{Op: "Handle"}, func(i *inode) error {
		if h.fs.opts.NoHandles {
			return syscall.EOPNOTSUPP
		}
		fh = layer.FileHandle{Type: 1, Bytes: le32(le32(nil, uint32(i.ino)), uint32(i.gen))}
		return nil
	})
	return fh, err
}

func le32(b []byte, v uint32) []byte {
	return append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}
