package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"unicode/utf8"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// The versions that there are.
const (
	versionVolume  = 1
	versionDataset = 2
)

// magic begins every stream. Its first byte is no ASCII, and its line ends show
// when a transfer as text has changed them.
const magic = "\x8bLAM\r\n\x1a\n"

const (
	prefixSize  = 16        // magic, version, length, zero
	fieldsSize  = 4*16 + 20 // those of fixed size
	maxName     = 1024      // bytes
	maxFields   = 8 << 10   // bytes of a header
	maxFeatures = 16
	featureZstd = "zstd" // there may be packs
)

// An ID names a pool, volume or snapshot for good: its guid.
type ID [16]byte

// A Header says what a stream is about.
type Header struct {
	Pool       ID
	Volume     ID
	Name       string // of the snapshot, VOLUME@NAME
	FromName   string // of the snapshot that the receiver must have, for people
	From       ID     // that snapshot; zeros for a full stream
	To         ID     // the snapshot that it has afterwards
	Size       uint64 // of the volume in To, in bytes
	RecordSize uint32 // bytes, a power of two
	Resume     uint64 // first record, or position, that the receiver does not have yet from an earlier stream
	Dataset    bool   // it is a dataset's, which has no size, and may have items
	Features   []string
}

// Records returns how many records the volume has, or a dataset may have.
func (h Header) Records() uint64 {
	if h.Dataset {
		return 1 << 63
	}
	n := h.Size / uint64(h.RecordSize)
	if h.Size%uint64(h.RecordSize) != 0 {
		n++
	}
	return n
}

// Last returns the highest cursor that there may be: with it everything has come.
func (h Header) Last() uint64 {
	if h.Dataset {
		return math.MaxUint64
	}
	return h.Records()
}

func (h Header) check() error {
	switch {
	case h.Dataset && h.Size != 0:
		return fmt.Errorf("a dataset of %d bytes", h.Size)
	case h.Pool == ID{} || h.Volume == ID{} || h.To == ID{}:
		return errors.New("a pool, volume or snapshot without an id")
	case h.From == h.To:
		return errors.New("from and to are the same snapshot")
	case h.Size > math.MaxInt64:
		return fmt.Errorf("a volume of %d bytes", h.Size)
	case h.RecordSize < format.SectorSize || h.RecordSize > format.MaxRecordSize || bits.OnesCount32(h.RecordSize) != 1:
		return fmt.Errorf("records of %d bytes", h.RecordSize)
	case h.Resume > h.Last():
		return fmt.Errorf("continues at record %d of %d", h.Resume, h.Records())
	case len(h.Features) > maxFeatures:
		return fmt.Errorf("%d features", len(h.Features))
	}
	for _, name := range []string{h.Name, h.FromName} {
		if len(name) > maxName || !utf8.ValidString(name) {
			return fmt.Errorf("%.40q is no name of a snapshot", name)
		}
	}
	for _, f := range h.Features {
		if f == "" || len(f) > 255 || !utf8.ValidString(f) {
			return fmt.Errorf("%.40q is no name of a feature", f)
		}
	}
	return nil
}

// pack returns the header without its check.
func (h Header) pack() []byte {
	b := append([]byte(magic), make([]byte, prefixSize-len(magic))...)
	le := binary.LittleEndian
	for _, id := range []ID{h.Pool, h.Volume, h.From, h.To} {
		b = append(b, id[:]...)
	}
	b = le.AppendUint64(b, h.Size)
	b = le.AppendUint64(b, h.Resume)
	b = le.AppendUint32(b, h.RecordSize)
	for _, name := range []string{h.Name, h.FromName} {
		b = append(le.AppendUint16(b, uint16(len(name))), name...)
	}
	b = append(b, byte(len(h.Features)))
	for _, f := range h.Features {
		b = append(append(b, byte(len(f))), f...)
	}
	le.PutUint16(b[8:], h.version())
	le.PutUint16(b[10:], uint16(len(b)-prefixSize))
	return b
}

func (h Header) version() uint16 {
	if h.Dataset {
		return versionDataset
	}
	return versionVolume
}

// parsePrefix returns how many bytes of fields follow, and whether the stream is of
// a dataset.
func parsePrefix(b []byte) (n int, dataset bool, err error) {
	le := binary.LittleEndian
	if string(b[:8]) != magic {
		return 0, false, errors.New("this is no stream of a volume, or it was transferred as text")
	}
	v := le.Uint16(b[8:])
	if v != versionVolume && v != versionDataset {
		return 0, false, fmt.Errorf("version %d is not known: %w", v, ErrUnsupported)
	}
	n = int(le.Uint16(b[10:]))
	if n < fieldsSize || n > maxFields || le.Uint32(b[12:]) != 0 {
		return 0, false, fmt.Errorf("a header of %d bytes", n)
	}
	return n, v == versionDataset, nil
}

// unpackFields takes what is behind the prefix.
func unpackFields(b []byte, dataset bool) (Header, error) {
	le := binary.LittleEndian
	h := Header{
		Pool: ID(b), Volume: ID(b[16:]), From: ID(b[32:]), To: ID(b[48:]),
		Size: le.Uint64(b[64:]), Resume: le.Uint64(b[72:]), RecordSize: le.Uint32(b[80:]), Dataset: dataset,
	}
	short := errors.New("the header is cut off")
	take := func(n int) (s string) {
		if n > len(b) {
			n, b = 0, nil
			return ""
		}
		s, b = string(b[:n]), b[n:]
		return s
	}
	b = b[fieldsSize:]
	for _, name := range []*string{&h.Name, &h.FromName} {
		n := take(2)
		if n == "" {
			return h, short
		}
		size := int(n[0]) | int(n[1])<<8
		if *name = take(size); len(*name) != size {
			return h, short
		}
	}
	count := take(1)
	if count == "" {
		return h, short
	}
	for range count[0] {
		n := take(1)
		if n == "" {
			return h, short
		}
		f := take(int(n[0]))
		if len(f) != int(n[0]) {
			return h, short
		}
		h.Features = append(h.Features, f)
	}
	if len(b) > 0 {
		return h, fmt.Errorf("the header has %d bytes too many", len(b))
	}
	return h, h.check()
}

// unknown returns the features that are in none of the lists.
func (h Header) unknown(known ...string) []string {
	var out []string
	for _, f := range h.Features {
		if !slices.Contains(known, f) {
			out = append(out, f)
		}
	}
	return out
}
