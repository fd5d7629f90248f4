package poolserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/blocks"
	"github.com/laminafs/lamina/backends/nbd"
	"github.com/laminafs/lamina/backends/serve"
	"github.com/laminafs/lamina/backends/serve/datasets"
	"github.com/laminafs/lamina/fs/fusefs"
)

// The kinds of exports.
const (
	ExportFUSE = "fuse" // a directory with all volumes as files
	ExportNBD  = "nbd"  // a socket

	ExportDataset = "dataset" // a mounted dataset
)

// ExportInfo tells of an export.
type ExportInfo struct {
	Kind   string       `json:"kind"`
	Target string       `json:"target"`           // the directory or the socket
	Volume string       `json:"volume,omitempty"` // the only one; empty: all
	InUse  int          `json:"in_use"`           // open files, or clients
	Loops  []serve.Loop `json:"loops,omitempty"`  // devices over its files
	// Private says that the server chose the place, for loop devices.
	Private bool `json:"private,omitempty"`
}

// An export is a mount or a socket that is served.
type export struct {
	kind, target, volume string
	private, allowOther  bool
	options              []string        // of the mount of a dataset, as they were asked for
	mount                *datasets.Mount // nil: it is none of a dataset
	dev                  string          // of a mount, as the mount table has it
	remade               bool            // it is one of a server before, and nobody has asked for it since

	inUse func() int
	loops func() []serve.Loop
	close func(force bool) error // begins to end it; EBUSY while it is in use, unless forced
	ended chan struct{}          // closed when nothing of the pool is open through it
	gone  chan struct{}          // closed when it is not listed and not remembered any more
}

// closeTime is how long an export that ends is waited for: requests that are being
// handled. One that was forced while its files are open ends with the server.
const closeTime = 5 * time.Second

func (e *export) info() ExportInfo {
	volume := e.volume
	if e.mount != nil {
		volume = e.mount.Dataset() // it may have another name by now
	}
	return ExportInfo{Kind: e.kind, Target: e.target, Volume: volume, InUse: e.inUse(), Loops: e.loops(), Private: e.private}
}

// forLoops reports whether an export shows files where only loop devices look for them:
// it keeps the server alive while it is in use, and no longer.
func (e *export) forLoops() bool { return e.private && e.kind == ExportFUSE }

// end closes an export and waits until nobody is told of it any more.
func (e *export) end(force bool) error {
	if err := e.close(force); err != nil {
		return err
	}
	select {
	case <-e.gone:
		return nil
	case <-time.After(closeTime):
		if force {
			return nil
		}
		return fmt.Errorf("%s is still in use: %w", e.target, unix.EBUSY)
	}
}

// busy says who keeps an export from ending, or nil. A client that has ended is one
// until its server has heard of that, which is waited for.
func (e *export) busy() error {
	if e.kind == ExportNBD {
		for end := time.Now().Add(time.Second); e.inUse() > 0 && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
	}
	n, loops := e.inUse(), e.loops()
	switch {
	case n == 0:
		return nil
	case e.kind == ExportNBD:
		return fmt.Errorf("%s has %d clients: %w; disconnect them, or use --force", e.target, n, unix.EBUSY)
	case len(loops) > 0:
		return fmt.Errorf("%s is used by %s: %w; first run: %s", e.target, loops[0], unix.EBUSY, loops[0].Release())
	}
	return fmt.Errorf("%s has %d open files: %w; see who uses it with: fuser -vm %s", e.target, n, unix.EBUSY, e.target)
}

// exports are those of a server, by target.
type exports struct {
	making sync.Mutex // one is made at a time

	mu   sync.Mutex
	list map[string]*export
	dead []serve.Loop // loop devices of a server before that are in use

	saving sync.Mutex
	over   bool // the server ends: none is to be made again
}

func (x *exports) add(e *export) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.list[e.target] = e
}

func (x *exports) remove(e *export) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.list, e.target)
}

func (x *exports) get(target string) *export {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.list[target]
}

// all returns the exports by target.
func (x *exports) all() []*export {
	x.mu.Lock()
	defer x.mu.Unlock()
	var list []*export
	for _, e := range x.list {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *export) int { return cmp.Compare(a.target, b.target) })
	return list
}

// closeAll ends all exports. Without force it ends none when one is in use.
func (x *exports) closeAll(force bool) error {
	if !force {
		for _, e := range x.all() {
			if err := e.busy(); err != nil {
				return err
			}
		}
	}
	var errs []error
	for _, e := range x.all() {
		errs = append(errs, e.end(force))
	}
	return errors.Join(errs...)
}

// export makes one at target, by start, which fills in its functions.
func (s *Server) export(e *export, start func(*export) error) error {
	s.exports.making.Lock()
	defer s.exports.making.Unlock()
	if !filepath.IsAbs(e.target) {
		return fmt.Errorf("export to %q: the path must be absolute: %w", e.target, unix.EINVAL)
	}
	if there := s.exports.get(e.target); there != nil {
		if there.sameAs(e) && s.exports.claim(there) {
			return nil
		}
		return fmt.Errorf("export to %s: the pool is exported there already: %w", e.target, unix.EEXIST)
	}
	leave := s.activity.leave
	if !s.activity.enter() {
		return errStopping
	}
	e.ended, e.gone = make(chan struct{}), make(chan struct{})
	if err := start(e); err != nil {
		leave()
		return fmt.Errorf("export to %s: %w", e.target, err)
	}
	s.exports.add(e)
	s.remember()
	if e.forLoops() {
		leave() // looked at by underWay
		leave = func() {}
	}
	go func() {
		<-e.ended
		s.exports.remove(e)
		s.remember()
		close(e.gone)
		leave()
	}()
	return nil
}

// mount shows all volumes as files in the directory target.
func (s *Server) mount(target string, private, allowOther bool) error {
	return s.export(&export{kind: ExportFUSE, target: target, private: private, allowOther: allowOther}, func(e *export) error {
		m, err := serve.MountVolumes(serve.VolumesConfig{
			Volumes: blocks.Volumes{Pool: s.pool}, Target: target, Source: s.pool.Config().Name, AllowOther: allowOther, Log: s.log,
		})
		if err != nil {
			return err
		}
		info := m.Info()
		e.dev = info.Dev
		info.Version = s.cfg.Version
		leave, err := fusefs.Attend(m, info, s.log, true)
		if err != nil {
			err = errors.Join(err, m.Unmount(true), m.Wait())
			leave()
			return err
		}
		e.inUse = func() int { return int(m.Counters().OpenFiles) }
		e.loops = m.Loops
		e.close = m.Unmount
		go func() {
			if err := m.Wait(); err != nil {
				s.log.Printf("%s: %v", target, err)
			}
			leave()
			if private {
				os.Remove(target) // fails where somebody has mounted something over it
			}
			close(e.ended)
		}()
		return nil
	})
}

// listen serves volumes over NBD on a socket: all, or the one that is named.
func (s *Server) listen(target, volume string) error {
	if volume != "" {
		if _, err := s.pool.Volume(volume); err != nil {
			return fmt.Errorf("export to %s: %w", target, err)
		}
	}
	return s.export(&export{kind: ExportNBD, target: target, volume: volume}, func(e *export) error {
		ln, err := listenPrivately(target)
		if err != nil {
			return err
		}
		names := &blocks.Named{Pool: s.pool, Only: volume}
		ctx, stop := context.WithCancel(context.Background())
		e.inUse, e.loops = names.Clients, func() []serve.Loop { return nil }
		e.close = func(force bool) error {
			if err := e.busy(); err != nil && !force {
				return err
			}
			stop()
			return nil
		}
		go func() {
			server := nbd.Server{Exports: names, Log: s.log, ShutdownTimeout: closeTime / 2}
			if err := server.Serve(ctx, ln); err != nil {
				s.log.Printf("%s: %v", target, err)
			}
			stop()
			close(e.ended)
		}()
		return nil
	})
}

// listenPrivately makes a socket that only its owner may connect to. The mode is
// that of the descriptor before it is bound (unix_bind_bsd in net/unix/af_unix.c),
// so at no time is it another. A socket that nobody listens on any more gives way.
func listenPrivately(path string) (net.Listener, error) {
	if st, err := os.Lstat(path); err == nil {
		if st.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("%w: it is no socket", unix.EEXIST)
		}
		if conn, err := net.Dial("unix", path); err == nil {
			conn.Close()
			return nil, fmt.Errorf("%w: somebody listens there", unix.EADDRINUSE)
		}
		os.Remove(path)
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	return config.Listen(context.Background(), "unix", path)
}
