package oci

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// Reading ahead changes neither bytes nor errors: a truncated layer must not pass for a
// whole one.
func TestReadAheadKeepsBytesAndErrors(t *testing.T) {
	cause := errors.New("the disk is gone")
	for _, size := range []int{0, 1, aheadChunk - 1, aheadChunk, aheadChunk + 1, 3*aheadChunks*aheadChunk + 5} {
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(i * 7 >> 3)
		}
		for name, end := range map[string]error{"end": nil, "cause": cause, "short": io.ErrUnexpectedEOF} {
			below := io.Reader(bytes.NewReader(want))
			if end != nil {
				below = io.MultiReader(below, iotest.ErrReader(end))
			}
			a := newReadAhead(below)
			got, err := io.ReadAll(a)
			if err != end || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %s: %d bytes and %v", size, name, len(got), err)
			}
			if n, again := a.Read(make([]byte, 1)); n != 0 || (end != nil && again != end) || (end == nil && again != io.EOF) {
				t.Errorf("%d bytes, %s: behind the end %d bytes and %v", size, name, n, again)
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// counted tells how far a reader was read.
type counted struct {
	r io.Reader
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// Who gives up leaves nobody behind who reads, and no more is read than is bounded.
func TestReadAheadEndsWithItsReader(t *testing.T) {
	for _, read := range []int{0, 1, 5 * aheadChunk} {
		below := &counted{r: endless{}}
		a := newReadAhead(below)
		if _, err := io.CopyN(io.Discard, a, int64(read)); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		// Nobody reads any more, which the race detector checks too.
		if most := read + (aheadChunks+1)*aheadChunk; below.n > most {
			t.Errorf("%d bytes were read of which %d were asked for, want at most %d", below.n, read, most)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
