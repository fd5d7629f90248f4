package tarlayer

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// A source is the bytes of an archive, and where the unpacked ones are.
type source struct {
	name   string
	packed io.ReaderAt
	size   int64
	opt    *Options
	format string // "", "gzip", "zstd"

	once     sync.Once
	unpacked io.ReaderAt
	temp     *os.File
	err      error
}

// Compression returns "gzip", "zstd" or "" for bytes that begin like an
// archive. Formats that are known and cannot be read are an error.
func Compression(head []byte) (string, error) {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return "gzip", nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(head) > 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}):
		return "zstd", nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return "", errors.New("compressed by bzip2, which is not read here; unpack it with bunzip2 first")
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return "", errors.New("compressed by xz, which is not read here; unpack it with unxz first")
	}
	return "", nil
}

func newSource(name string, r io.ReaderAt, size int64, opt *Options) (*source, error) {
	s := &source{name: name, packed: r, size: size, opt: opt}
	head := make([]byte, 8)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: read: %w", name, err)
	}
	if s.format, err = Compression(head[:n]); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// stream returns the unpacked bytes from the start. It fails past the limits.
func (s *source) stream(progress bool) (io.Reader, func(), error) {
	in := &counter{r: io.NewSectionReader(s.packed, 0, s.size)}
	if progress && s.opt.Progress != nil {
		in.tell = func(n int64) { s.opt.Progress(n, s.size) }
	}
	limit := &limited{in: in, s: s}
	switch s.format {
	case "gzip":
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: gzip: %w: %w", s.name, ErrCorrupt, err)
		}
		limit.r = z
		return limit, func() {}, nil
	case "zstd":
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: zstd: %w: %w", s.name, ErrCorrupt, err)
		}
		limit.r = z
		return limit, z.Close, nil
	}
	return in, func() {}, nil
}

// data returns the unpacked bytes at any offset. Of a compressed archive that
// is a temporary file, made by the first call.
func (s *source) data() (io.ReaderAt, error) {
	if s.format == "" {
		return s.packed, nil
	}
	s.once.Do(func() { s.unpacked, s.err = s.unpack() })
	return s.unpacked, s.err
}

func (s *source) unpack() (io.ReaderAt, error) {
	f, err := os.CreateTemp(s.opt.TempDir, "lamina-inspect-*")
	if err != nil {
		return nil, fmt.Errorf("%s: a place to unpack to: %w; TMPDIR names another", s.name, err)
	}
	os.Remove(f.Name()) // the descriptor is enough
	r, end, err := s.stream(true)
	if err == nil {
		_, err = io.Copy(f, r)
		end()
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: unpack: %w", s.name, err)
	}
	s.temp = f
	return f, nil
}

func (s *source) close() error {
	if s.temp != nil {
		return s.temp.Close()
	}
	return nil
}

// counter counts what is read, and seeks where what is below can: tar headers
// of an archive that is not compressed are read without the data between them.
type counter struct {
	r    *io.SectionReader
	n    int64
	tell func(int64)
	told int64
}

const tellEvery = 1 << 20

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.moved(c.n + int64(n))
	return n, err
}

func (c *counter) Seek(off int64, whence int) (int64, error) {
	n, err := c.r.Seek(off, whence)
	if err == nil {
		c.moved(n)
	}
	return n, err
}

func (c *counter) moved(n int64) {
	c.n = n
	if c.tell != nil && n-c.told >= tellEvery {
		c.told = n
		c.tell(n)
	}
}

// limited gives out what was unpacked as long as the limits allow.
type limited struct {
	r   io.Reader
	in  *counter
	s   *source
	out int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.out += int64(n)
	o := &l.s.opt.Limits
	if l.out > o.Bytes || l.out > 1<<30 && l.out/o.Ratio > l.in.n {
		return 0, fmt.Errorf("%s: %d bytes unpack to more than %d: %w", l.s.name, l.in.n, l.out, ErrTooLarge)
	}
	if err != nil && err != io.EOF && !errors.Is(err, unix.EIO) {
		err = fmt.Errorf("%s: %s: %w: %w", l.s.name, l.s.format, ErrCorrupt, err)
	}
	return n, err
}
