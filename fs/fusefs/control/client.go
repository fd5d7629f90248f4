package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DialTimeout bounds connecting, and one exchange unless the client says
// otherwise: servers finish running requests first, so it is not short.
const DialTimeout = 30 * time.Second

// ErrDeadServer tells that nobody listens on a socket, which was then removed.
var ErrDeadServer = errors.New("the server is gone")

// A Client talks to one server. Its methods may not be called side by side.
type Client struct {
	// Timeout bounds one exchange; 0 waits as long as it takes.
	Timeout time.Duration

	conn  net.Conn
	lines *bufio.Reader
}

// Dial connects to the server that listens at path. Where none does any more,
// the error is [ErrDeadServer].
func Dial(path string) (*Client, error) {
	conn, err := DialConn(path)
	if errors.Is(err, ErrDeadServer) {
		// A server renames its socket here only once it listens, so this one
		// can never come to life.
		os.Remove(path)
	}
	if err != nil {
		return nil, err
	}
	return &Client{Timeout: DialTimeout, conn: conn, lines: bufio.NewReader(conn)}, nil
}

// DialConn is [Dial] for protocols of their own. It leaves the socket of a dead
// server where it is: where servers come back under the same name, the one that
// would be removed may be the next one's.
func DialConn(path string) (*net.UnixConn, error) {
	short, done, err := shortPath(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrDeadServer
	}
	if err != nil {
		return nil, err
	}
	defer done()
	conn, err := net.DialTimeout("unix", short, DialTimeout)
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return nil, ErrDeadServer
	case err != nil:
		return nil, fmt.Errorf("connect to %s: %w", path, errors.Unwrap(err))
	}
	return conn.(*net.UnixConn), nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Call sends a request as JSON and decodes the answer into result, which may be
// nil. what names the request in errors. What the server refuses is an [Error].
func (c *Client) Call(what string, request, result any) error {
	var deadline time.Time
	if c.Timeout > 0 {
		deadline = time.Now().Add(c.Timeout)
	}
	c.conn.SetDeadline(deadline)
	if err := json.NewEncoder(c.conn).Encode(request); err != nil {
		return fmt.Errorf("send %s: %w", what, err)
	}
	line, err := c.lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s: the server did not answer: %w", what, err)
	}
	reply := reply{Result: result}
	if err := json.Unmarshal(line, &reply); err != nil {
		return fmt.Errorf("%s: the answer is not understood: %w", what, err)
	}
	if reply.Error != nil {
		return reply.Error
	}
	return nil
}

// WaitEnd returns when the server closes its end. It gives
// [os.ErrDeadlineExceeded] after timeout, and another error when the server
// speaks without being asked.
func (c *Client) WaitEnd(timeout time.Duration) error {
	c.conn.SetReadDeadline(time.Now().Add(timeout))
	switch _, err := c.lines.ReadByte(); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case err == nil:
		return errors.New("it spoke without being asked")
	}
	return nil
}

// reply is what goes back for a request.
type reply struct {
	Result any    `json:"result,omitempty"`
	Error  *Error `json:"error,omitempty"`
}

// An Error is what a server answered instead of a result.
type Error struct {
	Message string        `json:"message"`
	Errno   syscall.Errno `json:"errno,omitempty"` // 0 when no system call failed
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the errno, so that errors.Is finds it on this side too.
func (e *Error) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// NewError returns err as it goes to the other side.
func NewError(err error) *Error {
	e := &Error{Message: err.Error()}
	errors.As(err, &e.Errno)
	return e
}

// shortPath returns a name of a socket that fits into a sockaddr_un, which
// ends at 108 bytes: long directories are named by a descriptor.
func shortPath(path string) (short string, done func(), err error) {
	if len(path) < len(unix.RawSockaddrUnix{}.Path) {
		return path, func() {}, nil
	}
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { dir.Close() }, nil
}
