package stream

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// packTarget is how many bytes of frames are compressed together.
const packTarget = 512 << 10

// Options says how a stream is written.
type Options struct {
	// Compression is 0 for none, or 1 (fastest) to 4 (smallest).
	Compression int
}

// A Writer writes a stream: Property, Write, Hole and Checkpoint in any order
// that the package's invariants allow, then Close. The first error stays.
type Writer struct {
	w    *bufio.Writer
	sum  *xxhash.Digest
	have progress
	buf  []byte // head of the frame that is written
	enc  *zstd.Encoder
	pack []byte // frames that wait for being compressed
	out  []byte // pack, compressed
	err  error
	done bool
}

// NewWriter writes the header. h must be complete except for the features that
// options bring along. The writer buffers: only Checkpoint and Close write out.
func NewWriter(w io.Writer, h Header, opt Options) (*Writer, error) {
	h.Features = slices.Clone(h.Features)
	x := &Writer{w: bufio.NewWriterSize(w, 256<<10), sum: xxhash.New()}
	if opt.Compression != 0 {
		if opt.Compression < 1 || opt.Compression > 4 {
			return nil, fmt.Errorf("stream: compression %d is not 0 to 4", opt.Compression)
		}
		if !slices.Contains(h.Features, featureZstd) {
			h.Features = append(h.Features, featureZstd)
		}
		var err error
		x.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevel(opt.Compression)),
			zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(MaxPack), zstd.WithEncoderCRC(false)) // checks cover it
		if err != nil {
			return nil, fmt.Errorf("stream: start zstd: %w", err)
		}
	}
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	x.have = progress{h: h, next: h.Resume}
	return x, x.emit(h.pack(), nil)
}

// Write sends a record: data as it is stored under codec. Plain data has the
// record's whole size, or ends where the volume does.
func (w *Writer) Write(record uint64, codec format.Codec, data []byte) error {
	b := append(w.begin(Write), byte(codec))
	b = binary.AppendUvarint(b, record)
	return w.add(Frame{Kind: Write, Record: record, Codec: codec, Data: data}, b, data)
}

// Hole sends that count records from first on are holes.
func (w *Writer) Hole(first, count uint64) error {
	b := binary.AppendUvarint(w.begin(Hole), first)
	b = binary.AppendUvarint(b, count)
	return w.add(Frame{Kind: Hole, Record: first, Count: count}, b, nil)
}

// Items sends what became of items of a dataset, in the order of their keys.
func (w *Writer) Items(list []Item) error {
	var data []byte
	for _, i := range list {
		data = appendItem(data, i)
	}
	return w.add(Frame{Kind: Items, Items: list}, w.begin(Items), data)
}

// Property sends a key, 1 to [MaxKey] bytes, and a value, up to [MaxValue]. Of
// a key that comes twice the later value counts.
func (w *Writer) Property(key string, value []byte) error {
	b := append(append(w.begin(Property), byte(len(key))), key...)
	return w.add(Frame{Kind: Property, Key: key, Value: value}, b, value)
}

// Checkpoint says that no record below cursor will follow, so that a later
// stream can continue there, and writes everything out. With a cursor beyond
// the last record that was sent, those between are unchanged.
func (w *Writer) Checkpoint(cursor uint64) error {
	b := binary.AppendUvarint(w.begin(Checkpoint), cursor)
	if err := w.add(Frame{Kind: Checkpoint, Cursor: cursor}, b, nil); err != nil {
		return err
	}
	return w.flush()
}

// Close ends the stream and writes everything out. It does not close the writer
// below. Without Close no receiver takes the stream for complete.
func (w *Writer) Close() error {
	if err := w.usable(); err != nil {
		return err
	}
	if err := w.flushPack(); err != nil {
		return err
	}
	t := w.have.totals
	t.Frames++ // this one
	b := w.begin(End)
	for _, v := range []uint64{t.Writes, t.Bytes, t.Holes, t.Properties, t.Frames} {
		b = binary.AppendUvarint(b, v)
	}
	if t.Items > 0 {
		b = binary.AppendUvarint(b, t.Items)
	}
	if err := w.emitFrame(b, nil); err != nil {
		return err
	}
	w.done = true
	return w.flush()
}

// Totals returns what was given to the writer so far.
func (w *Writer) Totals() Totals { return w.have.totals }

func (w *Writer) begin(k Kind) []byte {
	return appendHead(w.buf[:0], k)
}

func (w *Writer) usable() error {
	if w.done {
		return errors.New("stream: used after Close")
	}
	return w.err
}

// add sends f, whose bytes are those of b and data.
func (w *Writer) add(f Frame, b, data []byte) error {
	w.buf = b
	if err := w.usable(); err != nil {
		return err
	}
	if err := w.have.take(f); err != nil {
		return w.fail(fmt.Errorf("stream: %v: %w", f.Kind, err))
	}
	if w.enc == nil {
		return w.emitFrame(b, data)
	}
	if f.Kind == Checkpoint {
		if err := w.flushPack(); err != nil {
			return err
		}
		return w.emitFrame(b, data)
	}
	finishHead(b, 0, len(data))
	w.pack = append(append(w.pack, b...), data...)
	if len(w.pack) < packTarget {
		return nil
	}
	return w.flushPack()
}

// flushPack sends the frames that wait, compressed if that makes them smaller.
func (w *Writer) flushPack() error {
	if len(w.pack) == 0 {
		return nil
	}
	raw := w.pack
	w.pack = w.pack[:0]
	w.out = w.enc.EncodeAll(raw, appendHead(w.out[:0], pack))
	if len(w.out) < len(raw) {
		return w.emitFrame(w.out, nil)
	}
	for len(raw) > 0 {
		n := headSize + int(binary.LittleEndian.Uint32(raw))
		if err := w.emitFrame(raw[:n], nil); err != nil {
			return err
		}
		raw = raw[n:]
	}
	return nil
}

// emitFrame writes a frame: head and payload are those of b and data.
func (w *Writer) emitFrame(b, data []byte) error {
	finishHead(b, 0, len(data))
	w.have.totals.Frames++
	return w.emit(b, data)
}

// emit writes b and data and the check behind them.
func (w *Writer) emit(b, data []byte) error {
	w.sum.Write(b) // a hash does not fail
	w.sum.Write(data)
	var check [checkSize]byte
	binary.LittleEndian.PutUint64(check[:], w.sum.Sum64())
	w.sum.Write(check[:])
	for _, part := range [][]byte{b, data, check[:]} {
		if _, err := w.w.Write(part); err != nil {
			return w.fail(fmt.Errorf("stream: write: %w", err))
		}
	}
	return nil
}

func (w *Writer) flush() error {
	if err := w.w.Flush(); err != nil {
		return w.fail(fmt.Errorf("stream: write: %w", err))
	}
	return nil
}

func (w *Writer) fail(err error) error {
	w.err = err
	return err
}
