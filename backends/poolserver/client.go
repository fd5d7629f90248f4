package poolserver

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs/control"
	"github.com/laminafs/lamina/fs/fusefs/daemon"
)

// A Client talks to the server of one pool. Its methods may not be called side by
// side.
type Client struct {
	Greeting Greeting
	// Progress is told how far a request has come; nil: nobody wants to know.
	Progress func(Progress)

	place Place
	conn  *net.UnixConn
	lines *bufio.Reader
}

var (
	// ErrNotRunning says that the pool has no server.
	ErrNotRunning = errors.New("the pool has no server")
	// ErrServerGone says that the server ended before it answered: whether it did
	// what was asked is not known.
	ErrServerGone = errors.New("the server of the pool ended before it answered")
)

// patience is how long a server that ends, or that another client starts, is
// waited for.
const patience = 60 * time.Second

// greetingTime bounds the wait for the greeting of a server that has accepted.
const greetingTime = 30 * time.Second

// Dial connects to the server of the pool. It is [ErrNotRunning] when there is
// none, or one that is about to end.
func (p Place) Dial() (*Client, error) {
	conn, err := control.DialConn(p.socket())
	if errors.Is(err, control.ErrDeadServer) {
		return nil, ErrNotRunning
	}
	if errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("pool %s: %w: only its owner and root may use it", p.Dir, unix.EACCES)
	}
	if err != nil {
		return nil, err
	}
	c := &Client{place: p, conn: conn, lines: bufio.NewReader(conn)}
	conn.SetReadDeadline(time.Now().Add(greetingTime))
	line, err := c.lines.ReadBytes('\n')
	conn.SetReadDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.Close()
		return nil, fmt.Errorf("the server of pool %s does not answer; what it does shows: lamina pool status, or its log %s.log", p.Dir, p.beside())
	}
	if err != nil {
		c.Close()
		return nil, ErrNotRunning
	}
	if err := json.Unmarshal(line, &c.Greeting); err != nil || c.Greeting.Protocol == 0 {
		c.Close()
		return nil, fmt.Errorf("%s is not the socket of a pool's server", p.socket())
	}
	if c.Greeting.Protocol != ProtocolVersion {
		c.Close()
		return nil, fmt.Errorf("the server of pool %s (pid %d) is of lamina %s, which speaks another protocol: end it with: kill %d", p.Dir, c.Greeting.PID, c.Greeting.Version, c.Greeting.PID)
	}
	return c, nil
}

// Connect connects to the server of the pool, and starts it when there is none:
// argv is the command line, argv[0] included, by which this program serves it.
//
// Of those who find no server one starts it, under a lock of the pool's directory,
// and the others wait for that. The lock only spares them the start of servers that
// would find the pool taken: the pool's own lock decides.
func (p Place) Connect(ctx context.Context, argv []string) (*Client, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	dir, err := os.Open(p.Dir)
	if err != nil {
		return nil, fmt.Errorf("pool %s: %w", p.Name(), err)
	}
	defer dir.Close() // gives the lock back
	for end := time.Now().Add(patience); ; {
		c, err := p.Dial()
		if !errors.Is(err, ErrNotRunning) {
			return c, err
		}
		switch err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			c, err := p.start(argv)
			if !errors.Is(err, ErrNotRunning) {
				return c, err
			}
		case err != unix.EWOULDBLOCK && err != unix.EINTR:
			return nil, os.NewSyscallError("flock "+p.Dir, err)
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("pool %s is open in another process, which does not answer at %s; see who it is with: fuser %s/*", p.Dir, p.socket(), p.Dir)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// start starts a server and connects to it. It is [ErrNotRunning] when another
// process has the pool.
func (p Place) start(argv []string) (*Client, error) {
	c, err := p.Dial() // somebody may have started one just now
	if !errors.Is(err, ErrNotRunning) {
		return c, err
	}
	var s Started
	if err := daemon.Start(argv, &s); err != nil {
		return nil, err
	}
	return p.Dial()
}

// PoolDir returns the directory of the pool.
func (c *Client) PoolDir() string { return c.place.Dir }

// Alive reports whether the server still has the connection, on which nothing must be
// under way.
func (c *Client) Alive() bool {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	err = raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		alive = err == unix.EAGAIN
		return true
	})
	return err == nil && alive
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// call sends a request and waits for its end.
func (c *Client) call(ctx context.Context, op string, args, result any, files []*os.File) error {
	raw, err := json.Marshal(args)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })()
	if err := send(c.conn, request{Op: op, Args: raw}, files...); err != nil {
		return c.lost(ctx, op, err)
	}
	for {
		line, err := c.lines.ReadBytes('\n')
		if err != nil {
			return c.lost(ctx, op, err)
		}
		var a answer
		if err := json.Unmarshal(line, &a); err != nil {
			return fmt.Errorf("%s: the answer is not understood: %w", op, err)
		}
		switch {
		case a.Progress != nil:
			if c.Progress != nil {
				c.Progress(*a.Progress)
			}
		case a.Error != nil:
			return a.Error
		default:
			return json.Unmarshal(a.Result, result)
		}
	}
}

// lost says why no answer comes.
func (c *Client) lost(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%s in pool %s: %w (%v): look with: lamina pool status %s", op, c.place.Name(), ErrServerGone, err, c.place.Dir)
}

// WaitEnd returns when the server has let go of the pool and closed the
// connection.
func (c *Client) WaitEnd(timeout time.Duration) error {
	c.conn.SetReadDeadline(time.Now().Add(timeout))
	for {
		if _, err := c.lines.ReadByte(); errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("the server of pool %s (pid %d) still runs after %v", c.place.Name(), c.Greeting.PID, timeout)
		} else if err != nil {
			return nil
		}
	}
}
