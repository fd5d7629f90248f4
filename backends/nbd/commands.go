package nbd

import (
	"encoding/binary"
	"errors"
	"io"
)

// rules says for each command which flags it takes, whether it changes the
// export, and which error it meets beyond the end.
//
// FUA is allowed everywhere, since clients set it everywhere.
var rules = [...]struct {
	flags   uint16
	changes bool
	beyond  Errno
}{
	cmdRead:        {cmdFlagFUA | cmdFlagDF, false, EINVAL},
	cmdWrite:       {cmdFlagFUA, true, ENOSPC},
	cmdFlush:       {cmdFlagFUA, false, EINVAL},
	cmdTrim:        {cmdFlagFUA, true, EINVAL},
	cmdCache:       {cmdFlagFUA, false, EINVAL},
	cmdWriteZeroes: {cmdFlagFUA | cmdFlagNoHole | cmdFlagFastZero, true, ENOSPC},
	cmdBlockStatus: {cmdFlagFUA | cmdFlagReqOne, false, EINVAL},
}

// check returns why a request is refused without looking at the Block, nil if
// it is not.
func (s *session) check(r *request) error {
	if int(r.cmd) >= len(rules) {
		return fail(EINVAL, "%v is unknown", r.cmd)
	}
	rule := rules[r.cmd]
	flags := rule.flags
	if !s.structured {
		flags &^= cmdFlagDF
	}
	if s.export.fastZero == nil {
		flags &^= cmdFlagFastZero
	}
	size := uint64(s.export.size)
	switch {
	case s.in.stopping.Err() != nil:
		return fail(ESHUTDOWN, "the server is stopping")
	case r.flags&^flags != 0:
		return fail(EINVAL, "%v with flags %#x", r.cmd, r.flags&^flags)
	case r.cmd == cmdBlockStatus && !s.status:
		return fail(EINVAL, "%v without a metadata context", r.cmd)
	case rule.changes && s.export.readOnly:
		return fail(EPERM, "%v: the export is read-only", r.cmd)
	case r.offset > size || uint64(r.length) > size-r.offset:
		return fail(rule.beyond, "%v of %d bytes at %d of an export of %d", r.cmd, r.length, r.offset, size)
	case r.cmd == cmdFlush && (r.offset != 0 || r.length != 0):
		return fail(EINVAL, "%v of a range", r.cmd)
	case r.cmd == cmdBlockStatus && r.length == 0:
		return fail(EINVAL, "%v of nothing", r.cmd)
	case (r.cmd == cmdRead || r.cmd == cmdWrite) && int(r.length) > s.maxRequest:
		return fail(EOVERFLOW, "%v of %d bytes, more than %d", r.cmd, r.length, s.maxRequest)
	}
	return nil
}

// memory returns how many bytes of memory a request needs to be handled.
func (r *request) memory() int {
	switch r.cmd {
	case cmdRead, cmdWrite:
		return int(r.length)
	case cmdCache:
		return min(int(r.length), cachePiece)
	case cmdBlockStatus:
		return statusSize
	}
	return 0
}

// perform does what a request asks for: nothing, when it is of no bytes. What a
// reply takes along is in c.data afterwards.
func (s *session) perform(c *call) error {
	off, n := int64(c.offset), int64(c.length)
	if n == 0 && c.cmd != cmdFlush {
		return nil
	}
	var err error
	switch c.cmd {
	case cmdRead:
		return s.export.readFull(c.data.data, off)
	case cmdBlockStatus:
		return s.export.blockStatus(c)
	case cmdCache:
		return s.export.cache(c, off, min(n, int64(s.maxRequest)))
	case cmdFlush:
		return s.flush()
	case cmdWrite:
		_, err = s.export.WriteAt(c.data.data, off)
	case cmdTrim:
		err = s.export.Discard(s.ctx, off, n)
		if errors.Is(err, errors.ErrUnsupported) {
			err = nil // it was a hint
		}
	case cmdWriteZeroes:
		err = s.writeZeroes(c.flags, off, n)
	}
	if err == nil && c.flags&cmdFlagFUA != 0 {
		err = s.flush()
	}
	return err
}

// readFull fills b, or fails.
func (x *export) readFull(b []byte, off int64) error {
	n, err := x.ReadAt(b, off)
	switch {
	case n < len(b) && err == nil, n < len(b) && err == io.EOF:
		return io.ErrUnexpectedEOF // the Block has become shorter
	case err == io.EOF:
		return nil
	}
	return err
}

// flush has nothing to do for an export that nobody changes.
func (s *session) flush() error {
	if s.export.readOnly {
		return nil
	}
	return s.export.Flush(s.ctx)
}

// zeros is what NO_HOLE writes. It is never changed.
var zeros [256 << 10]byte

// writeZeroes makes n bytes read as zeros. With NO_HOLE they take space, by
// being written as any data is.
func (s *session) writeZeroes(flags uint16, off, n int64) error {
	noHole := flags&cmdFlagNoHole != 0
	if flags&cmdFlagFastZero != 0 && (noHole || !s.export.fastZero.FastZero(off, n)) {
		return fail(ENOTSUP, "no faster than writing")
	}
	if !noHole {
		return s.export.Zero(s.ctx, off, n)
	}
	for n > 0 {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		m := min(n, int64(len(zeros)))
		if _, err := s.export.WriteAt(zeros[:m], off); err != nil {
			return err
		}
		off, n = off+m, n-m
	}
	return nil
}

// cachePiece is how much of a range is read at once to have it cached, no more
// than a connection may always have in memory.
const cachePiece = leastRequest

// cache reads n bytes so that whoever caches below has them.
func (x *export) cache(c *call, off, n int64) error {
	for n > 0 {
		m := min(n, int64(len(c.data.data)))
		if err := x.readFull(c.data.data[:m], off); err != nil {
			return err
		}
		off, n = off+m, n-m
	}
	return nil
}

// maxExtents is how many extents a reply to a block status request has at
// most, and how often the Block is asked for it. The client asks again for the
// rest of its range.
const maxExtents = 4000

const (
	extentSize = 8
	statusSize = 4 + maxExtents*extentSize
)

// blockStatus leaves the extents of the range in c.data, as the reply has them.
// One after the other they differ; the first begins where the request does.
func (x *export) blockStatus(c *call) error {
	off, left := int64(c.offset), int64(c.length)
	b := binary.BigEndian.AppendUint32(c.data.data[:0], allocationContextID)
	var length int64 // of the last extent, which is not appended yet
	var state uint32
	for range maxExtents {
		n, hole, err := x.allocated.Allocated(off, left)
		if err != nil {
			return err
		}
		n = min(n, left)
		if n <= 0 {
			return fail(EIO, "block status at %d: the block knows nothing", off)
		}
		next := uint32(0)
		if hole {
			next = stateHole | stateZero
		}
		if length > 0 && next != state {
			if c.flags&cmdFlagReqOne != 0 {
				break
			}
			b = appendExtent(b, length, state)
			length = 0
		}
		state = next
		length += n
		off, left = off+n, left-n
		if left == 0 {
			break
		}
	}
	c.data.data = appendExtent(b, length, state)
	return nil
}

func appendExtent(b []byte, length int64, state uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	return binary.BigEndian.AppendUint32(b, state)
}
