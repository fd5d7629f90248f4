package stream

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

func benchStream(b *testing.B, w io.Writer, recordSize, level int) {
	h := testHeader
	h.RecordSize, h.Size = uint32(recordSize), 16<<20
	s, err := NewWriter(w, h, Options{Compression: level})
	if err != nil {
		b.Fatal(err)
	}
	record := data(1, recordSize)
	for i := range h.Records() {
		if err := s.Write(i, format.Plain, record); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkWriter(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10} {
		for _, level := range []int{0, 1} {
			b.Run(fmt.Sprintf("record=%d/level=%d", size, level), func(b *testing.B) {
				b.SetBytes(16 << 20)
				for b.Loop() {
					benchStream(b, io.Discard, size, level)
				}
			})
		}
	}
}

func BenchmarkReader(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10} {
		for _, level := range []int{0, 1} {
			b.Run(fmt.Sprintf("record=%d/level=%d", size, level), func(b *testing.B) {
				var s bytes.Buffer
				benchStream(b, &s, size, level)
				b.SetBytes(16 << 20)
				for b.Loop() {
					r, err := NewReader(bytes.NewReader(s.Bytes()))
					for err == nil {
						_, err = r.Next()
					}
					if err != io.EOF {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
