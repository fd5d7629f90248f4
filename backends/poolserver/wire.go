package poolserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs/control"
)

// ProtocolVersion grows when clients and servers of different versions would
// misunderstand each other.
const ProtocolVersion = 1

// A Greeting is the first thing that a server says.
type Greeting struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"` // of the program
	PID      int    `json:"pid"`
}

// A request is one line to the server.
type request struct {
	Op   string          `json:"op"`
	Args json.RawMessage `json:"args,omitempty"`
}

// An answer is one line from it: how far it has come, or the end.
type answer struct {
	Progress *Progress       `json:"progress,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Error    *control.Error  `json:"error,omitempty"`
}

// Progress tells how far long work has come.
type Progress struct {
	Done  int64  `json:"done"`            // in bytes, unless Text says what else
	Total int64  `json:"total,omitempty"` // 0: not known
	Text  string `json:"text,omitempty"`  // what is being done
	// Event is set by what follows events: each is progress of its own.
	Event any `json:"event,omitempty"`
}

// Bounds of a request.
const (
	maxRequest = 1 << 20
	maxFiles   = 4
)

var errTooLong = errors.New("a request is one line of at most 1M")

// A wire reads requests and the files that come with them.
type wire struct {
	conn  *net.UnixConn
	buf   []byte // read and not yet returned
	files []*os.File
}

// next returns the next line and the files that came with it or before it, which
// are the caller's to close.
func (w *wire) next() (line []byte, files []*os.File, err error) {
	for {
		if i := bytes.IndexByte(w.buf, '\n'); i >= 0 {
			line, w.buf = w.buf[:i], w.buf[i+1:]
			files, w.files = w.files, nil
			return line, files, nil
		}
		if len(w.buf) > maxRequest {
			return nil, nil, errTooLong
		}
		if err := w.fill(); err != nil {
			return nil, nil, err
		}
	}
}

// fill reads what has come.
func (w *wire) fill() error {
	data, rights := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(maxFiles*4))
	n, oobn, flags, _, err := w.conn.ReadMsgUnix(data, rights)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:oobn])
	if err != nil {
		return fmt.Errorf("files of a request: %w", err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // something else, that nobody asked for
		}
		for _, fd := range fds { // close-on-exec: see net.(*UnixConn).ReadMsgUnix
			w.files = append(w.files, os.NewFile(uintptr(fd), "stream"))
		}
	}
	if flags&unix.MSG_CTRUNC != 0 || len(w.files) > maxFiles {
		return fmt.Errorf("a request has more than %d files", maxFiles)
	}
	if n == 0 {
		return io.EOF
	}
	w.buf = append(w.buf, data[:n]...)
	return nil
}

// close gives back files that nobody took.
func (w *wire) close() {
	for _, f := range w.files {
		f.Close()
	}
}

// send writes a line, and files along with its first byte.
func send(conn *net.UnixConn, v any, files ...*os.File) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		n, _, err := conn.WriteMsgUnix(line, unix.UnixRights(fds...), nil)
		if err != nil {
			return err
		}
		line = line[n:]
	}
	_, err = conn.Write(line)
	return err
}
