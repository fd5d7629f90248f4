package intent

import (
	"encoding/binary"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A BatchRecord is the payload of [Batch]: what becomes of a dataset in one step.
// Replay does all of it or nothing, since it is one record.
type BatchRecord struct {
	Volume   uint64
	Items    []Item
	Parts    []Part
	Pointers []PointerRecord // of the same volume
	Holes    []Hole
}

// An Item is a new value of an item, or its end.
type Item struct {
	Key, Value []byte
	Deleted    bool
}

// A Part is new bytes within a record, or zeros.
type Part struct {
	Number uint64 // of the record
	Within uint64 // bytes from its beginning
	Data   []byte
	Zeros  uint64 // how many, if there is no data
}

// A Hole is records from First to End-1 that read as zeros.
type Hole struct{ First, End uint64 }

// Tags of what follows in a packed batch.
const (
	tagPut = iota + 1
	tagDelete
	tagPart
	tagZeros
	tagPointer
	tagHole
)

// AppendBatch appends the packed form of r.
func AppendBatch(b []byte, r BatchRecord) []byte {
	b = binary.AppendUvarint(b, r.Volume)
	for _, i := range r.Items {
		if i.Deleted {
			b = appendBytes(append(b, tagDelete), i.Key)
		} else {
			b = appendBytes(appendBytes(append(b, tagPut), i.Key), i.Value)
		}
	}
	for _, p := range r.Parts {
		tag := byte(tagPart)
		if p.Data == nil {
			tag = tagZeros
		}
		b = binary.AppendUvarint(append(b, tag), p.Number)
		b = binary.AppendUvarint(b, p.Within)
		if p.Data == nil {
			b = binary.AppendUvarint(b, p.Zeros)
		} else {
			b = appendBytes(b, p.Data)
		}
	}
	for _, p := range r.Pointers {
		p.Volume = r.Volume
		b = appendBytes(append(b, tagPointer), AppendPointer(nil, p))
	}
	for _, h := range r.Holes {
		b = binary.AppendUvarint(append(b, tagHole), h.First)
		b = binary.AppendUvarint(b, h.End)
	}
	return b
}

func appendBytes(b, field []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(field))), field...)
}

// ParseBatch is the inverse of [AppendBatch]. What it returns is part of b.
func ParseBatch(b []byte) (r BatchRecord, err error) {
	b, err = uvarints("batch", b, &r.Volume)
	for err == nil && len(b) > 0 {
		tag := b[0]
		b = b[1:]
		switch tag {
		case tagPut, tagDelete:
			i := Item{Deleted: tag == tagDelete}
			if i.Key, b, err = cutBytes(b); err == nil && !i.Deleted {
				i.Value, b, err = cutBytes(b)
			}
			r.Items = append(r.Items, i)
		case tagPart:
			p := Part{}
			if b, err = uvarints("batch", b, &p.Number, &p.Within); err == nil {
				p.Data, b, err = cutBytes(b)
			}
			r.Parts = append(r.Parts, p)
		case tagZeros:
			p := Part{}
			b, err = uvarints("batch", b, &p.Number, &p.Within, &p.Zeros)
			r.Parts = append(r.Parts, p)
		case tagPointer:
			var field []byte
			var p PointerRecord
			if field, b, err = cutBytes(b); err == nil {
				p, err = ParsePointer(field)
			}
			if err == nil && p.Volume != r.Volume {
				err = fmt.Errorf("intent: batch of volume %d with a pointer of volume %d: %w", r.Volume, p.Volume, format.ErrDamaged)
			}
			r.Pointers = append(r.Pointers, p)
		case tagHole:
			h := Hole{}
			if b, err = uvarints("batch", b, &h.First, &h.End); err == nil && h.First >= h.End {
				err = fmt.Errorf("intent: batch with a hole from %d to %d: %w", h.First, h.End, format.ErrDamaged)
			}
			r.Holes = append(r.Holes, h)
		default:
			err = fmt.Errorf("intent: batch with a part of kind %d: %w", tag, format.ErrDamaged)
		}
	}
	if err != nil {
		return BatchRecord{}, err
	}
	return r, nil
}

// cutBytes takes a field that begins with its length off b.
func cutBytes(b []byte) (field, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, fmt.Errorf("intent: batch ends within a field: %w", format.ErrDamaged)
	}
	b = b[size:]
	return b[:n:n], b[n:], nil
}
