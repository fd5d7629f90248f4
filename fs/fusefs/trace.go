package fusefs

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A TraceEvent is one request of the kernel and how it was answered.
type TraceEvent struct {
	Seq    uint64        `json:"seq"` // counts from 1; a gap tells of events that were lost
	Time   time.Time     `json:"time"`
	Op     string        `json:"op"`
	PID    uint32        `json:"pid"` // who asked, 0 for the kernel itself
	UID    uint32        `json:"uid"`
	Path   []byte        `json:"path,omitempty"`  // in the union
	Layer  []byte        `json:"layer,omitempty"` // that has the object, after the request
	Offset uint64        `json:"offset,omitempty"`
	Size   uint32        `json:"size,omitempty"` // bytes asked for, or written
	Took   time.Duration `json:"took"`           // until the answer was ready, in ns
	Errno  syscall.Errno `json:"errno,omitempty"`
}

// A Traced is a [Controller] that can be watched. TraceEvents returns those
// after a number, waiting a while for the first; asking for them switches
// tracing on, and not asking for a few seconds switches it off.
type Traced interface {
	TraceEvents(after uint64, wait time.Duration) []TraceEvent
}

const (
	traceRing   = 8192            // events that are kept for who asks late
	traceIdle   = 5 * time.Second // without a question, after which nothing is recorded
	traceMaxAsk = 1024            // events in one answer
	traceWait   = time.Second     // the longest that an answer waits
)

// A tracer records requests while somebody watches. Requests of a mount that
// nobody watches cost one load of a pointer (conn.trace).
type tracer struct {
	place func(node uint64) (path, layer string)

	mu    sync.Mutex
	ring  []TraceEvent // of number n at n % traceRing
	seq   uint64       // of the last event
	asked time.Time
	more  chan struct{} // closed when an event comes
}

func newTracer(place func(node uint64) (path, layer string)) *tracer {
	return &tracer{place: place, ring: make([]TraceEvent, traceRing), asked: time.Now(), more: make(chan struct{})}
}

// record takes in one request that was answered; reply may be empty.
func (t *tracer) record(e TraceEvent, request, reply []byte) (stop bool) {
	t.describe(&e, request, reply)
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.asked) > traceIdle {
		return true
	}
	t.seq++
	e.Seq = t.seq
	t.ring[t.seq%traceRing] = e
	close(t.more)
	t.more = make(chan struct{})
	return false
}

// events returns what came after a number.
func (t *tracer) events(after uint64, wait time.Duration) []TraceEvent {
	timeout := time.After(min(wait, traceWait))
	for {
		t.mu.Lock()
		t.asked = time.Now()
		if after > t.seq {
			after = 0 // of an earlier recording
		}
		if after < t.seq {
			from := max(after+1, t.seq-min(t.seq, traceRing)+1)
			to := min(t.seq, from+traceMaxAsk-1)
			out := make([]TraceEvent, 0, to-from+1)
			for n := from; n <= to; n++ {
				out = append(out, t.ring[n%traceRing])
			}
			t.mu.Unlock()
			return out
		}
		more := t.more
		t.mu.Unlock()
		select {
		case <-more:
		case <-timeout:
			return nil
		}
	}
}

// opcodeNames are those of linux/fuse.h that reach a server.
var opcodeNames = map[uint32]string{
	1: "LOOKUP", 2: "FORGET", 3: "GETATTR", 4: "SETATTR", 5: "READLINK", 6: "SYMLINK", 8: "MKNOD", 9: "MKDIR", 10: "UNLINK", 11: "RMDIR",
	12: "RENAME", 13: "LINK", 14: "OPEN", 15: "READ", 16: "WRITE", 17: "STATFS", 18: "RELEASE", 20: "FSYNC", 21: "SETXATTR", 22: "GETXATTR",
	23: "LISTXATTR", 24: "REMOVEXATTR", 25: "FLUSH", 26: "INIT", 27: "OPENDIR", 28: "READDIR", 29: "RELEASEDIR", 30: "FSYNCDIR", 34: "ACCESS",
	35: "CREATE", 36: "INTERRUPT", 38: "DESTROY", 39: "IOCTL", 40: "POLL", 42: "BATCH_FORGET", 43: "FALLOCATE", 44: "READDIRPLUS", 45: "RENAME2",
	46: "LSEEK", 47: "COPY_FILE_RANGE", 50: "SYNCFS", 51: "TMPFILE", 52: "STATX",
}

// nameAt tells, for requests that name something in a directory, where in the
// body the name begins: behind their structs of linux/fuse.h.
var nameAt = map[uint32]int{1: 0, 6: 0, 8: 16, 9: 8, 10: 0, 11: 0, 12: 8, 13: 8, 35: 16, 45: 16}

// givesEntry tells which replies begin with a struct fuse_entry_out.
var givesEntry = map[uint32]bool{1: true, 6: true, 8: true, 9: true, 13: true, 35: true}

// describe says what a request was about.
func (t *tracer) describe(e *TraceEvent, request, reply []byte) {
	code := opcodeOf(request)
	e.Op = opcodeNames[code]
	if e.Op == "" {
		e.Op = "OP" + strconv.Itoa(int(code))
	}
	node := binary.NativeEndian.Uint64(request[16:])
	e.UID, e.PID = binary.NativeEndian.Uint32(request[24:]), binary.NativeEndian.Uint32(request[32:])
	if len(reply) >= outHeaderSize {
		e.Errno = syscall.Errno(-int32(binary.NativeEndian.Uint32(reply[4:])))
	}
	path, layer := t.place(node)
	body := request[inHeaderSize:]
	if at, named := nameAt[code]; named && len(body) > at {
		name, _, _ := bytes.Cut(body[at:], []byte{0})
		if path != "/" {
			path += "/"
		}
		path += string(name)
		layer = ""
	}
	if givesEntry[code] && e.Errno == 0 && len(reply) >= outHeaderSize+8 {
		child := binary.NativeEndian.Uint64(reply[outHeaderSize:])
		if child == 0 { // an entry without a node says that the name is absent
			e.Errno = syscall.ENOENT
		}
		_, layer = t.place(child)
	}
	if (code == opcodeRead || code == opcodeWrite) && len(body) >= 20 { // fh, offset, size
		e.Offset, e.Size = binary.NativeEndian.Uint64(body[8:]), binary.NativeEndian.Uint32(body[16:])
	}
	e.Path, e.Layer = []byte(path), []byte(layer)
}

// TraceEvents implements [Traced].
func (s *Server) TraceEvents(after uint64, wait time.Duration) []TraceEvent {
	return s.mount.TraceEvents(s.union.Place, after, wait)
}

// TraceEvents is what [Traced] wants of a mount. place tells where a node is and which
// layer has it, both empty for what is nowhere.
func (m *RawMount) TraceEvents(place func(node uint64) (path, layer string), after uint64, wait time.Duration) []TraceEvent {
	c := m.conn
	t := c.trace.Load()
	if t == nil {
		t = newTracer(place)
		if !c.trace.CompareAndSwap(nil, t) {
			if t = c.trace.Load(); t == nil {
				return nil // it has just ended; the next question starts another
			}
		}
	}
	return t.events(after, wait)
}
