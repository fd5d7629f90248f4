package blockpool

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A Compression says how the records of a dataset are packed from now on: codec and
// level. Each record says how it was, so it may change at any time. A record that
// would not take fewer sectors is stored as it is.
type Compression uint16

// The compressions without a level of their own.
const (
	CompressionOff  Compression = 0
	CompressionLZ4  Compression = Compression(format.LZ4) << 8
	CompressionZstd Compression = Compression(format.Zstd)<<8 | 3
)

// maxZstdLevel is the highest level that zstd(1) has without --ultra.
const maxZstdLevel = 19

// ParseCompression is the inverse of [Compression.String]; "on" is lz4, as in zfs.
func ParseCompression(s string) (Compression, error) {
	switch s {
	case "off":
		return CompressionOff, nil
	case "on", "lz4":
		return CompressionLZ4, nil
	case "zstd":
		return CompressionZstd, nil
	}
	if level, ok := strings.CutPrefix(s, "zstd-"); ok {
		if n, err := strconv.Atoi(level); err == nil && n >= 1 && n <= maxZstdLevel {
			return Compression(format.Zstd)<<8 | Compression(n), nil
		}
	}
	return 0, invalidf("compression %q: it is off, on, lz4, zstd or zstd-1 to zstd-%d", s, maxZstdLevel)
}

func (c Compression) codec() format.Codec { return format.Codec(c >> 8) }
func (c Compression) level() int          { return int(c & 0xff) }

func (c Compression) check() error {
	switch {
	case c == CompressionOff, c == CompressionLZ4:
		return nil
	case c.codec() == format.Zstd && c.level() >= 1 && c.level() <= maxZstdLevel:
		return nil
	}
	return invalidf("compression %d", uint16(c))
}

func (c Compression) String() string {
	switch {
	case c == CompressionOff:
		return "off"
	case c == CompressionLZ4:
		return "lz4"
	case c == CompressionZstd:
		return "zstd"
	}
	return fmt.Sprintf("zstd-%d", c.level())
}

// encode returns the bytes to be stored for the content of a record. That of a
// dataset ends with its last sector that is not zeros, and is packed if that saves
// a sector.
func (e *entry) encode(content []byte) (format.Codec, []byte) {
	if e.content == contentBytes {
		return format.Plain, content
	}
	content = trimZeros(content)
	if e.compression == CompressionOff || len(content) <= format.SectorSize {
		return format.Plain, content
	}
	if packed := e.compression.pack(content); packed != nil {
		return e.compression.codec(), packed
	}
	return format.Plain, content
}

// A packedRecord is what encode makes of one.
type packedRecord struct {
	codec  format.Codec
	stored []byte
}

// sideBySide calls do with 0 to n-1, on all processors when that is worth it.
func sideBySide(worth bool, n int, do func(int)) {
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			do(i)
		}
	}
	var wg sync.WaitGroup
	if worth {
		for range min(n, runtime.GOMAXPROCS(0)) - 1 {
			wg.Go(work)
		}
	}
	work()
	wg.Wait()
}

// trimZeros leaves out sectors of zeros at the end, all but the first.
func trimZeros(b []byte) []byte {
	for len(b) > format.SectorSize && isZero(b[len(b)-format.SectorSize:]) {
		b = b[:len(b)-format.SectorSize]
	}
	return b
}

// pack returns b packed, nil if that takes as many sectors.
func (c Compression) pack(b []byte) []byte {
	most := len(b) - format.SectorSize // bytes that are fewer sectors
	switch c.codec() {
	case format.LZ4:
		dst := make([]byte, most)
		z := lz4Compressors.Get().(*lz4.Compressor)
		n, err := z.CompressBlock(b, dst)
		lz4Compressors.Put(z)
		if err != nil || n == 0 {
			return nil // it does not fit
		}
		return dst[:n]
	default:
		dst := zstdEncoder(c.level()).EncodeAll(b, make([]byte, 0, len(b)))
		if len(dst) > most {
			return nil
		}
		return dst
	}
}

// lz4Compressors are kept, as each has a table of 256K that would have to be made, and
// cleared, for each record.
var lz4Compressors = sync.Pool{New: func() any { return new(lz4.Compressor) }}

// zstdEncoders are made when they are first needed: one for each of the speeds that
// the library has.
var zstdEncoders [zstd.SpeedBestCompression + 1]struct {
	once sync.Once
	enc  *zstd.Encoder
}

func zstdEncoder(level int) *zstd.Encoder {
	speed := zstd.EncoderLevelFromZstd(level)
	e := &zstdEncoders[speed]
	e.once.Do(func() {
		// The only error would be one of the options.
		e.enc, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(speed), zstd.WithWindowSize(format.MaxRecordSize), zstd.WithEncoderCRC(false))
	})
	return e.enc
}

var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, _ := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(format.MaxRecordSize), zstd.WithDecoderConcurrency(0))
	return d
})

// unpacked returns what a packed record has; more than size bytes are damage.
func unpacked(codec format.Codec, packed []byte, size int64) ([]byte, error) {
	b := make([]byte, size)
	n, err := unpackInto(codec, packed, b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// decode unpacks a record into b, which is as long as the dataset's records are. What
// it lacks is zeros, and more than that is damage.
func decode(codec format.Codec, packed, b []byte) error {
	n, err := unpackInto(codec, packed, b)
	if err != nil {
		return err
	}
	clear(b[n:])
	return nil
}

// unpackInto unpacks a record into b and returns how many bytes it has.
func unpackInto(codec format.Codec, packed, b []byte) (n int, err error) {
	switch codec {
	case format.LZ4:
		n, err = lz4.UncompressBlock(packed, b)
	case format.Zstd:
		var out []byte
		out, err = zstdDecoder().DecodeAll(packed, b[:0:len(b)])
		if n = len(out); n > len(b) {
			return 0, damagedf("it unpacks to %d bytes, more than %d", n, len(b))
		}
	default:
		return 0, damagedf("codec %d", codec)
	}
	if err != nil {
		return 0, damagedf("codec %d: unpack: %v", codec, err)
	}
	return n, nil
}
