package nbd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// A session is a connection in its transmission phase.
type session struct {
	*terms
	ctx    context.Context // of the Blocks; ends with the connection
	cancel context.CancelCauseFunc
	in     *input
	header [requestSize]byte // of the request that is being read
	out    replies

	maxRequest int
	places     *budget // for requests of this connection
	memory     *budget // for their data, so that one slow client cannot take all
	shared     *budget // for the data of all connections

	handlers sync.WaitGroup
}

// A call is a request on its way through a session.
type call struct {
	request
	data *buffer // what a write brings or a reply takes along; nil if nothing
	head []byte  // of the reply
	body []byte  // what follows the head, in data or on its own
}

// newSession returns a session that has yet to run. cancel ends its context, and
// the connection with it.
func newSession(ctx context.Context, cancel context.CancelCauseFunc, s *server, in *input, t *terms) *session {
	se := &session{
		terms: t, ctx: ctx, cancel: cancel, in: in,
		maxRequest: s.MaxRequest,
		places:     newBudget(int64(s.MaxInFlight)),
		memory:     newBudget(int64(capacity(s.MaxRequest))),
		shared:     s.memory,
	}
	se.out = replies{conn: in.conn, timeout: s.Timeout, failed: cancel, written: se.finish}
	return se
}

// run handles requests until the client says goodbye or leaves, the server
// stops or something breaks, and returns when no handler is left.
func (s *session) run() error {
	defer s.handlers.Wait()
	for {
		c, err := s.receive()
		if errors.Is(err, os.ErrDeadlineExceeded) && s.in.stopping.Err() != nil {
			return nil // handlers finish what has been asked for
		}
		if err != nil {
			s.cancel(err) // nobody is there to take an answer
			// The connection may be closed because a reply could not be written.
			return fmt.Errorf("export %q: %w", s.export.name, context.Cause(s.ctx))
		}
		if c.cmd == cmdDisc {
			return nil
		}
		s.handlers.Go(func() { s.answer(c, s.perform(c)) })
	}
}

// receive returns the next request that is worth handling, with its data.
// Others it answers itself.
func (s *session) receive() (*call, error) {
	for {
		if err := s.in.await(); err != nil {
			return nil, err
		}
		if err := s.in.fillSoon(s.header[:]); err != nil {
			return nil, err
		}
		c := &call{}
		if err := c.unpack(s.header[:]); err != nil {
			return nil, err
		}
		if c.cmd == cmdDisc {
			return c, nil
		}
		if err := s.places.take(s.ctx, 1); err != nil {
			return nil, err
		}
		refusal, err := s.admit(c)
		if err != nil {
			s.finish(c)
			return nil, err
		}
		if refusal == nil {
			return c, nil
		}
		s.answer(c, refusal)
	}
}

// admit looks at a request, and gives it memory and its data if it is worth
// handling.
func (s *session) admit(c *call) (refusal, err error) {
	refusal = s.check(&c.request)
	if refusal == nil {
		err = s.takeMemory(c)
	}
	if err == nil {
		err = s.receiveData(c)
	}
	return refusal, err
}

// receiveData reads what follows the header of a write into the memory of the
// call, or to nowhere if it has none.
func (s *session) receiveData(c *call) error {
	n := int(c.length)
	switch {
	case c.cmd != cmdWrite:
		return nil
	case c.data != nil:
		return s.in.fillSoon(c.data.data)
	case n > max(s.maxRequest, maxSkipped):
		return fmt.Errorf("a write of %d bytes: %w", n, ErrProtocol)
	}
	return s.in.dropSoon(n)
}

// takeMemory gives a call the memory that its data or its reply needs.
func (s *session) takeMemory(c *call) error {
	n := c.memory()
	if n == 0 {
		return nil
	}
	charge := int64(capacity(n))
	if err := s.memory.take(s.ctx, charge); err != nil {
		return err
	}
	if err := s.shared.take(s.ctx, charge); err != nil {
		s.memory.give(charge)
		return err
	}
	c.data = newBuffer(n)
	return nil
}

// finish gives back what a call has taken, after its reply was written or has
// become pointless.
func (s *session) finish(c *call) {
	if c.data != nil {
		charge := c.data.charge()
		c.data.free()
		s.memory.give(charge)
		s.shared.give(charge)
	}
	s.places.give(1)
}
