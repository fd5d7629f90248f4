package format

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"
)

// MaxRecordSize is the most that a record may hold, in bytes.
const MaxRecordSize = 128 << 10

// A Codec says how the bytes of a record were packed before they were stored.
type Codec uint8

// The codecs. Their numbers are on disk.
const (
	Plain Codec = iota // as they are
	Zstd
	LZ4
)

// A Record says where the bytes of one record of a volume or file are, and what
// they must look like. It is the value of a tree's item.
type Record struct {
	Addr  Addr   // the first sector, parity included where the profile has it
	Size  uint32 // bytes stored, which a codec may have made fewer than the record's
	Codec Codec
	Sum   uint64 // [Sum] of the bytes stored
	Birth uint64 // transaction group that wrote it
	Owner uint64 // volume whose usage it counts in, whoever shares it now
}

// Sum is the checksum of records: XXH3 of 64 bits, without a seed. It tells damage,
// not forgery.
func Sum(b []byte) uint64 { return xxh3.Hash(b) }

// AppendRecord appends the packed form of r, about 20 bytes.
func AppendRecord(b []byte, r Record) []byte {
	b = append(b, byte(r.Codec))
	b = binary.LittleEndian.AppendUint64(b, r.Sum)
	b = binary.AppendUvarint(b, uint64(r.Addr))
	b = binary.AppendUvarint(b, uint64(r.Size))
	b = binary.AppendUvarint(b, r.Birth)
	return binary.AppendUvarint(b, r.Owner)
}

// ParseRecord is the inverse of [AppendRecord]. Bytes after the record are
// damage too.
func ParseRecord(b []byte) (Record, error) {
	if len(b) < 9 {
		return Record{}, fmt.Errorf("record of %d bytes is too short: %w", len(b), ErrDamaged)
	}
	r := Record{Codec: Codec(b[0]), Sum: binary.LittleEndian.Uint64(b[1:])}
	rest, fields := b[9:], [4]uint64{}
	for i := range fields {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			return Record{}, fmt.Errorf("record ends within field %d: %w", i, ErrDamaged)
		}
		fields[i], rest = v, rest[n:]
	}
	switch {
	case len(rest) != 0:
		return Record{}, fmt.Errorf("record has %d bytes too many: %w", len(rest), ErrDamaged)
	case r.Codec > LZ4:
		return Record{}, fmt.Errorf("record has codec %d: %w", r.Codec, ErrDamaged)
	case fields[1] == 0 || fields[1] > MaxRecordSize:
		return Record{}, fmt.Errorf("record of %d bytes: %w", fields[1], ErrDamaged)
	}
	r.Addr, r.Size, r.Birth, r.Owner = Addr(fields[0]), uint32(fields[1]), fields[2], fields[3]
	return r, nil
}
