package blockpool

import (
	"fmt"
	"math"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A Kind tells what an entry of the catalogue is.
type Kind uint8

// The kinds. Their numbers are on disk.
const (
	KindVolume   Kind = iota + 1 // may be written
	KindSnapshot                 // stays as it is
)

func (k Kind) String() string {
	switch k {
	case KindVolume:
		return "volume"
	case KindSnapshot:
		return "snapshot"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// An entry is what the catalogue keeps of a volume or snapshot.
type entry struct {
	id         uint64
	guid       GUID
	name       string // a snapshot's is VOLUME@NAME
	kind       Kind
	origin     uint64       // a snapshot: what it was taken of; a clone: what it was cloned from
	root       btree.NodeID // of its map
	size       int64        // virtual size in bytes
	recordSize int64        // in bytes
	referenced int64        // bytes that its map names
	created    time.Time
	createdTxg uint64
	writtenTxg uint64 // the last one that changed its map

	quota       int64 // limit of used bytes, snapshots included; 0: none
	refquota    int64 // limit of referenced bytes; 0: none
	reservation int64 // bytes kept free for it
	used        int64 // bytes in use that it has written, also if only snapshots and clones name them now

	content     content
	objects     uint64      // counted items of a dataset's tree
	compression Compression // of what is written to a dataset
	props       local       // that somebody has set

	receiving []byte // state of a stream that is being received; nobody may open it before its end
}

// content tells what the tree of an entry holds. The numbers are on disk.
type content uint8

const (
	contentBytes   content = iota // records, one after the other: a volume
	contentObjects                // records of objects, and items: a dataset
)

const entryVersion = 1

// Tags of an entry's fields on disk.
const (
	entryGUID = iota + 1
	entryName
	entryKind
	entryOrigin
	entryRoot
	entrySize
	entryRecordSize
	entryReferenced
	entryCreated
	entryCreatedTxg
	entryWrittenTxg
	entryQuota
	entryRefquota
	entryReservation
	entryUsed
	entryReceiving
	entryContent
	entryObjects
	entryCompression
	entryProps
)

// pack returns the value of the entry in the catalogue's bucket, whose key is
// the id.
func (e *entry) pack() []byte {
	f := format.NewFields(entryVersion)
	f.Bytes(entryGUID, e.guid[:])
	f.String(entryName, e.name)
	f.Uint(entryKind, uint64(e.kind))
	f.Uint(entryOrigin, e.origin)
	f.Uint(entryRoot, uint64(e.root))
	f.Uint(entrySize, uint64(e.size))
	f.Uint(entryRecordSize, uint64(e.recordSize))
	f.Uint(entryReferenced, uint64(e.referenced))
	f.Uint(entryCreated, uint64(e.created.UnixNano()))
	f.Uint(entryCreatedTxg, e.createdTxg)
	f.Uint(entryWrittenTxg, e.writtenTxg)
	f.Uint(entryQuota, uint64(e.quota))
	f.Uint(entryRefquota, uint64(e.refquota))
	f.Uint(entryReservation, uint64(e.reservation))
	f.Uint(entryUsed, uint64(e.used))
	if e.content != contentBytes {
		f.Uint(entryContent, uint64(e.content))
		f.Uint(entryObjects, e.objects)
		f.Uint(entryCompression, uint64(e.compression))
	}
	if e.receiving != nil {
		f.Bytes(entryReceiving, e.receiving)
	}
	if e.props != nil {
		f.Bytes(entryProps, e.props.pack())
	}
	return f
}

// unpackEntry is the inverse of pack.
func unpackEntry(id uint64, b []byte) (*entry, error) {
	e := &entry{id: id}
	var kind, root, content_, compression uint64
	var created int64
	err := format.ParseFields(b, entryVersion, func(f format.Field) error {
		switch f.Tag {
		case entryGUID:
			return f.Fixed(e.guid[:])
		case entryName:
			e.name = f.String()
			return nil
		case entryKind:
			return f.Uint(&kind)
		case entryOrigin:
			return f.Uint(&e.origin)
		case entryRoot:
			return f.Uint(&root)
		case entrySize:
			return f.Int(&e.size)
		case entryRecordSize:
			return f.Int(&e.recordSize)
		case entryReferenced:
			return f.Int(&e.referenced)
		case entryCreated:
			return f.Int(&created)
		case entryCreatedTxg:
			return f.Uint(&e.createdTxg)
		case entryWrittenTxg:
			return f.Uint(&e.writtenTxg)
		case entryQuota:
			return f.Int(&e.quota)
		case entryRefquota:
			return f.Int(&e.refquota)
		case entryReservation:
			return f.Int(&e.reservation)
		case entryUsed:
			return f.Int(&e.used)
		case entryReceiving:
			e.receiving = append([]byte{}, f.Bytes()...)
			return nil
		case entryContent:
			return f.Uint(&content_)
		case entryObjects:
			return f.Uint(&e.objects)
		case entryCompression:
			return f.Uint(&compression)
		case entryProps:
			var err error
			e.props, err = unpackLocal(f.Bytes())
			return err
		default:
			return f.Unknown()
		}
	})
	e.kind, e.root, e.created = Kind(kind), btree.NodeID(root), time.Unix(0, created)
	e.content, e.compression = content(content_), Compression(compression)
	switch {
	case err != nil:
		return nil, fmt.Errorf("catalogue: entry %d: %w", id, err)
	case e.kind != KindVolume && e.kind != KindSnapshot:
		return nil, fmt.Errorf("catalogue: entry %d is a %v: %w", id, e.kind, ErrDamaged)
	case e.content > contentObjects || content_ > uint64(contentObjects):
		return nil, fmt.Errorf("catalogue: entry %d has content of kind %d: %w", id, content_, ErrDamaged)
	case compression > math.MaxUint16 || e.compression.check() != nil:
		return nil, fmt.Errorf("catalogue: entry %d has compression %d: %w", id, compression, ErrDamaged)
	case checkRecordSize(e.recordSize) != nil || e.size < 0:
		return nil, fmt.Errorf("catalogue: entry %d has %d bytes in records of %d: %w", id, e.size, e.recordSize, ErrDamaged)
	}
	return e, nil
}

// records returns how many records the entry may have.
func (e *entry) records() uint64 {
	if e.content == contentObjects {
		return (MaxObject + 1) << objectShift
	}
	return recordsIn(e.size, e.recordSize)
}

// fits reports whether rec may be one of the entry's records: of a volume they are
// all whole and as they are, of a dataset short or packed.
func (e *entry) fits(rec format.Record) bool {
	if e.content == contentObjects {
		return int64(rec.Size) <= e.recordSize
	}
	return rec.Codec == format.Plain && int64(rec.Size) == e.recordSize
}

func recordsIn(size, recordSize int64) uint64 {
	return uint64((size + recordSize - 1) / recordSize)
}

// checkRecordSize accepts the powers of two from 4K to 128K.
func checkRecordSize(n int64) error {
	if n < format.SectorSize || n > format.MaxRecordSize || n&(n-1) != 0 {
		return invalidf("record size %d is no power of two from %d to %d", n, format.SectorSize, format.MaxRecordSize)
	}
	return nil
}
