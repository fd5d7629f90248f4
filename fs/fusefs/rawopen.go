package fusefs

import (
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/union"
)

// passthroughFS serves a union in the passthrough profile: OPEN is answered, files are copied up
// when they are opened for writing, and the kernel reads and writes files of the
// upper itself (Documentation/filesystems/fuse/fuse-passthrough.rst).
//
// While an inode is open the kernel takes either all of its descriptors through
// one backing file or none. Where there is an upper, a file of a lower layer is
// therefore read through the server and the caches: a writer that comes while it
// is open can then be served the same way, and the reader sees what is written,
// as POSIX wants. Without an upper there are no writers, and lower files too go
// through backing files.
type passthroughFS struct {
	*rawFS[*union.Node]
	union *union.FS
	opens *openTable
}

func (r *passthroughFS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	r.begin(opOpen)
	n, ok := r.node(in.NodeId)
	if !ok {
		return stale
	}
	write := in.Flags&unix.O_ACCMODE != unix.O_RDONLY
	if trunc := in.Flags&unix.O_TRUNC != 0; write || trunc {
		if err := r.writeAllowed(n, in.Flags&unix.O_APPEND != 0); err != nil {
			return r.status(err)
		}
		if err := r.union.PrepareWrite(n, trunc); err != nil {
			return r.status(err)
		}
	}
	return r.status(r.opens.open(r.union, n, out))
}

// writeAllowed asks the flags of chattr(1), of which the kernel does not know:
// EPERM for an immutable file, and for an append-only one unless it is opened
// for appending.
func (r *passthroughFS) writeAllowed(n *union.Node, appending bool) error {
	if n.Type() != unix.S_IFREG {
		return nil
	}
	flags, err := r.union.Flags(n)
	switch {
	case err == unix.ENOTTY, err == unix.EOPNOTSUPP: // a filesystem without them
		return nil
	case err != nil:
		return err
	case flags&unix.STATX_ATTR_IMMUTABLE != 0, flags&unix.STATX_ATTR_APPEND != 0 && !appending:
		return unix.EPERM
	}
	return nil
}

func (r *passthroughFS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	n, ok := r.node(in.NodeId)
	if !ok {
		return
	}
	r.opens.release(n, in.Fh)
	if in.Fh == handleBacked && in.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		// What was written through a mapping has left the times that the
		// kernel remembers as they were (fuse_passthrough_mmap).
		r.dropAttrs(in.NodeId)
	}
}

func (r *passthroughFS) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return r.openMade(out, r.rawFS.Create(cancel, in, name, out))
}

func (r *passthroughFS) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	return r.openMade(out, r.rawFS.Tmpfile(cancel, in, out))
}

// openMade opens a file that was just made, if it was.
func (r *passthroughFS) openMade(out *fuse.CreateOut, made fuse.Status) fuse.Status {
	if made != fuse.OK {
		return made
	}
	n := r.union.Node(out.NodeId)
	err := r.opens.open(r.union, n, &out.OpenOut)
	if err != nil {
		r.union.Forget(n, 1)
	}
	return r.status(err)
}

func (r *passthroughFS) Forget(id, count uint64) {
	r.begin(opForget)
	if n := r.union.ForgetID(id, count); n != nil {
		r.opens.forget(n)
	}
}

// An openTable knows the files that are open and their backing files.
type openTable struct {
	// server registers backing files; nil where the kernel or the lack of
	// privileges forbids it, and where a limit has to count what is written.
	// OPEN is then answered and data goes through the server.
	server backings

	mu    sync.Mutex
	nodes map[*union.Node]*openState
}

// backings is what the table needs of the connection to the kernel.
type backings interface {
	RegisterBackingFd(*fuse.BackingMap) (int32, syscall.Errno)
	UnregisterBackingFd(int32) syscall.Errno
}

// openState is what is known of a file that was opened. At most one of the
// counts is not 0. They fall a little after the kernel's own, when RELEASE comes
// in, which errs on the side that the kernel allows.
type openState struct {
	backing int32 // 0: none is registered
	backed  int   // open descriptors that go through it
	cached  int   // open descriptors that go through the server
}

// Handles of open files tell RELEASE how they were opened.
const (
	handleFree = iota
	handleCached
	handleBacked
)

func newOpenTable(s backings) *openTable {
	return &openTable{server: s, nodes: map[*union.Node]*openState{}}
}

// open decides how an open file is served.
func (t *openTable) open(u *union.FS, n *union.Node, out *fuse.OpenOut) error {
	out.OpenFlags = fuse.FOPEN_NOFLUSH | fuse.FOPEN_KEEP_CACHE
	out.Fh = handleFree
	if t.server == nil || n.Type() != unix.S_IFREG {
		return nil
	}
	return u.WithData(n, func(f layer.File, upper bool) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		st := t.nodes[n]
		if st == nil {
			st = &openState{}
			t.nodes[n] = st
		}
		final := upper || u.ReadOnly() // no other object will have the data
		if st.backed == 0 && (st.cached > 0 || !final || !t.register(st, f)) {
			st.cached++
			out.Fh = handleCached
			return nil
		}
		st.backed++
		out.OpenFlags = fuse.FOPEN_NOFLUSH | fuse.FOPEN_PASSTHROUGH
		out.BackingID = st.backing
		out.Fh = handleBacked
		return nil
	})
}

// register hands the kernel the backing file, once for each node: it has its data
// there for good. Files on a filesystem that is
// stacked too deep cannot be backing ones.
func (t *openTable) register(st *openState, f layer.File) bool {
	if st.backing != 0 {
		return true
	}
	d, ok := f.(layer.Descriptor)
	if !ok {
		return false
	}
	id, errno := t.server.RegisterBackingFd(&fuse.BackingMap{Fd: int32(d.Fd())})
	if errno != 0 {
		return false
	}
	st.backing = id
	return true
}

// release notes that an open file was closed.
func (t *openTable) release(n *union.Node, handle uint64) {
	if handle == handleFree {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.nodes[n]
	if st == nil {
		return
	}
	if handle == handleBacked {
		st.backed--
	} else {
		st.cached--
	}
}

// forget drops the backing file of a node that the kernel no longer knows.
func (t *openTable) forget(n *union.Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.nodes[n]
	if st == nil {
		return
	}
	if st.backing != 0 {
		t.server.UnregisterBackingFd(st.backing)
	}
	delete(t.nodes, n)
}

// canPassThrough tries whether the kernel takes a backing file from this
// process: that needs CAP_SYS_ADMIN in the initial user namespace. The privilege
// is checked before the kind of file, so a directory, which is always at hand,
// is refused for what it is where files are welcome.
func canPassThrough(s backings, dir int) error {
	id, errno := s.RegisterBackingFd(&fuse.BackingMap{Fd: int32(dir)})
	switch errno {
	case 0:
		s.UnregisterBackingFd(id)
		return nil
	case unix.EISDIR, unix.EINVAL:
		return nil
	}
	return errno
}
