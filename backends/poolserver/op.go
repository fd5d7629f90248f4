package poolserver

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// An Op is something that can be asked of a server: its name, the types of its
// arguments and its result, and what the server does.
type Op[A, R any] struct {
	name  string
	files int // how many files come with it
	run   func(*call, A) (R, error)
}

// None is the result or the arguments of what has none.
type None struct{}

// An operation is an [Op] as the server sees it.
type operation interface {
	opName() string
	serve(*call, json.RawMessage) (any, error)
}

func (o Op[A, R]) opName() string { return o.name }

func (o Op[A, R]) serve(c *call, raw json.RawMessage) (any, error) {
	var args A
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, fmt.Errorf("%s: arguments: %w", o.name, err)
		}
	}
	if len(c.files) != o.files {
		return nil, fmt.Errorf("%s: %d files came along, it takes %d: %w", o.name, len(c.files), o.files, unix.EINVAL)
	}
	return o.run(c, args)
}

// Call asks a server and returns what it answers. What it refuses is a
// [control.Error], in which errors.Is finds the errno. When ctx ends the
// connection does, and with it whatever the request was waiting for.
func (o Op[A, R]) Call(ctx context.Context, c *Client, args A, files ...*os.File) (R, error) {
	var result R
	return result, c.call(ctx, o.name, args, &result, files)
}

// A call is a request that is being carried out.
type call struct {
	ctx    context.Context // ends when the client goes away or the server stops
	server *Server
	pool   *blockpool.Pool
	files  []*os.File
	tell   func(Progress) // passes progress on; not too often
}

// A meter passes progress on ten times a second at most.
type meter struct {
	send func(Progress)
	last time.Time
}

func (m *meter) tell(p Progress) {
	if p.Event == nil {
		if time.Since(m.last) < 100*time.Millisecond && (p.Total == 0 || p.Done < p.Total) {
			return
		}
		m.last = time.Now()
	}
	m.send(p)
}
