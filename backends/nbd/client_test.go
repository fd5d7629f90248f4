package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A pipeListener is a listener whose connections are pipes in this process.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// A running is a server under test.
type running struct {
	*server
	ln   *pipeListener
	stop context.CancelFunc
	done chan error
	log  lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start starts a server. When the test ends it is stopped, and must have all of
// its memory back.
func start(t testing.TB, s Server) *running {
	t.Helper()
	r := &running{ln: &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}, done: make(chan error, 1)}
	s.Log = log.New(&r.log, "", 0)
	r.server = newServer(&s)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.done <- r.serve(ctx, r.ln) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-r.done:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the server does not end")
		}
		if r.memory.free != r.MaxMemory {
			t.Errorf("%d bytes of memory were not given back", r.MaxMemory-r.memory.free)
		}
	})
	return r
}

// A client is what a test says to a server, field by field.
type client struct {
	t testing.TB
	net.Conn
	structured bool
}

// dial connects, and fails the test if it takes too long over anything.
func (r *running) dial(t testing.TB) *client {
	t.Helper()
	ours, theirs := net.Pipe()
	r.ln.conns <- theirs
	ours.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { ours.Close() })
	return &client{t: t, Conn: ours}
}

// greeted connects and exchanges greetings.
func (r *running) greeted(t testing.TB) *client {
	t.Helper()
	c := r.dial(t)
	b := c.bytes(18)
	if binary.BigEndian.Uint64(b) != magicServer || binary.BigEndian.Uint64(b[8:]) != magicOption {
		t.Fatalf("greeting % x", b)
	}
	c.send(binary.BigEndian.AppendUint32(nil, uint32(flagFixedNewstyle|flagNoZeroes)))
	return c
}

// open connects and chooses an export, with structured replies and
// base:allocation if wanted.
func (r *running) open(t testing.TB, name string, structured bool) *client {
	t.Helper()
	c := r.greeted(t)
	if structured {
		c.option(optStructuredReply, nil)
		c.wantReplies(optStructuredReply, repAck)
		c.structured = true
		q := contextRequest{name, []string{allocationContext}}
		c.option(optSetMetaContext, q.append(nil))
		for kind := repMetaContext; kind == repMetaContext; {
			kind, _ = c.optReply(optSetMetaContext)
		}
	}
	q := infoRequest{name, nil}
	c.option(optGo, q.append(nil))
	c.wantReplies(optGo, repInfo, repInfo, repAck)
	return c
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *client) bytes(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		c.t.Fatalf("receive: %v", err)
	}
	return b
}

// wantEnd fails the test unless the server has closed the connection.
func (c *client) wantEnd() {
	c.t.Helper()
	var b [1]byte
	if _, err := c.Read(b[:]); !errors.Is(err, io.EOF) {
		c.t.Fatalf("the connection is still there: %v", err)
	}
}

func packOption(opt option, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, uint32(opt))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func (c *client) option(opt option, data []byte) {
	c.t.Helper()
	c.send(packOption(opt, data))
}

func (c *client) optReply(opt option) (optReply, []byte) {
	c.t.Helper()
	b := c.bytes(20)
	if m := binary.BigEndian.Uint64(b); m != magicOptReply {
		c.t.Fatalf("option reply begins with %#x", m)
	}
	if got := option(binary.BigEndian.Uint32(b[8:])); got != opt {
		c.t.Fatalf("reply to option %d, want %d", got, opt)
	}
	return optReply(binary.BigEndian.Uint32(b[12:])), c.bytes(int(binary.BigEndian.Uint32(b[16:])))
}

// wantReplies reads replies to an option, and returns their data.
func (c *client) wantReplies(opt option, kinds ...optReply) [][]byte {
	c.t.Helper()
	var all [][]byte
	for i, want := range kinds {
		kind, data := c.optReply(opt)
		if kind != want {
			c.t.Fatalf("reply %d to option %d is %#x %q, want %#x", i, opt, uint32(kind), data, uint32(want))
		}
		all = append(all, data)
	}
	return all
}

func packRequest(r request, data []byte) []byte {
	b := make([]byte, requestSize)
	r.pack(b)
	return append(b, data...)
}

// A reply is a simple reply or a chunk.
type reply struct {
	cookie uint64
	errno  Errno
	text   string
	data   []byte
}

// reply reads a reply; reads says how many bytes a simple one brings if it
// succeeds.
func (c *client) reply(reads int) reply {
	c.t.Helper()
	r, err := readReply(c, func(uint64) int { return reads })
	if err != nil {
		c.t.Fatal(err)
	}
	if c.structured && reads > 0 && r.errno == 0 && len(r.data) != reads {
		c.t.Fatalf("%d bytes, want %d", len(r.data), reads)
	}
	return r
}

// readReply decodes a reply. simple tells how many bytes follow a simple reply
// without an error to the request with that cookie.
func readReply(from io.Reader, simple func(cookie uint64) int) (reply, error) {
	var m [4]byte
	if _, err := io.ReadFull(from, m[:]); err != nil {
		return reply{}, err
	}
	rest := func(n int) []byte {
		b := make([]byte, n)
		if _, err := io.ReadFull(from, b); err != nil {
			return make([]byte, n)
		}
		return b
	}
	switch binary.BigEndian.Uint32(m[:]) {
	case magicSimple:
		b := rest(12)
		r := reply{cookie: binary.BigEndian.Uint64(b[4:]), errno: Errno(binary.BigEndian.Uint32(b))}
		if r.errno == 0 {
			r.data = rest(simple(r.cookie))
		}
		return r, nil
	case magicStructured:
		b := rest(16)
		kind, r := binary.BigEndian.Uint16(b[2:]), reply{cookie: binary.BigEndian.Uint64(b[4:])}
		if flags := binary.BigEndian.Uint16(b); flags != chunkFlagDone {
			return r, fmt.Errorf("chunk flags %#x", flags)
		}
		body := rest(int(binary.BigEndian.Uint32(b[12:])))
		switch {
		case kind == chunkNone && len(body) == 0:
		case kind == chunkError && len(body) >= 6 && len(body) == 6+int(binary.BigEndian.Uint16(body[4:])):
			r.errno, r.text = Errno(binary.BigEndian.Uint32(body)), string(body[6:])
		case kind == chunkOffsetData && len(body) > 8:
			r.data = body[8:]
		case kind == chunkBlockStatus && len(body) >= 12 && len(body)%8 == 4:
			r.data = body[4:]
		default:
			return r, fmt.Errorf("chunk %#x of %d bytes", kind, len(body))
		}
		return r, nil
	}
	return reply{}, fmt.Errorf("reply begins with % x", m)
}

// do sends a request and returns the error value of its reply, and the data.
func (c *client) do(r request, data []byte) (Errno, []byte) {
	c.t.Helper()
	r.cookie = 0x0123456789abcdef ^ r.offset
	c.send(packRequest(r, data))
	reads := 0
	if r.cmd == cmdRead {
		reads = int(r.length)
	}
	got := c.reply(reads)
	if got.cookie != r.cookie {
		c.t.Fatalf("cookie %#x, want %#x", got.cookie, r.cookie)
	}
	if c.structured && got.errno != 0 && got.text == "" {
		c.t.Errorf("%v: error %d without a text", r.cmd, got.errno)
	}
	return got.errno, got.data
}

// wantAlive fails the test unless the connection still serves requests.
func (c *client) wantAlive() {
	c.t.Helper()
	if e, _ := c.do(request{cmd: cmdFlush}, nil); e != 0 {
		c.t.Fatalf("flush: %v", e)
	}
}

// wantLog waits for the server to have said something.
func (r *running) wantLog(t testing.TB, text string) {
	t.Helper()
	for range 1000 {
		if strings.Contains(r.log.String(), text) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("the log says %q, not %q", r.log.String(), text)
}
