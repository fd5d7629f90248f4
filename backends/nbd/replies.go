package nbd

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"time"
)

// answer makes the reply to a call and sends it. Where structured replies were
// agreed on, errors have a text, and data comes in one chunk, so that DF asks
// for nothing else. What has neither gets a simple reply, which is allowed
// there too.
func (s *session) answer(c *call, err error) {
	switch {
	case err != nil && s.structured:
		c.body = appendErrorBody(nil, err)
		c.head = appendChunk(nil, c.cookie, chunkError, len(c.body))
	case err != nil:
		c.head = appendSimple(nil, c.cookie, errnoOf(err))
	case c.cmd == cmdBlockStatus:
		c.body = c.data.data
		c.head = appendChunk(nil, c.cookie, chunkBlockStatus, len(c.body))
	case c.cmd == cmdRead && s.structured:
		s.answerRead(c)
	default:
		if c.cmd == cmdRead && c.data != nil {
			c.body = c.data.data
		}
		c.head = appendSimple(make([]byte, 0, simpleReplySize), c.cookie, 0)
	}
	s.out.send(c)
}

func (s *session) answerRead(c *call) {
	if c.data == nil { // a content chunk may not be empty
		c.head = appendChunk(nil, c.cookie, chunkNone, 0)
		return
	}
	c.body = c.data.data
	c.head = appendChunk(make([]byte, 0, chunkSize+8), c.cookie, chunkOffsetData, 8+len(c.body))
	c.head = binary.BigEndian.AppendUint64(c.head, c.offset)
}

func appendErrorBody(b []byte, err error) []byte {
	text := displayText(err)
	b = binary.BigEndian.AppendUint32(b, uint32(errnoOf(err)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...)
}

// replies writes the replies of a connection. Whoever sends one while nobody
// writes becomes the writer, and also writes what others bring until there is
// nothing left; so replies that are ready at the same time share a system call.
type replies struct {
	conn    net.Conn
	timeout time.Duration
	failed  context.CancelCauseFunc // ends the connection
	written func(*call)             // takes every call, whether its reply arrived or not

	mu      sync.Mutex
	waiting []*call
	writing bool
	// The writer's alone:
	spare  []*call
	pieces net.Buffers
	broken bool
}

func (r *replies) send(c *call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, c)
	if r.writing {
		return
	}
	r.writing = true
	for len(r.waiting) > 0 {
		batch := r.waiting
		r.waiting = r.spare
		r.mu.Unlock()
		r.write(batch)
		clear(batch)
		r.spare = batch[:0]
		r.mu.Lock()
	}
	r.writing = false
}

// write writes whole replies. After the first failure nothing more is written,
// since nobody knows how much of a reply the client has.
func (r *replies) write(batch []*call) {
	if !r.broken {
		r.pieces = r.pieces[:0]
		for _, c := range batch {
			r.pieces = append(r.pieces, c.head)
			if len(c.body) > 0 {
				r.pieces = append(r.pieces, c.body)
			}
		}
		r.conn.SetWriteDeadline(time.Now().Add(r.timeout))
		unwritten := r.pieces // WriteTo eats it up
		if _, err := unwritten.WriteTo(r.conn); err != nil {
			r.broken = true
			r.failed(fmt.Errorf("write to client: %w", err))
		}
		clear(r.pieces)
	}
	for _, c := range batch {
		r.written(c)
	}
}
