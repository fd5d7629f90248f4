package poolserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/serve/datasets"
	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/fs/fusefs/control"
	"github.com/laminafs/lamina/fs/fusefs/daemon"
)

// DefaultIdle is how long a server waits for something to do before it ends.
const DefaultIdle = 30 * time.Second

// A Config says which pool to serve and how.
type Config struct {
	Place   Place
	Idle    time.Duration // how long the server waits for something to do; 0: for ever
	Log     *log.Logger   // writes to stderr until the server is in the background
	Version string        // of the program
}

// A Server owns a pool.
type Server struct {
	cfg     Config
	log     *log.Logger
	pool    *blockpool.Pool
	started time.Time

	ctx      context.Context // ends when the server stops
	cancel   context.CancelFunc
	quit     chan struct{} // closed to end it
	activity activity
	work     sync.WaitGroup // requests and the hook; they end before the pool is closed
	jobsWork sync.WaitGroup // jobs, which the end of the pool interrupts
	exports  exports
	datasets *datasets.Mounts
	hook     *hook
	logging  atomic.Bool // events go to the log too

	mu     sync.Mutex
	jobs   map[string]*job // by name
	closed bool            // no request is carried out any more
}

// errStopping refuses what comes too late.
var errStopping = fmt.Errorf("the server of the pool is stopping: %w", unix.ESHUTDOWN)

// Started is what a server that was started in the background tells.
type Started struct {
	PID int `json:"pid"`
	// Lost says that another process has the pool: it is that one's to serve.
	Lost bool `json:"lost,omitempty"`
}

// Serve opens a pool and serves it until it is told to stop, by a request or by
// SIGTERM, SIGINT or SIGHUP, or has had nothing to do for a while. A signal is
// refused, with a line in the log, while somebody uses an export; a second one
// within ten seconds ends the server all the same. In a process started by
// [daemon.Start] an error of opening goes to the parent.
func Serve(cfg Config) error {
	parent := daemon.TakeParent()
	daemon.Prepare()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer signal.Stop(signals)

	var s *Server
	err := cfg.Place.becomeOwner()
	if err == nil {
		s, err = open(cfg, parent != nil)
	}
	switch {
	case errors.Is(err, blockpool.ErrInUse) && parent != nil:
		parent.Ready(Started{Lost: true}) // fails when the client is gone, which is as good
		return nil
	case err != nil && parent != nil && parent.Fail(err) == nil:
		os.Exit(1)
	case err != nil:
		return err
	}
	socket, err := control.ListenConns(cfg.Place.socket(), s.serveConn, s.log)
	if err != nil {
		err = errors.Join(err, s.pool.Close())
		if parent != nil && parent.Fail(err) == nil {
			os.Exit(1)
		}
		return err
	}
	if parent != nil {
		leave, err := daemon.Detach(s.log, daemon.Place{Beside: cfg.Place.beside()})
		if err != nil {
			s.log.Printf("stay in the foreground: %v", err)
			leave = func() {}
		}
		defer leave()
		s.logging.Store(true)
		for _, e := range s.pool.Events(0) {
			if e.Time.After(s.started) { // the pool keeps older ones
				s.logEvent(e)
			}
		}
	}
	s.restoreExports()
	if parent != nil {
		// A client that is gone is no reason to end: the pool is open, and the
		// next one is served.
		parent.Ready(Started{PID: os.Getpid()})
	}
	s.activity.begin(cfg.Idle, s.underWay, func() { close(s.quit) })
	s.await(signals)
	return s.end(socket)
}

// open opens the pool. In the background events are not logged before the server has
// a log of its own: until then stderr is that of the client, which asked for
// something else.
func open(cfg Config, background bool) (*Server, error) {
	s := &Server{cfg: cfg, log: cfg.Log, started: time.Now(), quit: make(chan struct{}), jobs: map[string]*job{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.exports.list = map[string]*export{}
	s.hook = newHook(s.log)
	s.logging.Store(!background)
	pool, err := blockpool.Open(cfg.Place.Dir, blockpool.OpenOptions{
		SearchDevices: cfg.Place.Files(),
		Listen:        s.event,
	})
	if err != nil {
		s.cancel()
		return nil, err
	}
	s.pool, s.datasets = pool, datasets.New(pool, s.log)
	s.sweepLooks()
	s.work.Go(func() { s.hook.run(s.ctx, pool) })
	return s, nil
}

// event passes an event on.
func (s *Server) event(e blockpool.Event) {
	if s.logging.Load() {
		s.logEvent(e)
	}
	s.hook.add(e)
}

// logEvent logs what somebody should see.
func (s *Server) logEvent(e blockpool.Event) {
	switch e.Kind {
	case blockpool.EventFailed, blockpool.EventDamaged, blockpool.EventDevice, blockpool.EventReplica, blockpool.EventFull:
		s.log.Printf("%s: %s %s", e.Kind, e.Object, e.Text)
	}
}

// await returns when the server is to end.
func (s *Server) await(signals <-chan os.Signal) {
	var last time.Time
	for {
		select {
		case <-s.quit:
			return
		case sig := <-signals:
			force := time.Since(last) < 10*time.Second
			last = time.Now()
			if err := s.stop(force); err != nil {
				s.log.Printf("%v: %v; a second signal within 10 s ends the server all the same", sig, err)
			}
		}
	}
}

// stop has the server end, unless somebody uses an export. With force that one
// loses it.
func (s *Server) stop(force bool) error {
	if err := s.exports.closeAll(force); err != nil {
		return fmt.Errorf("stop the server of pool %s: %w", s.pool.Config().Name, err)
	}
	if s.activity.stop() {
		close(s.quit)
	}
	return nil
}

// end lets go of everything, the lock of the pool after the socket and before the
// clients, who wait for that.
func (s *Server) end(socket *control.Server) error {
	s.activity.stop()
	socket.Unlisten()
	s.cancel()
	s.forget()
	s.exports.closeAll(true)
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.work.Wait()
	err := s.letGo()
	if err != nil {
		s.log.Printf("close pool: %v", err)
	}
	socket.Close()
	return err
}

// letGo closes the pool, or, while somebody still uses an export that was taken
// from them by force, makes everything durable: the end of the process closes the
// pool then.
func (s *Server) letGo() error {
	if len(s.exports.all()) == 0 {
		err := s.pool.Close()
		s.jobsWork.Wait()
		return err
	}
	return s.pool.Sync(context.Background())
}

// serveConn serves one client.
func (s *Server) serveConn(conn *net.UnixConn) {
	if !s.activity.enter() {
		return
	}
	defer s.activity.leave()
	if send(conn, Greeting{Protocol: ProtocolVersion, Version: s.cfg.Version, PID: os.Getpid()}) != nil {
		return
	}
	ctx, gone := context.WithCancel(s.ctx)
	defer gone()
	type received struct {
		line  []byte
		files []*os.File
	}
	requests := make(chan received)
	go func() { // notices the end of the client while a request is carried out
		defer close(requests)
		defer gone()
		w := &wire{conn: conn}
		defer w.close()
		for {
			line, files, err := w.next()
			if err != nil {
				return
			}
			requests <- received{line, files}
		}
	}()
	defer func() {
		conn.CloseRead()
		for r := range requests {
			closeAll(r.files)
		}
	}()
	for r := range requests {
		a := s.answer(ctx, conn, r.line, r.files)
		closeAll(r.files)
		if send(conn, a) != nil {
			return
		}
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// answer carries out one request.
func (s *Server) answer(ctx context.Context, conn *net.UnixConn, line []byte, files []*os.File) answer {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return answer{Error: control.NewError(errStopping)}
	}
	s.work.Add(1)
	s.mu.Unlock()
	defer s.work.Done()
	result, err := s.carryOut(ctx, conn, line, files)
	if errors.Is(err, context.Canceled) && s.ctx.Err() != nil {
		err = errStopping
	}
	if err == nil {
		var raw []byte
		if raw, err = json.Marshal(result); err == nil {
			return answer{Result: raw}
		}
	}
	return answer{Error: control.NewError(err)}
}

func (s *Server) carryOut(ctx context.Context, conn *net.UnixConn, line []byte, files []*os.File) (any, error) {
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("a request is one JSON object per line: %w", err)
	}
	for _, o := range operations {
		if o.opName() == r.Op {
			m := &meter{send: func(p Progress) {
				send(conn, answer{Progress: &p}) // who does not hear of it is gone
			}}
			return o.serve(&call{ctx: ctx, server: s, pool: s.pool, files: files, tell: m.tell}, r.Args)
		}
	}
	return nil, fmt.Errorf("unknown operation %q: %w; this server is of lamina %s: restart it with: lamina pool stop %s", r.Op, unix.EOPNOTSUPP, s.cfg.Version, s.cfg.Place.Name())
}
