package nbd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// An input reads what a client sends. Between messages a client may be silent,
// within one it may not be slow, and when the server is stopping only what is
// here already counts.
type input struct {
	r            *bufio.Reader
	conn         net.Conn
	timeout      time.Duration
	stopping     context.Context
	stopWatching func() bool
}

// inputBuffer holds many small requests; the data of large ones goes past it.
const inputBuffer = 64 << 10

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

func newInput(stopping context.Context, conn net.Conn, timeout time.Duration) *input {
	in := &input{bufio.NewReaderSize(conn, inputBuffer), conn, timeout, stopping, nil}
	in.stopWatching = context.AfterFunc(stopping, func() { conn.SetReadDeadline(longAgo) })
	return in
}

// await returns when a message begins: io.EOF if the client has gone instead.
func (in *input) await() error {
	_, err := in.r.Peek(1)
	return err
}

// fill fills b with the rest of a message, under whatever deadline there is.
func (in *input) fill(b []byte) error {
	_, err := io.ReadFull(in.r, b)
	return within(err)
}

// drop reads n bytes of a message and forgets them.
func (in *input) drop(n int) error {
	_, err := in.r.Discard(n)
	return within(err)
}

// within makes the end of the connection what it is inside a message.
func within(err error) error {
	switch err {
	case nil:
		return nil
	case io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read from client: %w", err)
}

// fillSoon is fill, for which the client has the timeout.
func (in *input) fillSoon(b []byte) error {
	if in.r.Buffered() < len(b) {
		in.conn.SetReadDeadline(time.Now().Add(in.timeout))
		defer in.setDeadline(time.Time{})
	}
	return in.fill(b)
}

// dropSoon is drop, for which the client has the timeout.
func (in *input) dropSoon(n int) error {
	in.conn.SetReadDeadline(time.Now().Add(in.timeout))
	defer in.setDeadline(time.Time{})
	return in.drop(n)
}

// setDeadline sets the time for all that is read from now on. If the server was
// asked to stop before, that is now.
func (in *input) setDeadline(t time.Time) {
	in.conn.SetReadDeadline(t)
	if in.stopping.Err() != nil {
		in.conn.SetReadDeadline(longAgo)
	}
}
