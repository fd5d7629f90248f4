package intent

import (
	"encoding/binary"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A WriteRecord is the payload of [Write].
type WriteRecord struct {
	Volume uint64
	Offset uint64 // in bytes
	Data   []byte
}

// AppendWrite appends the packed form of w.
func AppendWrite(b []byte, w WriteRecord) []byte {
	b = binary.AppendUvarint(b, w.Volume)
	b = binary.AppendUvarint(b, w.Offset)
	return append(b, w.Data...)
}

// ParseWrite is the inverse of [AppendWrite]. Data is part of b.
func ParseWrite(b []byte) (w WriteRecord, err error) {
	rest, err := uvarints("write", b, &w.Volume, &w.Offset)
	if err != nil {
		return WriteRecord{}, err
	}
	if w.Offset+uint64(len(rest)) < w.Offset {
		return WriteRecord{}, fmt.Errorf("intent: a write of %d bytes at %d: %w", len(rest), w.Offset, format.ErrDamaged)
	}
	w.Data = rest
	return w, nil
}

// A PointerRecord is the payload of [Pointer].
type PointerRecord struct {
	Volume  uint64
	Number  uint64          // of the first record in the volume
	Records []format.Record // it, and those that follow it
}

// AppendPointer appends the packed form of p.
func AppendPointer(b []byte, p PointerRecord) []byte {
	b = binary.AppendUvarint(b, p.Volume)
	b = binary.AppendUvarint(b, p.Number)
	for _, r := range p.Records {
		// A record does not tell its length.
		at := len(b)
		b = format.AppendRecord(append(b, 0), r)
		b[at] = byte(len(b) - at - 1)
	}
	return b
}

// ParsePointer is the inverse of [AppendPointer].
func ParsePointer(b []byte) (p PointerRecord, err error) {
	rest, err := uvarints("pointer", b, &p.Volume, &p.Number)
	if err != nil {
		return PointerRecord{}, err
	}
	for len(rest) > 0 {
		n := int(rest[0])
		if n >= len(rest) {
			return PointerRecord{}, fmt.Errorf("intent: pointer ends within record %d: %w", len(p.Records), format.ErrDamaged)
		}
		r, err := format.ParseRecord(rest[1 : 1+n])
		if err != nil {
			return PointerRecord{}, fmt.Errorf("intent: pointer: %w", err)
		}
		p.Records, rest = append(p.Records, r), rest[1+n:]
	}
	return p, nil
}

// A RangeRecord is the payload of [Discard] and of [Zero].
type RangeRecord struct {
	Volume         uint64
	Offset, Length uint64 // in bytes
}

// AppendRange appends the packed form of r.
func AppendRange(b []byte, r RangeRecord) []byte {
	b = binary.AppendUvarint(b, r.Volume)
	b = binary.AppendUvarint(b, r.Offset)
	return binary.AppendUvarint(b, r.Length)
}

// ParseRange is the inverse of [AppendRange]. Bytes behind it are damage.
func ParseRange(b []byte) (r RangeRecord, err error) {
	rest, err := uvarints("range", b, &r.Volume, &r.Offset, &r.Length)
	if err != nil {
		return RangeRecord{}, err
	}
	if len(rest) != 0 || r.Offset+r.Length < r.Offset {
		return RangeRecord{}, fmt.Errorf("intent: a range of %d bytes at %d, and %d bytes more: %w", r.Length, r.Offset, len(rest), format.ErrDamaged)
	}
	return r, nil
}

// uvarints reads fields and returns what is behind them.
func uvarints(what string, b []byte, fields ...*uint64) (rest []byte, err error) {
	for i, field := range fields {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, fmt.Errorf("intent: %s ends within field %d: %w", what, i, format.ErrDamaged)
		}
		*field, b = v, b[n:]
	}
	return b, nil
}
