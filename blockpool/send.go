package blockpool

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/stream"
)

// SendOptions say how a snapshot is sent. The zero value sends all of it.
type SendOptions struct {
	From        string             // snapshot that the receiver has: what differs is sent
	Compression int                // 0 for none, 1 (fastest) to 4 (smallest)
	Progress    func(SendProgress) // called now and then, from Send's goroutine; may be nil
}

// SendProgress tells how far a stream is.
type SendProgress struct {
	Next    uint64 `json:"next"`            // record that comes next; of a dataset, how many records the bytes would fill
	End     uint64 `json:"end"`             // records of the volume; of a dataset those of its bytes, 0 where that is not known
	Records uint64 `json:"records"`         // sent
	Bytes   int64  `json:"bytes"`           // of them, before the stream was compressed
	Holes   uint64 `json:"in_holes"`        // records that were said to be holes
	Items   uint64 `json:"items,omitempty"` // of a dataset
}

// checkpointBytes is how much is sent between two places where a stream that was
// cut off can continue.
const checkpointBytes = 32 << 20

// Send writes a snapshot to w as a stream for [Pool.Receive]: all of it, or what
// differs from the snapshot From, which may be of any volume, or dataset, with
// records of the same size. Records that are packed are sent as they are. Each record is compared with its checksum before it is sent. The
// snapshot cannot be destroyed meanwhile.
func (p *Pool) Send(ctx context.Context, w io.Writer, snapshot string, o SendOptions) (SendProgress, error) {
	s := &sender{p: p, o: o}
	err := s.between(o.From, snapshot)
	if err == nil {
		defer s.release()
		err = s.send(ctx, w, s.header())
	}
	return s.done, failed("send", snapshot, err)
}

// SendResume goes on with a stream that was cut off, where the receiver's token
// says. The pool need not be the one that began, if it has the same snapshots.
func (p *Pool) SendResume(ctx context.Context, w io.Writer, token string, o SendOptions) (SendProgress, error) {
	s := &sender{p: p, o: o}
	t, err := stream.ParseToken(token)
	if err != nil {
		return s.done, fmt.Errorf("send: %w: %w", err, ErrInvalid)
	}
	from, to, err := p.catalogue.pairOf(GUID(t.From), GUID(t.To))
	if err == nil {
		err = s.between(from, to)
	}
	if err == nil {
		defer s.release()
		h := s.header()
		h.Pool, h.Volume, h.Resume = t.Pool, t.Volume, t.Cursor
		if !t.Continues(h) {
			err = invalidf("the token is of a snapshot with another size")
		} else {
			err = s.send(ctx, w, h)
		}
	}
	return s.done, failed("go on sending", to, err)
}

// pairOf finds two snapshots by guid, of one volume if there are several; a from of
// zeros has no name.
func (c *catalogue) pairOf(from, to GUID) (fromName, toName string, err error) {
	var froms, tos []string
	for _, v := range c.all() {
		e := v.entry.Load()
		if e.kind != KindSnapshot {
			continue
		}
		switch e.guid {
		case from:
			froms = append(froms, e.name)
		case to:
			tos = append(tos, e.name)
		}
	}
	switch {
	case len(tos) == 0:
		return "", "", fmt.Errorf("snapshot %v: %w", to, ErrNotFound)
	case from == GUID{}:
		return "", tos[0], nil
	case len(froms) == 0:
		return "", "", fmt.Errorf("snapshot %v, since which %s was sent: %w", from, tos[0], ErrNotFound)
	}
	for _, to := range tos {
		volume, _, _ := strings.Cut(to, "@")
		for _, from := range froms {
			if strings.HasPrefix(from, volume+"@") {
				return from, to, nil
			}
		}
	}
	return froms[0], tos[0], nil
}

// A sender sends one stream.
type sender struct {
	p        *Pool
	o        SendOptions
	from, to *volume // held; from is nil for a full stream
	done     SendProgress
	buf      []byte
}

// between holds the two snapshots.
func (s *sender) between(from, to string) (err error) {
	if s.to, err = s.p.catalogue.holdSnapshot(to); err != nil {
		return err
	}
	if from == "" {
		return nil
	}
	if s.from, err = s.p.catalogue.holdSnapshot(from); err != nil {
		s.release()
		return fmt.Errorf("since %s: %w", from, err)
	}
	x, y := s.from.entry.Load(), s.to.entry.Load()
	switch {
	case x.content != y.content:
		err = invalidf("since %s: it is of a %s, and this is of a %s", from, x.noun(), y.noun())
	case x.recordSize != y.recordSize:
		err = invalidf("since %s: it has records of another size", from)
	}
	if err != nil {
		s.release()
	}
	return err
}

// holdSnapshot is hold for what is sent.
func (c *catalogue) holdSnapshot(name string) (*volume, error) {
	v, err := c.hold(name)
	if err != nil {
		return nil, err
	}
	if v.entry.Load().kind != KindSnapshot {
		v.handles.Add(-1)
		return nil, invalidf("it is no snapshot")
	}
	return v, nil
}

func (s *sender) release() {
	for _, v := range []*volume{s.from, s.to} {
		if v != nil {
			v.handles.Add(-1)
		}
	}
}

// header returns what the stream is about.
func (s *sender) header() stream.Header {
	to := s.to.entry.Load()
	h := stream.Header{
		Pool: stream.ID(s.p.guid), Volume: stream.ID(to.guid), To: stream.ID(to.guid),
		Name: to.name, Size: uint64(to.size), RecordSize: uint32(to.recordSize), Dataset: to.holdsFiles(),
	}
	if v := s.p.catalogue.entry(to.origin); v != nil {
		h.Volume = stream.ID(v.guid)
	}
	if s.from != nil {
		from := s.from.entry.Load()
		h.From, h.FromName = stream.ID(from.guid), from.name
	}
	return h
}

// send writes the stream. Snapshots and what they name stay as they are while they
// are held, so no state of the metadata is kept longer than a step needs.
func (s *sender) send(ctx context.Context, w io.Writer, h stream.Header) error {
	x, err := stream.NewWriter(w, h, stream.Options{Compression: s.o.Compression})
	if err != nil {
		return err
	}
	s.buf = make([]byte, maxRun)
	if h.Dataset {
		return s.sendDataset(ctx, x, h)
	}
	s.done.End = h.Records()
	last := int64(0) // bytes at the last checkpoint
	for next := h.Resume; ; {
		list, rest, err := s.p.changes(s.from, s.to, next, maxRun/int(h.RecordSize))
		if err != nil {
			return err
		}
		for _, c := range list {
			if err := s.change(x, c); err != nil {
				return err
			}
		}
		if next = rest; next == 0 || next >= s.done.End {
			s.tell(s.done.End)
			return x.Close()
		}
		if s.done.Bytes-last >= checkpointBytes {
			if err := x.Checkpoint(next); err != nil {
				return err
			}
			last = s.done.Bytes
		}
		s.tell(next)
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

func (s *sender) tell(next uint64) {
	s.done.Next = next
	if s.o.Progress != nil {
		s.o.Progress(s.done)
	}
}

// change sends what became of some records. Those behind the volume's end need not
// be told: its size says it.
func (s *sender) change(x *stream.Writer, c change) error {
	if c.first >= s.done.End {
		return nil
	}
	if c.count = min(c.count, s.done.End-c.first); c.Change == Hole {
		s.done.Holes += c.count
		return x.Hole(c.first, c.count)
	}
	size := s.to.entry.Load().recordSize
	for i := uint64(0); i < c.count; {
		end := i + 1
		for end < c.count && s.p.follows(c.records[end-1], c.records[end], size) {
			end++
		}
		b := s.buf[:int64(end-i)*size]
		if err := s.p.readRow(c.records[i:end], b, size); err != nil {
			return fmt.Errorf("records %d to %d: %w", c.first+i, c.first+end-1, err)
		}
		for ; i < end; i++ {
			if err := x.Write(c.first+i, format.Plain, b[:size]); err != nil {
				return err
			}
			b = b[size:]
			s.done.Records++
			s.done.Bytes += size
		}
	}
	return nil
}
