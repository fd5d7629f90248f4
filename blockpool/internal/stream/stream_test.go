package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/iotest"

	"github.com/cespare/xxhash/v2"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

var testHeader = Header{
	Pool: ID{0x11, 0x22, 15: 0x88}, Volume: ID{5}, From: ID{7}, To: ID{9}, Name: "images/bäse@b", FromName: "images/bäse@a",
	Size: 40*4096 + 100, RecordSize: 4096,
}

var setHeader = Header{
	Pool: ID{0x11}, Volume: ID{5}, From: ID{7}, To: ID{9}, Name: "home@b", FromName: "home@a", RecordSize: 4096, Dataset: true,
}

// setFrames are of a dataset.
var setFrames = []Frame{
	{Kind: Write, Record: 1 << 32, Codec: format.LZ4, Data: data(2, 30)},
	{Kind: Hole, Record: 3<<32 + 1, Count: 1 << 31},
	{Kind: Write, Record: 5 << 32, Data: data(31, 60)},
	{Kind: Checkpoint, Cursor: 1 << 63},
	{Kind: Items, Items: []Item{{Key: []byte{0x80}, Value: []byte{}}, {Key: []byte{0x80, 1, 2, 3, 4, 5, 6, 7, 8}, Value: []byte("value")}}},
	{Kind: Items, Items: []Item{{Key: []byte{0x80, 1, 2, 3, 4, 5, 6, 7, 8, 0}, Deleted: true}}},
	{Kind: Checkpoint, Cursor: 0x90 << 56},
	{Kind: Items, Items: []Item{{Key: bytes.Repeat([]byte{0xff}, MaxItemKey), Value: make([]byte, MaxItemValue)}}},
}

// data returns a record's bytes, which compress to about a quarter.
func data(record uint64, n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(record, 3))
	for i := range n / 4 {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// send writes frames as a sender would, Close included.
func send(t testing.TB, h Header, opt Options, frames []Frame) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, h, opt)
	for _, f := range frames {
		if err != nil {
			break
		}
		switch f.Kind {
		case Write:
			err = w.Write(f.Record, f.Codec, f.Data)
		case Hole:
			err = w.Hole(f.Record, f.Count)
		case Property:
			err = w.Property(f.Key, f.Value)
		case Items:
			err = w.Items(f.Items)
		case Checkpoint:
			err = w.Checkpoint(f.Cursor)
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// receive reads all frames, End included. What it got before an error is
// returned with it.
func receive(src io.Reader, features ...string) (h Header, frames []Frame, err error) {
	r, err := NewReader(src, features...)
	if err != nil {
		return h, nil, err
	}
	for {
		f, err := r.Next()
		if err == io.EOF {
			return r.Header(), frames, nil
		}
		if err != nil {
			return r.Header(), frames, err
		}
		f.Data, f.Value = bytes.Clone(f.Data), bytes.Clone(f.Value)
		for n, i := range f.Items {
			f.Items[n].Key, f.Items[n].Value = bytes.Clone(i.Key), bytes.Clone(i.Value)
		}
		frames = append(frames, f)
	}
}

// plain drops what only receivers know.
func plain(frames []Frame) []Frame {
	var out []Frame
	for _, f := range frames {
		if f.Digest = 0; f.Kind != End {
			out = append(out, f)
		}
	}
	return out
}

// smallFrames lacks whole records, so that each bit can be tried.
var smallFrames = []Frame{
	{Kind: Property, Key: "compression", Value: []byte("zstd")},
	{Kind: Write, Record: 2, Codec: format.Zstd, Data: data(2, 30)},
	{Kind: Hole, Record: 3, Count: 20},
	{Kind: Checkpoint, Cursor: 30},
	{Kind: Write, Record: 31, Codec: format.LZ4, Data: data(31, 60)},
	{Kind: Property, Key: "k", Value: []byte{}},
	{Kind: Write, Record: 40, Data: data(40, 100)},
}

// smallStreams is the same volume without and with compression, and a dataset.
func smallStreams(t testing.TB) map[string][]byte {
	return map[string][]byte{
		"plain": send(t, testHeader, Options{}, smallFrames),
		"zstd":  send(t, testHeader, Options{Compression: 2}, smallFrames),
		"set":   send(t, setHeader, Options{}, setFrames),
	}
}

func TestWhatIsSentIsReceived(t *testing.T) {
	for seed := range uint64(25) {
		rng := rand.New(rand.NewPCG(seed, 1))
		h := testHeader
		h.RecordSize = 4096 << rng.IntN(6)
		h.Size = uint64(h.RecordSize)*200 - uint64(rng.IntN(4096))
		h.Resume = uint64(rng.IntN(20))
		frames := randomFrames(rng, h)
		for level := range 3 {
			b := send(t, h, Options{Compression: level}, frames)
			for name, src := range map[string]io.Reader{"at once": bytes.NewReader(b), "byte by byte": iotest.OneByteReader(bytes.NewReader(b))} {
				if name == "byte by byte" && seed%10 != 0 {
					continue
				}
				got, gotFrames, err := receive(src)
				got.Features = nil
				if err != nil || !reflect.DeepEqual(got, h) || !reflect.DeepEqual(plain(gotFrames), plain(frames)) {
					t.Fatalf("seed %d, level %d, %s: %+v, %d of %d frames, %v", seed, level, name, got, len(gotFrames), len(frames), err)
				}
			}
		}
	}
}

func randomFrames(rng *rand.Rand, h Header) (frames []Frame) {
	next := h.Resume
	for next < h.Records() {
		switch rng.IntN(6) {
		case 0:
			n := min(1+uint64(rng.IntN(30)), h.Records()-next)
			frames = append(frames, Frame{Kind: Hole, Record: next, Count: n})
			next += n
		case 1:
			next = min(next+uint64(rng.IntN(9)), h.Records())
			frames = append(frames, Frame{Kind: Checkpoint, Cursor: next})
		case 2:
			frames = append(frames, Frame{Kind: Property, Key: fmt.Sprint("key", next), Value: data(next, rng.IntN(MaxValue+1))})
		default:
			f := Frame{Kind: Write, Record: next, Codec: format.Codec(rng.IntN(3))}
			n := int(min(uint64(h.RecordSize), h.Size-next*uint64(h.RecordSize)))
			if f.Codec != format.Plain {
				n = 1 + rng.IntN(n)
			}
			f.Data = data(rng.Uint64(), n)
			if rng.IntN(2) == 0 {
				for i := range f.Data {
					f.Data[i] = byte(rng.Uint32()) // so that packs do not pay
				}
			}
			frames = append(frames, f)
			next++
		}
	}
	return frames
}

// mustBeRefused checks that b, a damaged form of good, is refused, and that
// nothing was handed out that good does not begin with.
func mustBeRefused(t *testing.T, good, b []byte, how string) {
	t.Helper()
	_, want, err := receive(bytes.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	_, got, err := receive(bytes.NewReader(b))
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, format.ErrDamaged) && !errors.Is(err, ErrUnsupported) {
		t.Fatalf("%s: %v", how, err)
	}
	if len(got) >= len(want) || len(got) > 0 && !reflect.DeepEqual(got, want[:len(got)]) {
		t.Fatalf("%s: %d frames were handed out that were not sent so", how, len(got))
	}
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	for name, good := range smallStreams(t) {
		starts := frameStarts(good)
		for i := range 8 * len(good) {
			b := bytes.Clone(good)
			b[i/8] ^= 1 << (i % 8)
			how := fmt.Sprintf("%s, bit %d of byte %d", name, i%8, i/8)
			mustBeRefused(t, good, b, how)
			_, _, err := receive(bytes.NewReader(b))
			frame := 0 // that has the bit
			for frame+1 < len(starts) && starts[frame+1] <= i/8 {
				frame++
			}
			if e, _ := errors.AsType[*Error](err); e.Frame != int64(frame) || e.Offset != int64(starts[frame]) {
				t.Fatalf("%s: the error says frame %d at byte %d, it is frame %d at %d: %v", how, e.Frame, e.Offset, frame, starts[frame], err)
			}
		}
	}
}

func TestStreamCutAnywhereIsRefused(t *testing.T) {
	for name, good := range smallStreams(t) {
		for n := range good {
			how := fmt.Sprintf("%s, cut after %d bytes", name, n)
			mustBeRefused(t, good, good[:n], how)
			if _, _, err := receive(bytes.NewReader(good[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s: %v", how, err)
			}
		}
	}
}

// frameStarts returns where the header and the frames of a stream begin.
func frameStarts(b []byte) []int {
	starts := []int{0}
	at := prefixSize + int(binary.LittleEndian.Uint16(b[10:])) + checkSize
	for at < len(b) {
		starts = append(starts, at)
		at += headSize + int(binary.LittleEndian.Uint32(b[at:])) + checkSize
	}
	return starts
}

func TestFramesCannotBeLostDoubledMovedOrMixed(t *testing.T) {
	for name, good := range smallStreams(t) {
		starts := append(frameStarts(good), len(good))
		part := func(i int) []byte { return good[starts[i]:starts[i+1]] }
		n := len(starts) - 1
		build := func(order func(i int) []int) []byte {
			var b []byte
			for i := range n {
				for _, k := range order(i) {
					b = append(b, part(k)...)
				}
			}
			return b
		}
		for at := range n {
			if at > 0 { // without a header it is no stream, which flips have shown
				mustBeRefused(t, good, build(func(i int) []int {
					if i == at {
						return nil
					}
					return []int{i}
				}), fmt.Sprintf("%s without frame %d", name, at))
			}
			if at < n-1 { // End twice is bytes beyond the stream
				mustBeRefused(t, good, build(func(i int) []int {
					if i == at {
						return []int{i, i}
					}
					return []int{i}
				}), fmt.Sprintf("%s with frame %d twice", name, at))
			}
			for other := at + 1; other < n; other++ {
				mustBeRefused(t, good, build(func(i int) []int {
					switch i {
					case at:
						return []int{other}
					case other:
						return []int{at}
					}
					return []int{i}
				}), fmt.Sprintf("%s with frames %d and %d exchanged", name, at, other))
			}
		}

		h, frames, level := testHeader, smallFrames, 0
		switch name {
		case "zstd":
			level = 2
		case "set":
			h, frames = setHeader, setFrames
		}
		h.To[0]++
		second := send(t, h, Options{Compression: level}, frames)
		for at := 1; at < n; at++ { // of the same shape, so that frames begin at the same bytes
			mustBeRefused(t, good, append(bytes.Clone(good[:starts[at]]), second[starts[at]:]...),
				fmt.Sprintf("%s continued by another stream at frame %d", name, at))
		}
	}
}

func TestNothingIsReadBeyondTheEnd(t *testing.T) {
	for name, b := range smallStreams(t) {
		src := bytes.NewReader(append(bytes.Clone(b), "next"...))
		if _, _, err := receive(src); err != nil || src.Len() != len("next") {
			t.Errorf("%s: %d bytes are left, %v", name, src.Len(), err)
		}
	}
}

// TestCheckpointArrivesBeforeMoreIsSent: otherwise a receiver could not say
// where to continue after the sender has gone.
func TestCheckpointArrivesBeforeMoreIsSent(t *testing.T) {
	for level := range 2 {
		in, out := io.Pipe()
		arrived := make(chan error, 1)
		go func() {
			_, frames, err := receive(in)
			in.Close() // or the sender would wait for a reader that has given up
			if len(frames) != 2 || frames[1].Kind != Checkpoint || frames[1].Cursor != 5 || frames[1].Digest == 0 {
				err = fmt.Errorf("got %+v, %v", frames, err)
			} else if errors.Is(err, io.ErrUnexpectedEOF) {
				err = nil
			}
			arrived <- err
		}()
		w, err := NewWriter(out, testHeader, Options{Compression: level})
		if err == nil {
			err = w.Write(1, format.Plain, data(1, 4096))
		}
		if err == nil {
			err = w.Checkpoint(5)
		}
		out.Close() // a pipe's Close cannot fail
		if err != nil {
			t.Fatal(err)
		}
		if err := <-arrived; err != nil {
			t.Error(err)
		}
	}
}

func TestWriterRefusesWhatTheReaderWould(t *testing.T) {
	full := data(1, 4096)
	for name, misuse := range map[string]func(*Writer) error{
		"same record":        func(w *Writer) error { return w.Write(9, 0, full) },
		"earlier record":     func(w *Writer) error { return w.Write(3, 0, full) },
		"beyond the volume":  func(w *Writer) error { return w.Write(41, 0, full) },
		"short record":       func(w *Writer) error { return w.Write(10, 0, full[:100]) },
		"empty record":       func(w *Writer) error { return w.Write(10, format.Zstd, nil) },
		"long record":        func(w *Writer) error { return w.Write(10, format.Zstd, make([]byte, 4097)) },
		"wrong last record":  func(w *Writer) error { return w.Write(40, 0, full[:99]) },
		"codec":              func(w *Writer) error { return w.Write(10, 3, full) },
		"empty hole":         func(w *Writer) error { return w.Hole(10, 0) },
		"early hole":         func(w *Writer) error { return w.Hole(9, 1) },
		"long hole":          func(w *Writer) error { return w.Hole(10, 32) },
		"overflowing hole":   func(w *Writer) error { return w.Hole(10, 1<<64-1) },
		"cursor going back":  func(w *Writer) error { return w.Checkpoint(9) },
		"cursor too far":     func(w *Writer) error { return w.Checkpoint(42) },
		"property, no key":   func(w *Writer) error { return w.Property("", nil) },
		"property, long key": func(w *Writer) error { return w.Property(string(make([]byte, 256)), nil) },
		"property, value":    func(w *Writer) error { return w.Property("k", make([]byte, MaxValue+1)) },
	} {
		w, err := NewWriter(io.Discard, testHeader, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(9, 0, full); err != nil {
			t.Fatal(err)
		}
		if err = misuse(w); err == nil {
			t.Errorf("%s was taken", name)
		}
		if again := w.Close(); again != err {
			t.Errorf("%s: Close says %v after %v", name, again, err)
		}
	}
}

func TestBadHeadersAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Header){
		"no pool":          func(h *Header) { h.Pool = ID{} },
		"no volume":        func(h *Header) { h.Volume = ID{} },
		"no snapshot":      func(h *Header) { h.To = ID{} },
		"from is to":       func(h *Header) { h.From = h.To },
		"size":             func(h *Header) { h.Size = 1 << 63 },
		"record size":      func(h *Header) { h.RecordSize = 5000 },
		"tiny record":      func(h *Header) { h.RecordSize = 2048 },
		"huge record":      func(h *Header) { h.RecordSize = 256 << 10 },
		"resume":           func(h *Header) { h.Resume = 42 },
		"name":             func(h *Header) { h.Name = "\xff" },
		"name of from":     func(h *Header) { h.FromName = "\xff" },
		"long name":        func(h *Header) { h.Name = string(make([]byte, 1025)) },
		"unnamed feature":  func(h *Header) { h.Features = []string{""} },
		"too many of them": func(h *Header) { h.Features = make([]string, 17) },
	} {
		h := testHeader
		spoil(&h)
		if _, err := NewWriter(io.Discard, h, Options{}); err == nil {
			t.Errorf("%s: the writer took it", name)
		}
		if _, err := NewReader(bytes.NewReader(seal(h.pack(), nil))); !errors.Is(err, format.ErrDamaged) {
			t.Errorf("%s: the reader says %v", name, err)
		}
	}
}

// seal puts checks behind a header and frames that have none.
func seal(header []byte, frames []byte) []byte {
	var out []byte
	check := func(b []byte) {
		out = append(out, b...)
		out = binary.LittleEndian.AppendUint64(out, xxhash.Sum64(out))
	}
	check(header)
	for len(frames) >= headSize {
		n := min(len(frames), headSize+int(binary.LittleEndian.Uint32(frames)%(4*MaxPack)))
		check(frames[:n])
		frames = frames[n:]
	}
	return out
}

// rawFrame makes a frame without its check.
func rawFrame(k Kind, flags byte, payload []byte) []byte {
	b := append(appendHead(nil, k), payload...)
	b[5] = flags
	finishHead(b, 0, 0)
	return b
}

func TestNewerStreamsAreRefusedByNameUnlessTheySayOptional(t *testing.T) {
	h := testHeader
	h.Features = []string{"dataset", "time travel"}
	b := send(t, h, Options{}, smallFrames)
	_, _, err := receive(bytes.NewReader(b), "dataset")
	if !errors.Is(err, ErrUnsupported) || errors.Is(err, format.ErrDamaged) || !bytes.Contains([]byte(err.Error()), []byte(`"time travel"`)) {
		t.Errorf("unknown feature: %v", err)
	}
	if _, _, err := receive(bytes.NewReader(b), "dataset", "time travel"); err != nil {
		t.Errorf("known features: %v", err)
	}

	end := rawFrame(End, 0, []byte{0, 0, 0, 0, 2})
	skipped := seal(testHeader.pack(), append(rawFrame(77, optional, []byte("ignore me")), end...))
	if _, frames, err := receive(bytes.NewReader(skipped)); err != nil || len(frames) != 1 {
		t.Errorf("optional frame: %+v, %v", frames, err)
	}
	for name, f := range map[string][]byte{
		"kind":           rawFrame(77, 0, nil),
		"kind and flags": rawFrame(77, optional|2, nil),
		"flags":          rawFrame(Property, optional, []byte("\x01kv")),
	} {
		if _, _, err := receive(bytes.NewReader(seal(testHeader.pack(), append(f, end...)))); !errors.Is(err, ErrUnsupported) {
			t.Errorf("unknown %s: %v", name, err)
		}
	}
}

func TestHostileStreamTakesBoundedMemory(t *testing.T) {
	big := rawFrame(Write, 0, nil)
	binary.LittleEndian.PutUint32(big, 1<<32-1)
	r, err := NewReader(bytes.NewReader(append(seal(testHeader.pack(), nil), big...)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); !errors.Is(err, format.ErrDamaged) || cap(r.buf) > 2*MaxPayload {
		t.Errorf("frame of 4 GiB: %d bytes allocated, %v", cap(r.buf), err)
	}

	h := testHeader
	h.Features = []string{featureZstd}
	w, err := NewWriter(io.Discard, h, Options{Compression: 1})
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"bomb":    make([]byte, 64<<20),
		"nothing": {},
		"pack":    rawFrame(pack, 0, nil),
		"End":     rawFrame(End, 0, []byte{0, 0, 0, 0, 2}),
		"cut":     rawFrame(Hole, 0, []byte{1, 1})[:9],
	} {
		body := seal(h.pack(), rawFrame(pack, 0, w.enc.EncodeAll(raw, nil)))
		r, err := NewReader(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if f, err := r.Next(); !errors.Is(err, format.ErrDamaged) || errors.Is(err, io.ErrUnexpectedEOF) || cap(r.rest) > MaxPack {
			t.Errorf("pack with %s: %+v, %v", name, f, err)
		}
	}
}

func TestErrorsOfTheTransportAreKept(t *testing.T) {
	broken := errors.New("broken")
	for name, b := range smallStreams(t) {
		for n := range b {
			if _, _, err := receive(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken))); !errors.Is(err, broken) || errors.Is(err, format.ErrDamaged) {
				t.Fatalf("%s after %d bytes: %v", name, n, err)
			}
		}
	}
	w, err := NewWriter(brokenWriter{broken}, testHeader, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); !errors.Is(err, broken) {
		t.Errorf("Close says %v", err)
	}
	w, err = NewWriter(io.Discard, testHeader, Options{})
	if err != nil || w.Close() != nil || w.Close() == nil || w.Hole(1, 1) == nil {
		t.Error("a closed writer was used further")
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }
