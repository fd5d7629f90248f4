package fusefs

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Controller is a mounted union as the control socket needs it: [Control],
// and a way to end it.
type Controller interface {
	Control
	Unmount(lazy bool) error
}

// A ControlServer answers on the control socket of one mounted union.
type ControlServer struct {
	union Controller
	info  Info
	log   *log.Logger

	path     string
	listener *net.UnixListener

	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[*net.UnixConn]struct{} // nil once closed
}

// ListenControl makes the control socket of a mounted union, in the directory
// of this user where [Live] and [Dial] find it, and answers on it until Close.
func ListenControl(union Controller, info Info, logger *log.Logger) (*ControlServer, error) {
	dir, err := runtimeDir()
	if err != nil {
		return nil, err
	}
	s := &ControlServer{
		union: union, info: info, log: logger,
		path:  filepath.Join(dir, info.Dev+socketSuffix),
		conns: make(map[*net.UnixConn]struct{}),
	}
	if err := s.listen(); err != nil {
		return nil, fmt.Errorf("make the control socket %s: %w", s.path, err)
	}
	s.wg.Go(s.accept)
	return s, nil
}

// listen makes the socket appear under its name only when it can be connected
// to: others remove sockets that refuse them.
func (s *ControlServer) listen() error {
	staged := fmt.Sprintf("%s.%d.new", s.path, os.Getpid())
	short, done, err := shortPath(staged)
	if err != nil {
		return err
	}
	defer done()
	os.Remove(staged) // of an earlier process with this pid
	s.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return err
	}
	s.listener.SetUnlinkOnClose(false) // the name changes
	if err = os.Chmod(staged, 0o600); err == nil {
		err = os.Rename(staged, s.path)
	}
	if err != nil {
		s.listener.Close()
		os.Remove(staged)
	}
	return err
}

// Close removes the socket, ends all connections and waits for them.
func (s *ControlServer) Close() {
	os.Remove(s.path)
	s.listener.Close()
	s.mu.Lock()
	for conn := range s.conns {
		// Only the way in: whoever asked for the unmount that ends the server
		// still gets the answer.
		conn.SetWriteDeadline(time.Now().Add(time.Second))
		conn.CloseRead()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *ControlServer) accept() {
	for {
		conn, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, say: this one client hears nothing
			s.log.Printf("control socket: %v", err)
			continue
		}
		if !s.admit(conn) {
			conn.Close()
			continue
		}
		s.wg.Go(func() { s.serve(conn) })
	}
}

// admit checks who connects and remembers the connection.
func (s *ControlServer) admit(conn *net.UnixConn) bool {
	if err := checkPeer(conn); err != nil {
		s.log.Printf("control socket: %v", err)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[conn] = struct{}{}
	return true
}

// checkPeer lets in the user who runs the server and root.
//
// Inside of a user namespace the host's root has no number and shows as the
// overflow uid. So does every other user outside, but those cannot get past the
// directory of the socket, which is closed to all but its owner.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return os.NewSyscallError("SO_PEERCRED", credErr)
	}
	const overflowUID = 65534
	switch uid := int(cred.Uid); {
	case uid == os.Geteuid(), uid == 0, uid == overflowUID && inUserNamespace():
		return nil
	}
	return fmt.Errorf("refused pid %d of uid %d", cred.Pid, cred.Uid)
}

func (s *ControlServer) serve(conn *net.UnixConn) {
	defer func() {
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
		conn.Close()
	}()
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxControlLine)
	for lines.Scan() {
		var reply controlReply
		if result, err := s.answer(lines.Bytes()); err != nil {
			reply.Error = newControlError(err)
		} else {
			reply.Result = result
		}
		if err := json.NewEncoder(conn).Encode(reply); err != nil {
			return // the client went away
		}
	}
}

// answer carries out one request.
func (s *ControlServer) answer(line []byte) (any, error) {
	var req controlRequest
	if err := json.Unmarshal(line, &req); err != nil {
		return nil, fmt.Errorf("a request is one JSON object per line: %w", err)
	}
	switch req.Op {
	case opInfo:
		return s.info, nil
	case opCounters:
		return s.union.Counters(), nil
	case opLayers:
		return s.union.Layers(), nil
	case opOptions:
		return s.union.Options(), nil
	case opAddLower:
		if !filepath.IsAbs(req.Path) {
			return nil, fmt.Errorf("add %q: %w; the path must be absolute, the server has a working directory of its own", req.Path, unix.EINVAL)
		}
		return nil, named("add lower", req.Path, s.union.AddLower(req.Index, req.Path))
	case opDelLower:
		return nil, named("remove lower", req.Path, s.delLower(req.Path))
	case opMod:
		return nil, setReadOnly(s.info.Target, req.ReadOnly)
	case opUnmount:
		return nil, s.union.Unmount(req.Lazy)
	}
	return nil, fmt.Errorf("unknown operation %q (%w); known: info, counters, layers, options, add-lower, del-lower, mod, unmount", req.Op, unix.EOPNOTSUPP)
}

// named adds operation and object to an error that is nothing but an errno.
func named(op, path string, err error) error {
	if errno, ok := err.(unix.Errno); ok {
		return &os.PathError{Op: op, Path: path, Err: errno}
	}
	return err
}

// delLower finds the lower that was meant: users may write its path in another
// way than it was mounted with.
func (s *ControlServer) delLower(path string) error {
	err := s.union.DelLower(path)
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	wanted, statErr := os.Stat(path)
	if statErr != nil {
		return err
	}
	for _, l := range s.union.Layers() {
		if l.Role == RoleUpper || l.Path == path {
			continue
		}
		if is, statErr := os.Stat(l.Path); statErr == nil && os.SameFile(is, wanted) {
			return s.union.DelLower(l.Path)
		}
	}
	return err
}
