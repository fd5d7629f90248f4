package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Serve serves exports to whoever connects to a listener, with the default
// limits. See [Server.Serve].
func Serve(ctx context.Context, ln net.Listener, exports Exports) error {
	return (&Server{Exports: exports}).Serve(ctx, ln)
}

// A Server serves exports. Of a limit that is 0 the default is taken.
type Server struct {
	Exports Exports
	Log     *log.Logger // nil: the standard logger

	// MaxConns is how many connections are served at once, 64 by default.
	// Others are closed as soon as they are made.
	MaxConns int
	// MaxInFlight is how many requests of one connection are handled at once,
	// 128 by default; the rest waits in the socket.
	MaxInFlight int
	// MaxRequest is how many bytes one request may read or write, 32 MiB by
	// default, from 64 KiB to 1 GiB, and at the same time what one connection may
	// have in memory.
	MaxRequest int
	// MaxMemory is how many bytes of data all connections together may have in
	// memory, 256 MiB by default, no less than MaxRequest.
	MaxMemory int64

	// HandshakeTimeout is the time for all of the negotiation, 10 s by default.
	HandshakeTimeout time.Duration
	// Timeout is the time for a client to send the rest of a request that it
	// has begun, or to take the replies that it has asked for, 1 min by default.
	Timeout time.Duration
	// ShutdownTimeout is the time for requests that are being handled when the
	// server is stopped, 10 s by default; then the context that their Blocks
	// see is cancelled.
	ShutdownTimeout time.Duration
}

// A server is a Server that serves: its limits are set, and connections share
// the memory.
type server struct {
	Server
	memory *budget
}

// Bounds of Server.MaxRequest. The lower one is what the protocol asks of reads
// with DF.
const (
	leastRequest = 64 << 10
	mostRequest  = 1 << 30
)

func newServer(s *Server) *server {
	c := &server{Server: *s}
	if c.Log == nil {
		c.Log = log.Default()
	}
	setDefault(&c.MaxConns, 64)
	setDefault(&c.MaxInFlight, 128)
	setDefault(&c.MaxRequest, 32<<20)
	c.MaxRequest = min(max(c.MaxRequest, leastRequest), mostRequest)
	setDefault(&c.MaxMemory, 256<<20)
	c.MaxMemory = max(c.MaxMemory, int64(capacity(c.MaxRequest)))
	setDefault(&c.HandshakeTimeout, 10*time.Second)
	setDefault(&c.Timeout, time.Minute)
	setDefault(&c.ShutdownTimeout, 10*time.Second)
	c.memory = newBudget(c.MaxMemory)
	return c
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Serve serves connections until the context is cancelled or the listener
// fails, and closes the listener. Requests that have been read are then handled
// and answered, later ones get ESHUTDOWN as far as they have arrived, and the
// connections are closed. It returns when no Block is in use any more: nil after
// a cancelled context, else what ended the listener.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return newServer(s).serve(ctx, ln)
}

func (s *server) serve(ctx context.Context, ln net.Listener) error {
	// stopping is the wish to end, ended the end of patience.
	stopping, stop := context.WithCancel(ctx)
	defer stop()
	ended, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	defer context.AfterFunc(stopping, func() { ln.Close() })()

	var conns sync.WaitGroup
	err := s.accept(stopping, ln, &conns, func(c net.Conn) {
		if err := s.serveConn(stopping, ended, c); err != nil {
			s.Log.Printf("nbd: connection ended: %v", err)
		}
	})
	stop()
	patience := time.AfterFunc(s.ShutdownTimeout, func() { end(ESHUTDOWN) })
	defer patience.Stop()
	conns.Wait()
	return err
}

// accept hands connections to serve, each in a goroutine of conns, until the
// context is cancelled or the listener fails.
func (s *server) accept(ctx context.Context, ln net.Listener, conns *sync.WaitGroup, serve func(net.Conn)) error {
	defer ln.Close()
	places := make(chan struct{}, s.MaxConns)
	for {
		c, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case isPassing(err):
			s.Log.Printf("nbd: accept: %v", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		case err != nil:
			return fmt.Errorf("nbd: accept: %w", err)
		}
		select {
		case places <- struct{}{}:
			conns.Go(func() {
				defer func() { <-places }()
				serve(c)
			})
		default:
			s.Log.Printf("nbd: refused a connection: %d are served already", s.MaxConns)
			c.Close()
		}
	}
}

// isPassing tells whether accept(2) may succeed after it has failed with err.
func isPassing(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED, unix.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// serveConn serves one connection and closes it. It returns nil if the client
// left in a way that the protocol knows, or the server is stopping.
func (s *server) serveConn(stopping, ended context.Context, conn net.Conn) error {
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ended)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	in := newInput(stopping, conn, s.Timeout)
	defer in.stopWatching()

	terms, err := s.negotiate(stopping, conn, in)
	if err == nil && terms != nil {
		defer terms.export.release()
		err = newSession(ctx, cancel, s, in, terms).run()
	}
	switch {
	case stopping.Err() != nil, errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return nil
	}
	return err
}
