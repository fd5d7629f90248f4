package stream

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// FuzzReader takes whole streams, so that it seldom gets past a check.
func FuzzReader(f *testing.F) {
	for _, b := range smallStreams(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { receiveFuzzed(t, b) })
}

// FuzzFrames takes frames without checks, which it gets afterwards: what a
// sender with other ideas would send.
func FuzzFrames(f *testing.F) {
	f.Add(false, rawFrame(End, 0, []byte{0, 0, 0, 0, 1}))
	for name, b := range smallStreams(f) {
		var frames []byte
		starts := append(frameStarts(b), len(b))
		for i := 1; i < len(starts)-1; i++ {
			frames = append(frames, b[starts[i]:starts[i+1]-checkSize]...)
		}
		f.Add(name == "zstd", frames)
	}
	f.Fuzz(func(t *testing.T, zstd bool, b []byte) {
		h := testHeader
		if zstd {
			h.Features = []string{featureZstd}
		}
		receiveFuzzed(t, seal(h.pack(), b))
		receiveFuzzed(t, seal(setHeader.pack(), b))
	})
}

// FuzzPack takes the frames within a pack.
func FuzzPack(f *testing.F) {
	f.Add(append(rawFrame(Hole, 0, []byte{1, 1}), rawFrame(77, optional, []byte("x"))...))
	f.Add(rawFrame(Property, 0, []byte("\x01kv")))
	w, err := NewWriter(io.Discard, testHeader, Options{Compression: 1})
	if err != nil {
		f.Fatal(err)
	}
	h := testHeader
	h.Features = []string{featureZstd}
	f.Fuzz(func(t *testing.T, b []byte) {
		receiveFuzzed(t, seal(h.pack(), rawFrame(pack, 0, w.enc.EncodeAll(b, nil))))
	})
}

// FuzzHeader takes the fields of a header.
func FuzzHeader(f *testing.F) {
	f.Add(testHeader.pack())
	f.Add(setHeader.pack())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < prefixSize {
			return
		}
		receiveFuzzed(t, seal(b, rawFrame(End, 0, []byte{0, 0, 0, 0, 1})))
	})
}

// receiveFuzzed reads b. What is taken must be the same when sent again.
func receiveFuzzed(t *testing.T, b []byte) {
	h, frames, err := receive(bytes.NewReader(b))
	if err != nil {
		if !errors.Is(err, format.ErrDamaged) && !errors.Is(err, ErrUnsupported) {
			t.Fatalf("%v does not blame the stream", err)
		}
		return
	}
	again, againFrames, err := receive(bytes.NewReader(send(t, h, Options{}, frames)))
	if err != nil || !reflect.DeepEqual(again, h) || !reflect.DeepEqual(plain(againFrames), plain(frames)) {
		t.Fatalf("%+v %+v was sent and received as %+v %+v, %v", h, frames, again, againFrames, err)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(testHeader.Token(12).String())
	f.Add(setHeader.Token(1 << 63).String())
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			if !errors.Is(err, ErrToken) {
				t.Fatalf("%v does not blame the token", err)
			}
			return
		}
		if token.String() != s {
			t.Fatalf("%q is a second text of %q", s, token)
		}
	})
}
