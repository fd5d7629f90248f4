package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type question struct{ Op, Arg string }

// serve answers "echo" and refuses all else.
func serve(t *testing.T, path string) *Server {
	t.Helper()
	s, err := Listen(path, func(line []byte) (any, error) {
		var q question
		if err := json.Unmarshal(line, &q); err != nil {
			return nil, err
		}
		if q.Op != "echo" {
			return nil, fmt.Errorf("destroy %s: %w", q.Arg, unix.EBUSY)
		}
		return q.Arg, nil
	}, log.New(io.Discard, "", 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestAnswersAndRefusalsArriveAsTheyWere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool.control")
	serve(t, path)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v (%v), want mode 0600", st.Mode(), err)
	}
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got string
	if err := c.Call("echo", question{"echo", "word"}, &got); err != nil || got != "word" {
		t.Errorf("%q, %v", got, err)
	}
	err = c.Call("destroy", question{"destroy", "vol"}, nil)
	if !errors.Is(err, unix.EBUSY) || err.Error() != "destroy vol: device or resource busy" {
		t.Errorf("a refusal arrives as %v", err)
	}
	if err := c.Call("echo", question{"echo", "again"}, &got); err != nil || got != "again" {
		t.Errorf("after a refusal: %q, %v", got, err)
	}
}

func TestClientNoticesTheEndOfItsServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool.control")
	s := serve(t, path)
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.WaitEnd(10 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("waiting for a server that lives: %v", err)
	}
	s.Close()
	if err := c.WaitEnd(10 * time.Second); err != nil {
		t.Errorf("waiting for one that ended: %v", err)
	}
	if err := c.Call("echo", question{"echo", "x"}, nil); err == nil {
		t.Error("a server that ended has answered")
	}
	if _, err := Dial(path); !errors.Is(err, ErrDeadServer) {
		t.Errorf("connecting to it: %v", err)
	}
}

// A server that comes back under the same name must not lose its socket to a client
// that has met its predecessor.
func TestConnectingToADeadServerMayLeaveItsSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool.control")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close() // as kill -9 leaves it
	if _, err := DialConn(path); !errors.Is(err, ErrDeadServer) {
		t.Errorf("%v, want ErrDeadServer", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket is gone: %v", err)
	}
	s := serve(t, path) // takes its place
	if _, err := DialConn(path); err != nil {
		t.Error(err)
	}
	s.Unlisten()
	next := serve(t, path)
	s.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the end of a server has removed the socket of the next one, %s: %v", next.Path(), err)
	}
}

func TestConnectionsOfAnotherProtocol(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool.control")
	s, err := ListenConns(path, func(conn *net.UnixConn) { io.Copy(conn, conn) }, log.New(io.Discard, "", 0))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := DialConn(path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 5)
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "hello" {
		t.Errorf("%q (%v)", buf, err)
	}
	s.Close() // ends although the client is still there
	if _, err := conn.Read(buf); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}
