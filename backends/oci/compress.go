package oci

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/laminafs/lamina/backends/driver"
)

// Compressions that layers can be saved with.
const (
	None = "none"
	Gzip = "gzip"
	Zstd = "zstd"
)

// decompress returns what a stream holds, by its first bytes.
func decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 256<<10)
	head, err := b.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return z, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(b)), nil
	case bytes.Equal(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, fmt.Errorf("xz is %w; decompress it first: xz -dc", driver.ErrUnsupported)
	}
	return io.NopCloser(b), nil
}

// compress returns a writer; closing it writes what is left and leaves w open.
func compress(w io.Writer, how string) (io.WriteCloser, error) {
	switch how {
	case None, "":
		return nopCloser{w}, nil
	case Gzip:
		return gzip.NewWriter(w), nil
	case Zstd:
		return zstd.NewWriter(w)
	}
	return nil, fmt.Errorf("compression %q is %w; accepted: none, gzip, zstd", how, driver.ErrUnsupported)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// errTooLong is told by a bounded reader.
var errTooLong = errors.New("the stream is longer than allowed")

// A bounded reader fails where io.LimitReader would tell of an end.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n, errTooLong
	}
	return n, err
}
