package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// Limits, in bytes. They are part of the format.
const (
	MaxPayload = 1 << 20 // of a frame
	MaxPack    = 1 << 20 // of the frames in a Pack, decompressed
	MaxKey     = 255
	MaxValue   = 64 << 10

	MaxItemKey   = 255
	MaxItemValue = 1024
)

const (
	headSize  = 8
	checkSize = 8
	optional  = 1 // flag: may be skipped by who does not know the kind
)

// A Kind says what a frame is.
type Kind uint8

// The kinds. Their numbers are in streams. Readers hand out all but packs.
const (
	Write      Kind = 1 // a record
	Hole       Kind = 2 // records that read as zeros from now on
	Checkpoint Kind = 3 // a place where a later stream can continue
	Property   Kind = 4 // a key and a value that go with the volume
	pack       Kind = 5
	End        Kind = 6 // the last frame of every whole stream
	Items      Kind = 7 // items of a dataset
)

var kindNames = [...]string{Write: "Write", Hole: "Hole", Checkpoint: "Checkpoint", Property: "Property", pack: "Pack", End: "End", Items: "Items"}

func (k Kind) String() string {
	if int(k) < len(kindNames) && k != 0 {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// A Frame is a part of a stream. Which fields count depends on Kind.
type Frame struct {
	Kind   Kind
	Record uint64       // Write, and the first one of a Hole
	Count  uint64       // Hole: how many records
	Codec  format.Codec // Write: how Data was packed before it was stored
	Data   []byte       // Write; valid until the next call of Next
	Cursor uint64       // Checkpoint: all records below it are in the stream so far, or unchanged
	Digest uint64       // Checkpoint and End: xxhash64 of the stream before the frame's check
	Key    string       // Property
	Value  []byte       // Property; valid until the next call of Next
	Items  []Item       // Items; valid until the next call of Next
	Totals Totals       // End
}

// An Item is what an item of a dataset is from now on.
type Item struct {
	Key, Value []byte
	Deleted    bool
}

// Totals counts what is in a stream.
type Totals struct {
	Writes     uint64
	Bytes      uint64 // of the records, as stored
	Holes      uint64 // records in holes
	Properties uint64
	Frames     uint64 // checks after the header's
	Items      uint64 // of a dataset
}

// appendHead begins a frame; finishHead enters the length of its payload.
func appendHead(b []byte, k Kind) []byte {
	return append(b, 0, 0, 0, 0, byte(k), 0, 0, 0)
}

func finishHead(b []byte, start, more int) {
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start-headSize+more))
}

// A head is what stands before a payload.
type head struct {
	length int
	kind   Kind
	flags  uint8
}

// parseHead takes the first headSize bytes of b.
func parseHead(b []byte) (head, error) {
	n := binary.LittleEndian.Uint32(b)
	h := head{length: int(n), kind: Kind(b[4]), flags: b[5]}
	switch {
	case n > MaxPayload:
		return h, fmt.Errorf("a frame of %d bytes, and the most is %d", n, MaxPayload)
	case b[6] != 0 || b[7] != 0:
		return h, errors.New("reserved bytes of the frame are in use")
	}
	return h, nil
}

// parsePayload is the inverse of the Writer's methods. Its slices are parts
// of b.
func parsePayload(k Kind, b []byte) (Frame, error) {
	f := Frame{Kind: k}
	v := varints{rest: b}
	switch k {
	case Write:
		if len(b) == 0 {
			return f, errors.New("no codec")
		}
		f.Codec, v.rest = format.Codec(b[0]), b[1:]
		f.Record = v.next()
		f.Data, v.rest = v.rest, nil
	case Hole:
		f.Record, f.Count = v.next(), v.next()
	case Checkpoint:
		f.Cursor = v.next()
	case Property:
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return f, errors.New("the key is cut off")
		}
		f.Key, f.Value, v.rest = string(b[1:1+b[0]]), b[1+b[0]:], nil
	case Items:
		f.Items, v.rest = parseItems(b)
		v.short = len(v.rest) > 0
	case End:
		f.Totals = Totals{Writes: v.next(), Bytes: v.next(), Holes: v.next(), Properties: v.next(), Frames: v.next()}
		if len(v.rest) > 0 {
			f.Totals.Items = v.next()
			v.short = v.short || f.Totals.Items == 0
		}
	}
	switch {
	case v.short:
		return f, errors.New("a number is cut off")
	case len(v.rest) > 0:
		return f, fmt.Errorf("%d bytes too many", len(v.rest))
	}
	return f, nil
}

// appendItem is the inverse of parseItems, for one.
func appendItem(b []byte, i Item) []byte {
	if i.Deleted {
		return append(append(b, 0, byte(len(i.Key))), i.Key...)
	}
	b = append(append(b, 1, byte(len(i.Key))), i.Key...)
	return append(binary.AppendUvarint(b, uint64(len(i.Value))), i.Value...)
}

// parseItems takes items off b. What it does not understand is left over.
func parseItems(b []byte) (list []Item, rest []byte) {
	for len(b) > 0 {
		if len(b) < 2 || b[0] > 1 || len(b) < 2+int(b[1]) {
			return list, b
		}
		end := 2 + int(b[1])
		i := Item{Key: b[2:end:end], Deleted: b[0] == 0}
		next := b[end:]
		if !i.Deleted {
			n, size := binary.Uvarint(next)
			if size <= 0 || n > uint64(len(next)-size) {
				return list, b
			}
			i.Value, next = next[size:size+int(n):size+int(n)], next[size+int(n):]
		}
		list, b = append(list, i), next
	}
	return list, nil
}

// Position returns the position of an item or record, by its key.
func Position(key []byte) uint64 {
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

// varints takes numbers off a slice. short says that one was not there.
type varints struct {
	rest  []byte
	short bool
}

func (v *varints) next() uint64 {
	n, size := binary.Uvarint(v.rest)
	if size <= 0 {
		v.short = true
		return 0
	}
	v.rest = v.rest[size:]
	return n
}

// progress judges frames by those before them, for both directions.
type progress struct {
	h      Header
	next   uint64 // first record, or position, that may follow
	item   []byte // key of the last item
	totals Totals
}

// take judges f and counts it in.
func (p *progress) take(f Frame) error {
	switch f.Kind {
	case Write:
		return p.takeWrite(f)
	case Hole:
		switch records := p.h.Records(); {
		case f.Record < p.next:
			return fmt.Errorf("record %d comes when %d and later are due", f.Record, p.next)
		case f.Count == 0:
			return errors.New("a hole without records")
		case f.Record >= records || f.Count > records-f.Record:
			return fmt.Errorf("%d records from %d of a volume with %d", f.Count, f.Record, records)
		}
		p.next = f.Record + f.Count
		p.totals.Holes += f.Count
	case Checkpoint:
		if f.Cursor < p.next || f.Cursor > p.h.Last() {
			return fmt.Errorf("cursor %d is not between %d and %d", f.Cursor, p.next, p.h.Last())
		}
		p.next = f.Cursor
	case Property:
		if f.Key == "" || len(f.Key) > MaxKey || len(f.Value) > MaxValue {
			return fmt.Errorf("a key of %d bytes and a value of %d", len(f.Key), len(f.Value))
		}
		p.totals.Properties++
	case Items:
		return p.takeItems(f)
	}
	return nil
}

func (p *progress) takeItems(f Frame) error {
	if !p.h.Dataset || len(f.Items) == 0 {
		return fmt.Errorf("%d items of a volume or dataset", len(f.Items))
	}
	for _, i := range f.Items {
		at := Position(i.Key)
		switch {
		case len(i.Key) == 0 || len(i.Key) > MaxItemKey || at < p.h.Records() || len(i.Value) > MaxItemValue:
			return fmt.Errorf("item with a key of %d bytes and a value of %d", len(i.Key), len(i.Value))
		case at < p.next || p.item != nil && bytes.Compare(i.Key, p.item) <= 0:
			return fmt.Errorf("item %x comes when %x is due", i.Key, p.next)
		}
		p.next, p.item = at, append(p.item[:0], i.Key...)
	}
	p.totals.Items += uint64(len(f.Items))
	return nil
}

func (p *progress) takeWrite(f Frame) error {
	records := p.h.Records()
	switch {
	case f.Record < p.next:
		return fmt.Errorf("record %d comes when %d and later are due", f.Record, p.next)
	case f.Record >= records:
		return fmt.Errorf("record %d of a volume with %d", f.Record, records)
	case f.Codec > format.LZ4:
		return fmt.Errorf("record %d has codec %d, which is not known", f.Record, f.Codec)
	case len(f.Data) == 0 || len(f.Data) > int(p.h.RecordSize):
		return fmt.Errorf("record %d has %d bytes, and records of the volume %d", f.Record, len(f.Data), p.h.RecordSize)
	case !p.h.Dataset && f.Codec == format.Plain && len(f.Data) < int(p.h.RecordSize) && uint64(len(f.Data)) != p.h.Size-f.Record*uint64(p.h.RecordSize):
		return fmt.Errorf("record %d has only %d bytes", f.Record, len(f.Data))
	}
	p.next = f.Record + 1
	p.totals.Writes++
	p.totals.Bytes += uint64(len(f.Data))
	return nil
}
