package fusefs

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// controlTimeout bounds one exchange. Taking a lower out waits for running
// requests, so it is not short.
const controlTimeout = 30 * time.Second

// errDeadServer tells that nobody listens on a socket, which is then removed.
var errDeadServer = errors.New("the server is gone")

// A Client talks to the server of one mounted union. Its methods may not be
// called side by side.
type Client struct {
	Info Info // as of the time of connecting

	conn  net.Conn
	lines *bufio.Reader
}

// dialSocket connects and asks who is there.
func dialSocket(path string) (*Client, error) {
	short, done, err := shortPath(path)
	if err != nil {
		return nil, err
	}
	defer done()
	conn, err := net.DialTimeout("unix", short, controlTimeout)
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		// A server renames its socket here only once it listens, so this one
		// can never come to life.
		os.Remove(path)
		removeEmpty(strings.TrimSuffix(path, socketSuffix) + crashSuffix)
		return nil, errDeadServer
	case err != nil:
		return nil, fmt.Errorf("connect to %s: %w", path, errors.Unwrap(err))
	}
	c := &Client{conn: conn, lines: bufio.NewReader(conn)}
	if err := c.call(controlRequest{Op: opInfo}, &c.Info); err != nil {
		c.Close()
		return nil, fmt.Errorf("ask the server behind %s: %w", path, err)
	}
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Counters returns what the server counted so far.
func (c *Client) Counters() (Counters, error) {
	var counters Counters
	return counters, c.call(controlRequest{Op: opCounters}, &counters)
}

// Layers returns the layers from the top.
func (c *Client) Layers() ([]LayerInfo, error) {
	var layers []LayerInfo
	return layers, c.call(controlRequest{Op: opLayers}, &layers)
}

// Options returns the options in force.
func (c *Client) Options() (map[string]string, error) {
	var options map[string]string
	return options, c.call(controlRequest{Op: opOptions}, &options)
}

// AddLower puts a directory among the lowers, see [Control].
func (c *Client) AddLower(index int, path string) error {
	path, err := fromHere(path)
	if err != nil {
		return err
	}
	return c.call(controlRequest{Op: opAddLower, Index: index, Path: path}, nil)
}

// DelLower takes a lower out, see [Control]. The path is as [Client.Layers]
// gives it, or leads to the same directory.
func (c *Client) DelLower(path string) error {
	path, err := fromHere(path)
	if err != nil {
		return err
	}
	return c.call(controlRequest{Op: opDelLower, Path: path}, nil)
}

// fromHere makes a path absolute without cleaning it: a ".." behind a symbolic
// link means the parent of where the link leads.
func fromHere(path string) (string, error) {
	if filepath.IsAbs(path) {
		return path, nil
	}
	cwd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the working directory, which %s starts from: %w", path, err)
	}
	return strings.TrimSuffix(cwd, "/") + "/" + path, nil
}

// SetReadOnly makes a writable union read-only or the other way round. EBUSY
// tells that files are open for writing.
func (c *Client) SetReadOnly(readOnly bool) error {
	return c.call(controlRequest{Op: opMod, ReadOnly: readOnly}, nil)
}

// Unmount makes the server unmount itself and end.
func (c *Client) Unmount(lazy bool) error {
	return c.call(controlRequest{Op: opUnmount, Lazy: lazy}, nil)
}

// call sends a request and decodes the result. What the server refuses is a
// [ControlError].
func (c *Client) call(req controlRequest, result any) error {
	c.conn.SetDeadline(time.Now().Add(controlTimeout))
	if err := json.NewEncoder(c.conn).Encode(req); err != nil {
		return fmt.Errorf("send %s: %w", req.Op, err)
	}
	line, err := c.lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s: the server did not answer: %w", req.Op, err)
	}
	reply := controlReply{Result: result}
	if err := json.Unmarshal(line, &reply); err != nil {
		return fmt.Errorf("%s: the answer is not understood: %w", req.Op, err)
	}
	if reply.Error != nil {
		return reply.Error
	}
	return nil
}

// pick chooses the server of the topmost mount on path. A server whose mount
// is not in the table lives in another mount namespace; its word has to do.
func pick(live []*Client, path string, mounts []*mountinfo.Info) *Client {
	for i := len(mounts) - 1; i >= 0; i-- {
		for _, c := range live {
			if c.Info.Dev == devName(mounts[i]) {
				return c
			}
		}
		if mounts[i].FSType != "autofs" {
			return nil // something that is not ours covers the rest
		}
	}
	for i := len(live) - 1; i >= 0; i-- {
		if live[i].Info.Target == path {
			return live[i]
		}
	}
	return nil
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
	return fdPath(int(dir.Fd())) + "/" + filepath.Base(path), func() { dir.Close() }, nil
}

// WaitEnd returns when the server closes its control socket, which it does
// after it let go of all layers, or fails after timeout.
func (c *Client) WaitEnd(timeout time.Duration) error {
	c.conn.SetReadDeadline(time.Now().Add(timeout))
	switch _, err := c.lines.ReadByte(); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the server of %s (pid %d) is still running %v after it was unmounted; what it does shows: kill -USR1 %d", c.Info.Target, c.Info.PID, timeout, c.Info.PID)
	case err == nil:
		return fmt.Errorf("the server of %s spoke without being asked", c.Info.Target)
	}
	return nil
}
