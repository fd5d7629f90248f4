package fusefs

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// conn is the connection to the kernel: /dev/fuse after the mount. go-fuse
// translates the requests to calls of a RawFileSystem and back; reading them,
// on which thread, and writing the answers is done here, because that decides
// what a request costs: waking a thread takes longer than most of them.
type conn struct {
	fd       int
	protocol *fuse.ProtocolServer
	maxWrite int // of a WRITE request, in bytes
	// dataWaits tells that short READs and WRITEs too may take longer than to wake
	// a thread, see crew.
	dataWaits bool
	// trace records the requests; nil while nobody watches.
	trace atomic.Pointer[tracer]

	mu sync.RWMutex // fd is not closed while someone notifies
}

// Sizes of linux/fuse.h.
const (
	inHeaderSize   = 40 // struct fuse_in_header
	outHeaderSize  = 16 // struct fuse_out_header
	requestRoom    = 4096
	minReplyRoom   = 64 << 10
	minRequestRoom = 8192 // FUSE_MIN_READ_BUFFER
)

// newConn answers the kernel's first request, INIT, which settles what both
// sides can do. It does not own fd.
func newConn(fd int, fs fuse.RawFileSystem, o *fuse.MountOptions) (*conn, error) {
	c := &conn{fd: fd, protocol: fuse.NewProtocolServer(fs, o), maxWrite: o.MaxWrite}
	in, out := make([]byte, minRequestRoom), make([]byte, minReplyRoom)
	n, err := c.read(in)
	if err != nil {
		return nil, err
	}
	if op := opcodeOf(in[:n]); op != opcodeInit {
		return nil, fmt.Errorf("the kernel began with request %d: %w", op, unix.EPROTO)
	}
	return c, c.answer(in[:n], out)
}

// serve answers requests until the filesystem is unmounted and the last one is
// answered.
func (c *conn) serve() {
	newCrew(c).serve()
	c.mu.Lock()
	defer c.mu.Unlock()
	unix.Close(c.fd)
	c.fd = -1
}

// read waits for a request. ENODEV tells that the filesystem was unmounted.
func (c *conn) read(buf []byte) (int, error) {
	for {
		n, err := unix.Read(c.fd, buf)
		switch err {
		case nil:
			if n < inHeaderSize {
				return 0, fmt.Errorf("a request of %d bytes: %w", n, unix.EPROTO)
			}
			return n, nil
		case unix.EINTR, unix.ENOENT, unix.EAGAIN: // ENOENT: withdrawn before it was read
		default:
			return 0, err
		}
	}
}

// pending reports whether a request waits to be read.
func (c *conn) pending() bool {
	fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLIN != 0
}

// answer handles a request and replies to it; the reply is put together in out.
// An error of replying tells that the one who asked is gone.
func (c *conn) answer(request, out []byte) error {
	if t := c.trace.Load(); t != nil {
		return c.answerTraced(t, request, out)
	}
	return c.finish(c.handle(request, out), out)
}

// answerTraced is answer for a mount that is watched.
func (c *conn) answerTraced(t *tracer, request, out []byte) error {
	start := time.Now()
	k := c.handle(request, out)
	if t.record(TraceEvent{Time: start, Took: time.Since(start)}, request, out[:k]) {
		c.trace.CompareAndSwap(t, nil)
	}
	return c.finish(k, out)
}

// handle puts a reply together and returns its length.
func (c *conn) handle(request, out []byte) int {
	k, status := c.protocol.HandleRequest([][]byte{request}, [][]byte{out})
	if status != fuse.OK {
		// Nothing was written: the request made no sense.
		k = putHeader(out, -int32(unix.EIO), requestID(request))
	}
	return k
}

// finish sends a reply.
func (c *conn) finish(k int, out []byte) error {
	if k == 0 {
		return nil // FORGET and others that want no reply
	}
	return c.write(out[:k])
}

// write hands a message to the kernel, which takes it without waiting.
func (c *conn) write(msg []byte) error {
	for {
		_, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(c.fd), uintptr(unsafe.Pointer(&msg[0])), uintptr(len(msg)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// putHeader writes a struct fuse_out_header without anything behind it and
// returns its length.
func putHeader(msg []byte, status int32, id uint64) int {
	binary.NativeEndian.PutUint32(msg[0:], outHeaderSize)
	binary.NativeEndian.PutUint32(msg[4:], uint32(status))
	binary.NativeEndian.PutUint64(msg[8:], id)
	return outHeaderSize
}

func opcodeOf(request []byte) uint32  { return binary.NativeEndian.Uint32(request[4:]) }
func requestID(request []byte) uint64 { return binary.NativeEndian.Uint64(request[8:]) }

// Notifications of linux/fuse.h (enum fuse_notify_code).
const (
	notifyInvalInode = 2
	notifyInvalEntry = 3
	notifyIncEpoch   = 8
	notifyPrune      = 9
)

// notify sends a notification. Unlike a reply it can wait, for requests that it
// makes necessary or for others.
func (c *conn) notify(code uint32, body []byte) error {
	msg := make([]byte, outHeaderSize, outHeaderSize+len(body))
	binary.NativeEndian.PutUint32(msg[0:], uint32(outHeaderSize+len(body)))
	binary.NativeEndian.PutUint32(msg[4:], code)
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, err := unix.Write(c.fd, append(msg, body...))
	return err
}

// dropInode makes the kernel write out and forget what it has cached of an
// inode: attributes and data, or the listing. ENOENT tells that it does not know
// the inode at all.
func (c *conn) dropInode(id uint64) error { return c.invalidate(id, 0, 0) }

// dropAttrs makes the kernel forget the attributes of an inode and nothing else.
func (c *conn) dropAttrs(id uint64) error { return c.invalidate(id, -1, 0) }

// invalidate is FUSE_NOTIFY_INVAL_INODE: with an offset below zero no data is
// dropped, else n bytes from there on, or all for an n of 0.
func (c *conn) invalidate(id uint64, off, n int64) error {
	var body [24]byte // struct fuse_notify_inval_inode_out: inode, offset, length (0: all)
	binary.NativeEndian.PutUint64(body[:], id)
	binary.NativeEndian.PutUint64(body[8:], uint64(off))
	binary.NativeEndian.PutUint64(body[16:], uint64(n))
	return c.notify(notifyInvalInode, body[:])
}

// dropEntry makes the kernel forget a name, present or absent.
func (c *conn) dropEntry(parent uint64, name string) error {
	body := make([]byte, 16, 16+len(name)+1) // struct fuse_notify_inval_entry_out: parent, length, flags
	binary.NativeEndian.PutUint64(body, parent)
	binary.NativeEndian.PutUint32(body[8:], uint32(len(name)))
	return c.notify(notifyInvalEntry, append(append(body, name...), 0))
}

// prune makes the kernel forget inodes that nobody uses, EINVAL before Linux 6.18.
func (c *conn) prune(ids []uint64) error {
	body := make([]byte, 16, 16+8*len(ids)) // struct fuse_notify_prune_out: count, padding
	binary.NativeEndian.PutUint32(body, uint32(len(ids)))
	for _, id := range ids {
		body = binary.NativeEndian.AppendUint64(body, id)
	}
	return c.notify(notifyPrune, body)
}

// nextEpoch makes the kernel look up every name that it has cached once more,
// EINVAL before Linux 6.16.
func (c *conn) nextEpoch() error { return c.notify(notifyIncEpoch, nil) }

// Requests to /dev/fuse itself (FUSE_DEV_IOC_BACKING_OPEN and _CLOSE).
const (
	iocBackingOpen  = 0x4010e501
	iocBackingClose = 0x4004e502
)

// RegisterBackingFd implements backings.
func (c *conn) RegisterBackingFd(m *fuse.BackingMap) (int32, syscall.Errno) {
	id, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), iocBackingOpen, uintptr(unsafe.Pointer(m)))
	return int32(id), errno
}

// UnregisterBackingFd implements backings.
func (c *conn) UnregisterBackingFd(id int32) syscall.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), iocBackingClose, uintptr(unsafe.Pointer(&id)))
	return errno
}
