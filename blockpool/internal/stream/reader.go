package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// A Reader reads a stream, frame by frame. The first error stays.
type Reader struct {
	src  io.Reader
	sum  *xxhash.Digest
	have progress
	err  error

	buf    []byte // the current frame, and perhaps the next one's head
	filled int    // bytes of buf that were read
	used   int    // bytes of the current frame, to be dropped by the next
	offset int64  // of the current frame in the stream
	frame  int64

	dec  *zstd.Decoder
	raw  []byte // frames of a pack
	rest []byte // those of them that were not handed out
}

// NewReader reads the header. features are those that the caller understands
// beside the container's own; a stream that needs another is refused.
//
// Errors about the stream are [*Error]; those of src are wrapped. src is read
// once or twice per frame, so that wrapping it in a bufio.Reader pays only for
// streams of many small frames, and gives up that nothing beyond the stream's
// end is read.
func NewReader(src io.Reader, features ...string) (*Reader, error) {
	r := &Reader{src: src, sum: xxhash.New()}
	if err := r.readHeader(features); err != nil {
		r.err = err
		return nil, err
	}
	return r, nil
}

func (r *Reader) readHeader(features []string) error {
	if err := r.fill(prefixSize, 0); err != nil {
		return err
	}
	n, dataset, err := parsePrefix(r.buf)
	if err != nil {
		return r.bad(err)
	}
	if err := r.fill(prefixSize+n+checkSize, 0); err != nil {
		return err
	}
	if _, err := r.verify(prefixSize + n); err != nil {
		return err
	}
	h, err := unpackFields(r.buf[prefixSize:prefixSize+n], dataset)
	if err != nil {
		return r.bad(err)
	}
	if unknown := h.unknown(append([]string{featureZstd}, features...)...); len(unknown) > 0 {
		return r.bad(fmt.Errorf("feature %q: %w", strings.Join(unknown, ", "), ErrUnsupported))
	}
	r.have = progress{h: h, next: h.Resume}
	return nil
}

// Header returns what the stream is about.
func (r *Reader) Header() Header { return r.have.h }

// Next returns the next frame, which was checked. After End it returns io.EOF;
// a stream that stops before End is damaged.
func (r *Reader) Next() (Frame, error) {
	if r.err != nil {
		return Frame{}, r.err
	}
	f, err := r.next()
	if err != nil {
		r.err = err
		return Frame{}, err
	}
	if f.Kind == End {
		r.err = io.EOF
	}
	return f, nil
}

func (r *Reader) next() (Frame, error) {
	for {
		if len(r.rest) > 0 {
			h, payload, err := r.cutPacked()
			if err != nil {
				return Frame{}, r.bad(fmt.Errorf("in the pack: %w", err))
			}
			if f, known, err := r.understand(h, payload, 0); known || err != nil {
				return f, err
			}
			continue
		}
		h, payload, digest, err := r.readFrame()
		if err != nil {
			return Frame{}, err
		}
		if h.kind == pack {
			if err := r.unpack(h, payload); err != nil {
				return Frame{}, err
			}
			continue
		}
		if f, known, err := r.understand(h, payload, digest); known || err != nil {
			return f, err
		}
	}
}

// understand makes a frame of a payload. known is false for one to skip.
func (r *Reader) understand(h head, payload []byte, digest uint64) (f Frame, known bool, err error) {
	switch h.kind {
	case Write, Hole, Checkpoint, Property, End, Items:
	default:
		if h.flags == optional {
			return f, false, nil
		}
		return f, false, r.bad(fmt.Errorf("%v with flags %#x: %w", h.kind, h.flags, ErrUnsupported))
	}
	if h.flags != 0 {
		return f, false, r.bad(fmt.Errorf("%v with flags %#x: %w", h.kind, h.flags, ErrUnsupported))
	}
	if f, err = parsePayload(h.kind, payload); err == nil {
		err = r.have.take(f)
	}
	if err != nil {
		return Frame{}, false, r.bad(fmt.Errorf("%v: %w", h.kind, err))
	}
	if f.Kind == End && f.Totals != r.have.totals {
		return Frame{}, false, r.bad(fmt.Errorf("End counts %+v, and there were %+v", f.Totals, r.have.totals))
	}
	if f.Kind == Checkpoint || f.Kind == End {
		f.Digest = digest
	}
	return f, true, nil
}

// readFrame reads a frame and checks it.
func (r *Reader) readFrame() (h head, payload []byte, digest uint64, err error) {
	r.filled = copy(r.buf, r.buf[r.used:r.filled])
	r.offset += int64(r.used)
	r.frame++
	r.used = 0
	if err := r.fill(headSize, 0); err != nil {
		return h, nil, 0, err
	}
	if h, err = parseHead(r.buf); err != nil {
		return h, nil, 0, r.bad(err)
	}
	// Every frame but End is followed by another, whose head comes along.
	ahead := headSize
	if h.kind == End {
		ahead = 0
	}
	if err := r.fill(headSize+h.length+checkSize, ahead); err != nil {
		return h, nil, 0, err
	}
	if digest, err = r.verify(headSize + h.length); err != nil {
		return h, nil, 0, err
	}
	r.have.totals.Frames++
	return h, r.buf[headSize : headSize+h.length], digest, nil
}

// verify compares the check behind the first n bytes of the frame.
func (r *Reader) verify(n int) (digest uint64, err error) {
	r.sum.Write(r.buf[:n]) // a hash does not fail
	digest = r.sum.Sum64()
	if stored := binary.LittleEndian.Uint64(r.buf[n:]); stored != digest {
		return 0, r.bad(fmt.Errorf("check is %016x and should be %016x", stored, digest))
	}
	r.sum.Write(r.buf[n : n+checkSize])
	r.used = n + checkSize
	return digest, nil
}

// fill reads until n bytes of the frame are there, and at most ahead more.
func (r *Reader) fill(n, ahead int) error {
	if r.filled >= n {
		return nil
	}
	r.buf = slices.Grow(r.buf[:r.filled], n+ahead-r.filled)[:n+ahead]
	got, err := io.ReadAtLeast(r.src, r.buf[r.filled:], n-r.filled)
	r.filled += got
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return r.bad(fmt.Errorf("the stream ends here, before its end: %w", io.ErrUnexpectedEOF))
	default:
		return fmt.Errorf("stream: read frame %d at byte %d: %w", r.frame, r.offset, err)
	}
}

func (r *Reader) bad(err error) error {
	return &Error{Offset: r.offset, Frame: r.frame, Err: err}
}

// unpack decompresses a pack.
func (r *Reader) unpack(h head, payload []byte) error {
	switch {
	case !slices.Contains(r.have.h.Features, featureZstd):
		return r.bad(errors.New("a pack in a stream that has none"))
	case h.flags != 0:
		return r.bad(fmt.Errorf("%v with flags %#x: %w", pack, h.flags, ErrUnsupported))
	}
	if err := r.startZstd(); err != nil {
		return err
	}
	raw, err := r.dec.DecodeAll(payload, r.raw[:0])
	if err != nil {
		return r.bad(fmt.Errorf("%v: %w", pack, err))
	}
	if len(raw) == 0 {
		return r.bad(errors.New("an empty pack"))
	}
	r.rest = raw
	return nil
}

// startZstd prepares for packs. The decoder never writes beyond r.raw, and
// needs no closing, since it decodes whole slices only.
func (r *Reader) startZstd() (err error) {
	if r.dec != nil {
		return nil
	}
	r.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxPack), zstd.WithDecoderMaxWindow(MaxPack), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return fmt.Errorf("stream: start zstd: %w", err)
	}
	r.raw = make([]byte, 0, MaxPack)
	return nil
}

// cutPacked takes a frame off the pack.
func (r *Reader) cutPacked() (h head, payload []byte, err error) {
	if len(r.rest) < headSize {
		return h, nil, errors.New("a frame is cut off")
	}
	if h, err = parseHead(r.rest); err != nil {
		return h, nil, err
	}
	if h.length > len(r.rest)-headSize {
		return h, nil, fmt.Errorf("%v is cut off", h.kind)
	}
	if h.kind == pack || h.kind == Checkpoint || h.kind == End {
		return h, nil, fmt.Errorf("%v cannot be here", h.kind)
	}
	payload, r.rest = r.rest[headSize:headSize+h.length], r.rest[headSize+h.length:]
	return h, payload, nil
}
