package blockpool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/stream"
)

// ReceiveOptions say how a stream is received. The zero value will do.
type ReceiveOptions struct {
	// Force takes a stream also when the volume was written to, or has newer
	// snapshots, since the snapshot that the stream begins with. What was written
	// is lost; the snapshots stay.
	Force bool
	// Origin is the snapshot here that the stream begins with, of another volume: the
	// new volume that the stream makes is a clone of it.
	Origin string

	Quota, Refquota int64 // limits of a volume that the stream makes

	Progress func(SendProgress) // called now and then, from Receive's goroutine; may be nil
}

// Receive reads a stream of [Pool.Send] and makes the snapshot that it brings: name
// is VOLUME@SNAPSHOT, or VOLUME to take over the snapshot's name, or empty to take
// over both. Of a dataset's stream these are datasets; the one above it must be
// there. A full stream makes the volume too; any other needs, unless Origin has it, the snapshot that
// it begins with to be the volume's newest and the volume to be unchanged since, and
// names it when it is not. The volume is then what the snapshot is. The snapshot
// keeps the guid that it has where it comes from, so that later streams fit.
//
// Nothing is to be seen before the whole stream has arrived. When it is cut off,
// what has arrived stays, also over a crash: [Pool.ReceiveToken] tells where the
// sender can go on, and Receive takes the rest; or [Pool.AbortReceive] ends it.
//
// It fails with [ErrDamaged] for bytes that are not a whole stream, [ErrNewer],
// [ErrBusy] while the volume is open, [ErrExists], [ErrNotFound] where a snapshot is
// missing, [ErrNoSpace] or [ErrQuota].
func (p *Pool) Receive(ctx context.Context, src io.Reader, name string, o ReceiveOptions) (VolumeInfo, error) {
	info, err := p.receive(ctx, src, name, o)
	if errors.Is(err, stream.ErrUnsupported) {
		err = fmt.Errorf("%w: %w", ErrNewer, err)
	}
	return info, failed("receive", name, err)
}

func (p *Pool) receive(ctx context.Context, src io.Reader, name string, o ReceiveOptions) (VolumeInfo, error) {
	r, err := stream.NewReader(src)
	if err != nil {
		return VolumeInfo{}, err
	}
	x, err := p.receiver(ctx, r.Header(), name, o)
	if err != nil {
		return VolumeInfo{}, err
	}
	defer x.v.handles.Add(-1)
	if err := x.take(ctx, r); err != nil {
		// Crash from here on, or before: what the last durable cursor says.
		_ = x.flush(ctx) // what is not written now is sent once more
		return VolumeInfo{}, x.keep(ctx, err)
	}
	// Crash before this is durable: all has arrived, and nothing is to be seen.
	err = p.do(ctx, &task{run: func(s *pass) error { return s.publishReceived(x.v.id) }})
	if err != nil {
		return VolumeInfo{}, x.keep(ctx, err)
	}
	return x.published(), nil
}

// A receiver takes one stream.
type receiver struct {
	v     *volume // hidden; held
	h     stream.Header
	owner uint64 // volume that is charged
	o     ReceiveOptions

	next uint64 // record, or position, before which everything has arrived and was written
	run  []byte // records that arrived and are to be written together
	at   uint64 // the first of them
	done SendProgress
}

// receiver makes ready for a stream, and holds what it is received into.
func (p *Pool) receiver(ctx context.Context, h stream.Header, name string, o ReceiveOptions) (*receiver, error) {
	volume, snap, err := receivedName(h, name)
	switch {
	case err != nil:
		return nil, err
	case !h.Dataset && (h.Size == 0 || h.Size > math.MaxInt64-format.MaxRecordSize):
		return nil, invalidf("a volume of %d bytes", h.Size)
	case o.Quota < 0 || o.Refquota < 0:
		return nil, invalidf("a limit below 0")
	}
	if err := p.do(ctx, &task{run: func(s *pass) error { return s.receiveInto(h, volume, snap, o) }}); err != nil {
		return nil, err
	}
	v, err := p.catalogue.holdReceiving(volume+receivingSuffix, h)
	if err != nil {
		return nil, err
	}
	r, err := unpackReceiving(v.entry.Load().receiving)
	if err != nil {
		v.handles.Add(-1)
		return nil, err
	}
	x := &receiver{v: v, h: h, owner: v.id, o: o, next: h.Resume, done: SendProgress{Next: h.Resume, End: h.Records()}}
	if h.Dataset {
		x.done = SendProgress{}
	}
	if r.target != 0 {
		x.owner = r.target
	}
	return x, nil
}

// receivedName returns what the received snapshot will be called.
func receivedName(h stream.Header, name string) (volume, snap string, err error) {
	if name == "" {
		name = h.Name
	}
	volume, snap, err = splitSnapshot(name)
	if err == nil && snap == "" {
		var sent string
		if sent, snap, err = splitSnapshot(h.Name); err == nil && snap == "" {
			err = damagedf("stream of snapshot %q", sent)
		}
	}
	return volume, snap, err
}

// holdReceiving holds what a stream is received into: one at a time does.
func (c *catalogue) holdReceiving(name string, h stream.Header) (*volume, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.byName[name]
	switch {
	case v == nil:
		return nil, ErrNotFound
	case v.handles.Load() > 0:
		return nil, fmt.Errorf("a stream is arriving already: %w", ErrBusy)
	}
	if err := continues(v.entry.Load(), h); err != nil {
		return nil, err
	}
	v.handles.Add(1)
	return v, nil
}

// take applies the stream up to its end.
func (x *receiver) take(ctx context.Context, r *stream.Reader) error {
	for {
		f, err := r.Next()
		if err != nil {
			return err
		}
		if err := x.apply(ctx, f); err != nil {
			return err
		}
		if f.Kind == stream.End {
			x.next = x.h.Last()
			return nil
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

func (x *receiver) apply(ctx context.Context, f stream.Frame) error {
	if f.Kind == stream.Write {
		return x.write(ctx, f)
	}
	if err := x.flush(ctx); err != nil {
		return err
	}
	switch f.Kind {
	case stream.Hole:
		if err := x.punch(ctx, f.Record, f.Record+f.Count); err != nil {
			return err
		}
		x.next = f.Record + f.Count
		x.done.Holes += f.Count
	case stream.Checkpoint:
		x.next = f.Cursor
		x.saveCursor()
	case stream.Items:
		return x.items(ctx, f.Items)
	}
	return nil
}

// write gathers records that follow each other.
func (x *receiver) write(ctx context.Context, f stream.Frame) error {
	size := int(x.h.RecordSize)
	if x.h.Dataset && (f.Codec != format.Plain || len(f.Data) < size) {
		if err := x.flush(ctx); err != nil {
			return err
		}
		return x.asStored(ctx, f)
	}
	if f.Codec != format.Plain {
		return fmt.Errorf("record %d has codec %d: %w", f.Record, f.Codec, stream.ErrUnsupported)
	}
	if f.Record != x.at+uint64(len(x.run)/size) || len(x.run)+size > maxRun {
		if err := x.flush(ctx); err != nil {
			return err
		}
		x.at = f.Record
	}
	x.run = append(x.run, f.Data...)
	x.run = append(x.run, make([]byte, size-len(f.Data))...) // the last one may end with the volume
	return nil
}

// flush writes the records that were gathered.
func (x *receiver) flush(ctx context.Context) error {
	size := int64(x.h.RecordSize)
	p, n := x.run, x.at
	if len(p) == 0 {
		return nil
	}
	x.run = x.run[:0]
	if err := x.v.pool.throttle(ctx); err != nil {
		return err
	}
	count := int64(len(p)) / size
	own, limited := int64(0), true
	if target := x.v.pool.catalogue.get(x.owner); target != nil {
		own, limited = target.pending.promisedTo(), target.pending.limited()
	}
	if !limited && x.v.pool.metadataFits(count) {
		if at, err := x.v.pool.space.allocate(format.Data, size, count, own, false); err == nil {
			return x.place(ctx, n, at, p)
		}
	}
	for ; len(p) > 0; n, p = n+1, p[size:] {
		if err := x.within(ctx, n, size); err != nil {
			return err
		}
		at, err := x.v.pool.allocate(ctx, format.Data, size, own)
		if err != nil {
			return err
		}
		if err := x.place(ctx, n, at, p[:size]); err != nil {
			return err
		}
	}
	return nil
}

// within refuses a record of so many bytes beyond the limits of the volume that is charged. What is
// on its way to the disk is counted in full, though some of it replaces what is
// counted already; so the answer is no only when nothing is on its way.
func (x *receiver) within(ctx context.Context, n uint64, bytes int64) error {
	err := x.over(n, bytes)
	if errors.Is(err, ErrQuota) && x.v.pending.Load() > 0 {
		if err := x.v.pool.Sync(ctx); err != nil {
			return err
		}
		err = x.over(n, bytes)
	}
	return err
}

// over refuses a record that seems to be too much. All that is received is new to
// the volume, but for what arrives a second time.
func (x *receiver) over(n uint64, bytes int64) error {
	charged := x.v.pool.catalogue.get(x.owner)
	if charged == nil || !charged.pending.limited() {
		return nil
	}
	// What is on its way is pending for who is charged, too: it is below that.
	target, over := charged.entry.Load(), charged.pending.over(bytes)
	e, more := x.v.entry.Load(), x.v.pending.Load()+bytes
	if (target.refquota == 0 || e.referenced+more <= target.refquota) && over == nil {
		return nil
	}
	birth, err := x.v.birth(n)
	switch {
	case err != nil:
		return err
	case target.refquota != 0 && birth == 0 && e.referenced+more > target.refquota:
		return fmt.Errorf("refquota of %d bytes: %w", target.refquota, ErrQuota)
	case over != nil && birth <= e.createdTxg:
		return fmt.Errorf("quota of %d bytes for %s: %w", over.quota, over.name, ErrQuota)
	}
	return nil
}

// place writes records to the sectors from at on, which were allocated for them,
// and makes them the content of the open txg. The intent log learns nothing of
// them: after a crash the stream goes on from a cursor that is durable with all
// that was before it.
func (x *receiver) place(ctx context.Context, n uint64, at format.Addr, p []byte) error {
	v, size := x.v, int64(x.h.RecordSize)
	records := make([]format.Record, int64(len(p))/size)
	stride := format.Addr(v.pool.space.extent(at, size).n)
	for i := range records {
		sum := format.Sum(p[int64(i)*size:][:size])
		records[i] = format.Record{Addr: at + format.Addr(i)*stride, Size: uint32(size), Sum: sum, Owner: x.owner}
	}
	v.pending.Add(int64(len(p)))
	// Crash from here to the end of the txg: sectors that nothing names.
	return x.enter(ctx, n, records, v.pool.writeRun(records, p, size))
}

// enter makes records that were written the content of the open txg. When writing
// has failed, they are given up.
func (x *receiver) enter(ctx context.Context, n uint64, records []format.Record, err error) error {
	v := x.v
	if err == nil {
		err = v.pool.enter(ctx, func(g *txg) error {
			for i, rec := range records {
				rec.Birth = g.number
				v.put(g, n+uint64(i), &dirtyRecord{at: rec.Addr, admitted: int64(rec.Size), rec: rec})
			}
			return nil
		})
	}
	if err != nil {
		for _, rec := range records {
			v.retract(rec.Addr, int64(rec.Size))
		}
		return err
	}
	x.next = n + uint64(len(records))
	x.done.Records += uint64(len(records))
	for _, rec := range records {
		x.done.Bytes += int64(rec.Size)
	}
	if x.done.Next = x.next; x.h.Dataset {
		x.done.Next = uint64(x.done.Bytes / int64(x.h.RecordSize))
	}
	if x.o.Progress != nil {
		x.o.Progress(x.done)
	}
	return nil
}

// punch makes records first to end-1 a hole.
func (x *receiver) punch(ctx context.Context, first, end uint64) error {
	v := x.v
	if err := v.pool.throttle(ctx); err != nil {
		return err
	}
	return v.pool.enter(ctx, func(g *txg) error {
		v.mu.Lock()
		defer v.mu.Unlock()
		// It takes memory, and a leaf of its own at worst.
		g.bytes.Add(format.SectorSize)
		g.records.Add(1)
		for _, old := range v.dirtyIn(g).cut(first, end) {
			v.supersede(g, old)
		}
		return nil
	})
}

// saveCursor has the cursor become durable in the txg that has what was received so
// far, or a later one. Nobody waits for it.
func (x *receiver) saveCursor() {
	id, next := x.v.id, x.next
	x.v.pool.later(&task{run: func(s *pass) error {
		e := s.change(id)
		if e == nil {
			return ErrNotFound
		}
		r, err := unpackReceiving(e.receiving)
		if err == nil {
			r.token.Cursor = max(r.token.Cursor, next)
			e.receiving = r.pack()
		}
		return err
	}})
}

// keep makes the cursor durable after a stream was cut off, or gives up what is
// received into when nothing has arrived. It returns why.
func (x *receiver) keep(ctx context.Context, why error) error {
	ctx = context.WithoutCancel(ctx)
	r, err := unpackReceiving(x.v.entry.Load().receiving)
	switch {
	case err != nil:
	case x.next > 0 || r.token.Cursor > 0:
		x.saveCursor()
		err = x.v.pool.Sync(ctx)
	default:
		err = x.v.pool.do(ctx, &task{run: func(s *pass) error { return s.giveUp(s.change(x.v.id)) }})
	}
	if err != nil && !errors.Is(why, err) {
		return errors.Join(why, err)
	}
	return why
}

// published tells of the snapshot that has arrived.
func (x *receiver) published() VolumeInfo {
	for _, info := range x.v.pool.Volumes() {
		if info.GUID == GUID(x.h.To) && (info.ID == x.v.id || info.Origin == x.v.entry.Load().name) {
			return info
		}
	}
	return VolumeInfo{}
}
