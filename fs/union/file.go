package union

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// openData returns the open data of a regular file, held. For write the object
// must have been copied up.
func (fs *FS) openData(n *Node, write bool) (*handle[layer.File], error) {
	if n.typ != unix.S_IFREG {
		if n.dir != nil {
			return nil, unix.EISDIR
		}
		return nil, unix.EINVAL
	}
	for {
		if h := n.file.acquire(); h != nil {
			if !write || !n.has(stateReadOnly) {
				return h, nil
			}
			// What forbade writing when it was opened may be gone.
			h.release()
			n.clear(stateReadOnly)
			n.dropFile(h)
		}
		upper := n.has(stateUpper) && !n.has(stateMetacopy)
		f, err := retryOpen(fs, func() (layer.File, error) { return fs.openFile(n, upper, write) })
		if err != nil {
			return nil, err
		}
		h := n.file.put(fs.handles, f)
		if upper == (n.has(stateUpper) && !n.has(stateMetacopy)) {
			if write && n.has(stateReadOnly) {
				h.release() // a reader was faster
				continue
			}
			return h, nil
		}
		// A copy-up came in between, so this may be the lower file: what is
		// open in the slot must be the file that counts now.
		h.release()
		if !upper {
			n.dropFile(h)
		}
	}
}

// dropFile empties the slot if it still holds h.
func (n *Node) dropFile(h *handle[layer.File]) {
	if n.file.p.CompareAndSwap(h, nil) {
		h.doom()
	}
}

func (fs *FS) openFile(n *Node, upper, write bool) (f layer.File, err error) {
	if !upper {
		at := n.dataPlace()
		h, err := at.dir.open(fs)
		if err != nil {
			return nil, err
		}
		defer h.release()
		return h.obj.OpenFile(at.name, unix.O_RDONLY, 0)
	}
	flags := unix.O_RDWR
	for {
		err = fs.withObject(n, objectOps{
			at:   func(d layer.Dir, name string) (err error) { f, err = d.OpenFile(name, flags, 0); return err },
			open: func(o layer.Object) (err error) { f, err = o.Reopen(flags); return err },
		})
		switch {
		case err == unix.EACCES && write:
			return fs.openOwn(n)
		case (err == unix.EACCES || err == unix.EPERM || err == unix.EROFS || err == unix.ETXTBSY) && flags == unix.O_RDWR && !write:
			flags = unix.O_RDONLY
		case err == unix.EPERM && flags == unix.O_RDWR:
			flags |= unix.O_APPEND // allowed if it is append-only
		case err == nil && flags&unix.O_APPEND != 0:
			return &appendFile{File: f}, nil
		default:
			if err == nil && flags == unix.O_RDONLY {
				n.set(stateReadOnly) // before anybody can see f
			}
			return f, err
		}
	}
}

// openOwn opens a file for writing whose mode forbids it. The kernel has
// checked the right to write when the user opened the file; who serves an
// ordinary user has no privilege to go by that, but owns the file.
func (fs *FS) openOwn(n *Node) (f layer.File, err error) {
	err = fs.withObject(n, objectOps{open: func(o layer.Object) error {
		st, err := o.Stat()
		if err != nil {
			return err
		}
		if err := o.Chmod(st.Mode&0o7777 | 0o600); err != nil {
			if errnoOf(err) == unix.EPERM {
				err = unix.EACCES // not the owner
			}
			return err
		}
		f, err = o.Reopen(unix.O_RDWR)
		back := o.Chmod(st.Mode & 0o7777)
		if back != nil { // once more: the owner must not be left with rights that he took away
			back = o.Chmod(st.Mode & 0o7777)
		}
		if err == nil && back != nil {
			f.Close()
			return back
		}
		return err
	}})
	return f, err
}

// dataPlace returns where the data of a file lies that is not in the upper.
func (n *Node) dataPlace() lowerRef {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ext != nil && n.ext.data.dir != nil {
		return n.ext.data
	}
	return n.lowerPlaceLocked()
}

// Read reads like pread(2).
func (fs *FS) Read(n *Node, p []byte, off int64) (int, error) {
	h, err := fs.openData(n, false)
	if err != nil {
		return 0, err
	}
	defer h.release()
	if n.has(stateMetacopy) {
		// The data may be longer than the file: a crash while it was cut.
		st, err := fs.stat(n)
		if err != nil {
			return 0, err
		}
		p = p[:max(0, min(int64(len(p)), st.Size-off))]
	}
	return h.obj.ReadAt(p, off)
}

// Write writes all of p at off. killPriv takes away the suid and sgid bits, as
// a write by someone unprivileged does.
func (fs *FS) Write(n *Node, p []byte, off int64, kill bool) (int, error) {
	h, err := fs.writable(n)
	if err != nil {
		return 0, err
	}
	defer h.release()
	return fs.write(h.obj, p, off, kill)
}

// WriteBack is Write for what the kernel has held back. It leaves the time of
// the last change alone: the kernel has shown the time of the write(2) since, and
// sets it by itself where it differs from the one that it was told last.
//
// Crash before it does: the file has new data and its old time.
func (fs *FS) WriteBack(n *Node, p []byte, off int64, kill bool) (int, error) {
	h, err := fs.writable(n)
	if err != nil {
		return 0, err
	}
	defer h.release()
	defer fs.timesOf(n).Unlock()
	st, err := h.obj.Stat()
	if err != nil {
		return 0, err
	}
	done, err := fs.write(h.obj, p, off, kill)
	if done > 0 {
		_ = h.obj.SetTimes(omit, st.Mtime) // of a file that is not the server's own it stays the time of now
	}
	return done, err
}

// timesOf locks what keeps the times of a node together over several steps.
func (fs *FS) timesOf(n *Node) *sync.Mutex {
	mu := &fs.times[n.ID()%uint64(len(fs.times))]
	mu.Lock()
	return mu
}

func (fs *FS) write(f layer.File, p []byte, off int64, kill bool) (int, error) {
	if kill {
		if err := killPriv(f); err != nil {
			return 0, err
		}
	} else if fs.opt.RestorePriv {
		restore, err := keepPriv(f)
		if err != nil {
			return 0, err
		}
		defer restore()
	}
	done := 0
	err := fs.limits.around(f, off+int64(len(p)), func() (err error) {
		done, err = f.WriteAt(p, off)
		return err
	})
	if done > 0 {
		return done, nil
	}
	return done, err
}

// writable copies a file up and returns its open data.
func (fs *FS) writable(n *Node) (*handle[layer.File], error) {
	if !n.has(stateUpper) || n.has(stateMetacopy) {
		if err := fs.copyUp(n, wantAll); err != nil {
			return nil, err
		}
	}
	return fs.openData(n, true)
}

// Fsync makes what was written durable: the data, and the attributes too unless
// dataOnly. What was never changed is durable already.
func (fs *FS) Fsync(n *Node, dataOnly bool) error {
	if fs.opt.Volatile || !n.isUpper() {
		return nil
	}
	if n.dir != nil {
		h, err := n.dir.upper.Load().open(fs)
		if err != nil {
			return err
		}
		defer h.release()
		return h.obj.Sync()
	}
	if n.has(stateMetacopy) {
		return fs.withObject(n, objectOps{open: func(o layer.Object) error {
			f, err := o.Reopen(unix.O_RDONLY)
			if err != nil {
				return err
			}
			defer f.Close()
			return f.Sync(dataOnly)
		}})
	}
	h, err := fs.openData(n, false)
	if err != nil {
		return err
	}
	defer h.release()
	return h.obj.Sync(dataOnly)
}

// Fallocate is fallocate(2) with the modes that the upper has.
func (fs *FS) Fallocate(n *Node, mode uint32, off, length int64, kill bool) error {
	h, err := fs.writable(n)
	if err != nil {
		return err
	}
	defer h.release()
	if kill {
		if err := killPriv(h.obj); err != nil {
			return err
		}
	}
	end := off + length
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_COLLAPSE_RANGE) != 0 {
		end = 0
	}
	return fs.limits.around(h.obj, end, func() error { return h.obj.Allocate(mode, off, length) })
}

// Seek answers SEEK_DATA and SEEK_HOLE.
func (fs *FS) Seek(n *Node, off int64, whence int) (int64, error) {
	h, err := fs.openData(n, false)
	if err != nil {
		return 0, err
	}
	defer h.release()
	return h.obj.Seek(off, whence)
}

// CopyRange is copy_file_range(2) between two files of the union. It returns
// EOPNOTSUPP where the layers cannot do it, which makes the kernel copy.
func (fs *FS) CopyRange(src, dst *Node, srcOff, dstOff int64, length int, kill bool) (int, error) {
	d, err := fs.writable(dst)
	if err != nil {
		return 0, err
	}
	defer d.release()
	s, err := fs.openData(src, false)
	if err != nil {
		return 0, err
	}
	defer s.release()
	if kill {
		if err := killPriv(d.obj); err != nil {
			return 0, err
		}
	}
	var n int
	err = fs.limits.around(d.obj, dstOff+int64(length), func() (err error) {
		n, err = d.obj.CopyRangeFrom(readable(s.obj), srcOff, dstOff, length)
		return err
	})
	return n, err
}

// Flags returns the inode flags of chattr(1).
func (fs *FS) Flags(n *Node) (flags uint32, err error) {
	err = fs.onFlagged(n, func(f layer.Flagged) (err error) { flags, err = f.Flags(); return err })
	return flags, err
}

// SetFlags sets the inode flags.
func (fs *FS) SetFlags(n *Node, flags uint32) error {
	if err := fs.copyUp(n, wantAll); err != nil {
		return err
	}
	err := fs.onFlagged(n, func(f layer.Flagged) error { return f.SetFlags(flags) })
	if err == nil && n.dir == nil {
		n.file.drop() // how it may be opened depends on them
	}
	return err
}

func (fs *FS) onFlagged(n *Node, do func(layer.Flagged) error) error {
	if n.dir != nil {
		return fs.withObject(n, objectOps{dir: func(d layer.Dir) error { return do(d) }})
	}
	h, err := fs.openData(n, false)
	if err == unix.EINVAL {
		return unix.ENOTTY
	}
	if err != nil {
		return err
	}
	defer h.release()
	return do(h.obj)
}
