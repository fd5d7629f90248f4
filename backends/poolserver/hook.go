package poolserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// Bounds of the hook.
const (
	hookTime  = 30 * time.Second // for one event; then the program is killed
	hookQueue = 256              // events that wait; the oldest give way to new ones
)

// A hook runs the pool's program for events, one at a time, beside the pool, which
// never waits for it.
type hook struct {
	log   *log.Logger
	ready chan struct{}

	mu      sync.Mutex
	queue   []blockpool.Event
	dropped int
}

func newHook(logger *log.Logger) *hook { return &hook{log: logger, ready: make(chan struct{}, 1)} }

// add has the program told of an event.
func (h *hook) add(e blockpool.Event) {
	h.mu.Lock()
	if len(h.queue) == hookQueue {
		h.queue = h.queue[1:]
		h.dropped++
	}
	h.queue = append(h.queue, e)
	h.mu.Unlock()
	select {
	case h.ready <- struct{}{}:
	default:
	}
}

// take returns the next event, and how many before it were dropped.
func (h *hook) take() (e blockpool.Event, dropped int, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) == 0 {
		return e, 0, false
	}
	e, h.queue = h.queue[0], h.queue[1:]
	dropped, h.dropped = h.dropped, 0
	return e, dropped, true
}

// run tells the program of events until ctx ends.
func (h *hook) run(ctx context.Context, pool *blockpool.Pool) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.ready:
		}
		for ctx.Err() == nil {
			e, dropped, ok := h.take()
			if !ok {
				break
			}
			if dropped > 0 {
				h.log.Printf("hook: %d events came faster than it took them", dropped)
			}
			if program := pool.Config().Hook; program != "" {
				if err := runHook(ctx, program, pool, e); err != nil {
					h.log.Printf("hook %s: event %d (%s): %v", program, e.Number, e.Kind, err)
				}
			}
		}
	}
}

// CheckHook refuses what cannot be a hook, which is the absolute path of a program,
// without arguments: the path is kept in the pool, and who opens a pool that
// somebody else made must not run a command line that came with it. For the same
// reason the program must belong to root or the user, and nobody else may be able
// to write it.
func CheckHook(program string) error {
	if program == "" {
		return nil
	}
	if !filepath.IsAbs(program) {
		return fmt.Errorf("hook %q is not an absolute path: %w", program, unix.EINVAL)
	}
	var st unix.Stat_t
	if err := unix.Stat(program, &st); err != nil {
		return fmt.Errorf("hook %s: %w", program, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0:
		return fmt.Errorf("hook %s is not a program: make it executable with: chmod +x %s: %w", program, program, unix.EACCES)
	case st.Uid != 0 && st.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("hook %s belongs to uid %d, not to root or the user of the pool: %w", program, st.Uid, unix.EACCES)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("hook %s can be written by others: run: chmod go-w %s: %w", program, program, unix.EACCES)
	}
	return nil
}

// runHook runs the program for one event: in the environment are LAMINA_POOL,
// LAMINA_POOL_GUID, LAMINA_EVENT (the kind), LAMINA_EVENT_NUMBER,
// LAMINA_EVENT_OBJECT and LAMINA_EVENT_TEXT, and on stdin the event as JSON.
func runHook(ctx context.Context, program string, pool *blockpool.Pool, e blockpool.Event) error {
	if err := CheckHook(program); err != nil {
		return err
	}
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	ctx, done := context.WithTimeout(ctx, hookTime)
	defer done()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, program)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(),
		"LAMINA_POOL="+pool.Config().Name, "LAMINA_POOL_GUID="+pool.GUID().String(),
		"LAMINA_EVENT="+string(e.Kind), fmt.Sprintf("LAMINA_EVENT_NUMBER=%d", e.Number),
		"LAMINA_EVENT_OBJECT="+e.Object, "LAMINA_EVENT_TEXT="+e.Text)
	cmd.Stdin = bytes.NewReader(append(text, '\n'))
	cmd.Stderr = &limited{buf: &said}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("it ran for more than %v and was killed", hookTime)
	case err != nil && said.Len() > 0:
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return err
}

// limited keeps the first bytes of what a program says.
type limited struct{ buf *bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	const most = 1000
	if room := most - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
