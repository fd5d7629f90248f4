package fusefs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"

	"github.com/laminafs/lamina/fs/fusefs/control"
	"github.com/laminafs/lamina/fs/fusefs/daemon"
)

// A Client talks to the server of one mount. Its methods may not be called side
// by side.
type Client struct {
	Info Info // as of the time of connecting

	socket *control.Client
}

// dialSocket connects and asks who is there.
func dialSocket(path string) (*Client, error) {
	socket, err := control.Dial(path)
	if errors.Is(err, control.ErrDeadServer) {
		daemon.RemoveCrash(strings.TrimSuffix(path, socketSuffix))
	}
	if err != nil {
		return nil, err
	}
	c := &Client{socket: socket}
	if err := c.call(controlRequest{Op: opInfo}, &c.Info); err != nil {
		c.Close()
		return nil, fmt.Errorf("ask the server behind %s: %w", path, err)
	}
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.socket.Close() }

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

// AddLower puts a directory among the lowers, see [Layered].
func (c *Client) AddLower(index int, path string) error {
	path, err := fromHere(path)
	if err != nil {
		return err
	}
	return c.call(controlRequest{Op: opAddLower, Index: index, Path: path}, nil)
}

// DelLower takes a lower out, see [Layered]. The path is as [Client.Layers]
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

// Trace returns the requests after a number, which the last event of the answer
// before has; none when there were none for a second. Asking again and again
// keeps the recording up.
func (c *Client) Trace(after uint64) ([]TraceEvent, error) {
	var events []TraceEvent
	return events, c.call(controlRequest{Op: opTrace, After: after}, &events)
}

// Metrics returns the counters in the text format of Prometheus.
func (c *Client) Metrics() (string, error) {
	var text string
	return text, c.call(controlRequest{Op: opMetrics}, &text)
}

// Unmount makes the server unmount itself and end.
func (c *Client) Unmount(lazy bool) error {
	return c.call(controlRequest{Op: opUnmount, Lazy: lazy}, nil)
}

// call sends a request and decodes the result. What the server refuses is a
// [control.Error].
func (c *Client) call(req controlRequest, result any) error {
	return c.socket.Call(req.Op, req, result)
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

// glance is how long a server has to end before its client looks for what keeps it.
const glance = 250 * time.Millisecond

// WaitEnd returns when the server of a mount that was taken away closes its control
// socket, which it does after it let go of all that it served from, or fails after
// timeout. An [ElsewhereError] tells that another mount namespace has the mount still.
func (c *Client) WaitEnd(timeout time.Duration) error {
	err := c.socket.WaitEnd(min(glance, timeout))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if err := Elsewhere(c.Info.Dev, c.Info.Target); err != nil {
			return err
		}
		err = c.socket.WaitEnd(timeout - glance)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the server of %s (pid %d) is still running %v after it was unmounted, for a mount namespace of another user, or because it hangs; what it does shows: kill -USR1 %d", c.Info.Target, c.Info.PID, timeout, c.Info.PID)
	}
	if err != nil {
		return fmt.Errorf("wait for the server of %s: %w", c.Info.Target, err)
	}
	return nil
}
