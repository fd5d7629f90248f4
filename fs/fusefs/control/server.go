package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// MaxLine bounds a request in bytes: an operation and a path or two. A longer
// one ends its connection.
const MaxLine = 64 << 10

// A Handler carries out one request, a JSON object, and returns what goes back
// as JSON. It is called for several connections at once.
type Handler func(request []byte) (result any, err error)

// A Server answers on one socket.
type Server struct {
	serve func(*net.UnixConn)
	log   *log.Logger

	path     string
	listener *net.UnixListener

	unlisten sync.Once

	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[*net.UnixConn]struct{} // nil once closed
}

// Listen makes a socket at path, mode 0600, in the place of any that was there,
// and answers on it until Close. Whoever must not replace a live server finds
// out by [Dial] first, under a lock of its own.
func Listen(path string, handle Handler, logger *log.Logger) (*Server, error) {
	return ListenConns(path, func(conn *net.UnixConn) { answer(conn, handle) }, logger)
}

// ListenConns is [Listen] for protocols of their own: serve has each connection of
// somebody who may connect to itself, and ends when its side for reading is
// closed. The connection is closed when serve returns.
func ListenConns(path string, serve func(*net.UnixConn), logger *log.Logger) (*Server, error) {
	s := &Server{serve: serve, log: logger, path: path, conns: make(map[*net.UnixConn]struct{})}
	if err := s.listen(); err != nil {
		return nil, fmt.Errorf("make the control socket %s: %w", s.path, err)
	}
	s.wg.Go(s.accept)
	return s, nil
}

// Path returns where the socket is.
func (s *Server) Path() string { return s.path }

// listen makes the socket appear under its name only when it can be connected
// to: others remove sockets that refuse them.
func (s *Server) listen() error {
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

// Unlisten removes the socket. Connections go on.
func (s *Server) Unlisten() {
	s.unlisten.Do(func() {
		os.Remove(s.path)
		s.listener.Close()
	})
}

// Close removes the socket, ends all connections and waits for them.
func (s *Server) Close() {
	s.Unlisten()
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

func (s *Server) accept() {
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
		s.wg.Go(func() {
			defer s.forget(conn)
			s.serve(conn)
		})
	}
}

// admit checks who connects and remembers the connection.
func (s *Server) admit(conn *net.UnixConn) bool {
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
	case uid == os.Geteuid(), uid == 0, uid == overflowUID && InUserNamespace():
		return nil
	}
	return fmt.Errorf("refused pid %d of uid %d", cred.Pid, cred.Uid)
}

func (s *Server) forget(conn *net.UnixConn) {
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
	conn.Close()
}

// answer has each line of a connection answered by one line.
func answer(conn *net.UnixConn, handle Handler) {
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, MaxLine)
	for lines.Scan() {
		var reply reply
		if result, err := handle(lines.Bytes()); err != nil {
			reply.Error = NewError(err)
		} else {
			reply.Result = result
		}
		if err := json.NewEncoder(conn).Encode(reply); err != nil {
			return // the client went away
		}
	}
}
