package poolserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A stream is a file of a client's that is read or written until its context
// ends: the client is then gone, and nobody may be at the other end of a pipe.
type stream struct {
	*os.File
	regular bool
	stop    func() bool
}

// openStream makes a stream of a file that came with a request.
//
// A pipe is opened anew, so that it can be given up while it is waited for: the
// file that came is the same open file that the client has and maybe others, and
// they would be surprised by O_NONBLOCK.
func openStream(ctx context.Context, f *os.File, flags int) (*stream, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("look at the stream: %w", err)
	}
	s := &stream{File: f, regular: st.Mode&unix.S_IFMT == unix.S_IFREG, stop: func() bool { return true }}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return nil, fmt.Errorf("the stream is a directory: %w", unix.EISDIR)
	case unix.S_IFIFO:
		own, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), flags|unix.O_NONBLOCK, 0)
		if err != nil {
			return s, nil // somebody else's pipe: its end must do
		}
		s.File = own
		s.stop = context.AfterFunc(ctx, func() { own.SetDeadline(time.Unix(1, 0)) })
	}
	return s, nil
}

// end lets go of the stream; the file that came is closed by who took it.
func (s *stream) end(came *os.File) {
	s.stop()
	if s.File != came {
		s.File.Close()
	}
}

// withInput runs f with the stream that came as file number i of the call, for
// reading.
func (c *call) withInput(i int, f func(io.Reader) error) error {
	s, err := openStream(c.ctx, c.files[i], os.O_RDONLY)
	if err != nil {
		return err
	}
	defer s.end(c.files[i])
	return c.streamError(f(contextReader{c.ctx, s}))
}

// withOutput is withInput for writing.
func (c *call) withOutput(i int, f func(*stream) error) error {
	s, err := openStream(c.ctx, c.files[i], os.O_WRONLY)
	if err != nil {
		return err
	}
	defer s.end(c.files[i])
	return c.streamError(f(s))
}

// streamError tells the end of the client from an end of time.
func (c *call) streamError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	return err
}

// contextReader stops between two reads when the context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// A sparseWriter writes to a stream and leaves holes where there are zeros, if the
// stream is a regular file that has nothing there yet.
type sparseWriter struct {
	s    *stream
	at   int64 // where the next byte goes
	end  int64 // of what the file had; beyond it there are only holes
	hole bool  // it may have holes
}

func newSparseWriter(s *stream) *sparseWriter {
	w := &sparseWriter{s: s}
	flags, err := unix.FcntlInt(s.Fd(), unix.F_GETFL, 0)
	if !s.regular || err != nil || flags&unix.O_APPEND != 0 {
		return w
	}
	st, err := s.Stat()
	if err != nil {
		return w
	}
	if w.at, err = s.Seek(0, io.SeekCurrent); err == nil {
		w.hole, w.end = true, st.Size()
	}
	return w
}

func (w *sparseWriter) Write(p []byte) (int, error) {
	if !w.hole {
		return w.s.Write(p)
	}
	if w.at >= w.end && isZero(p) {
		w.at += int64(len(p))
		return len(p), nil
	}
	n, err := w.s.WriteAt(p, w.at)
	w.at += int64(n)
	return n, err
}

// zeros is Write of n zeros that need not be there.
func (w *sparseWriter) zeros(n int64) error {
	if w.hole && w.at >= w.end {
		w.at += n
		return nil
	}
	buf := make([]byte, min(n, 1<<20))
	for n > 0 {
		m, err := w.Write(buf[:min(n, int64(len(buf)))])
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}

// close gives a file its size, holes at the end included, and leaves its position
// there, as who goes on writing to it expects.
func (w *sparseWriter) close() error {
	if !w.hole {
		return nil
	}
	if w.at > w.end {
		if err := w.s.Truncate(w.at); err != nil {
			return err
		}
	}
	_, err := w.s.Seek(w.at, io.SeekStart)
	return err
}

func isZero(p []byte) bool {
	for len(p) >= 8 {
		if p[0]|p[1]|p[2]|p[3]|p[4]|p[5]|p[6]|p[7] != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
