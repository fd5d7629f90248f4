package meta

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A GUID names a pool.
type GUID = [16]byte

// A sealed value is
//
//	 0  2  magic "Lm"
//	 2  1  version of the seal
//	 3  1  bucket
//	 4  8  transaction group that wrote the value
//	12  4  crc32c of pool guid, these 12 bytes, length of the key, key and value
//	16     the value
//
// The sum covers what bbolt's pages may get wrong about a value: whose it is,
// which bucket and key it is under, and its bytes.
const (
	sealSize    = 16
	sealVersion = 1
)

var (
	sealMagic  = [2]byte{'L', 'm'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// seal fills the first sealSize bytes of room for the value behind them.
func seal(room []byte, guid GUID, b Bucket, txg uint64, key []byte) {
	copy(room, sealMagic[:])
	room[2], room[3] = sealVersion, byte(b)
	binary.LittleEndian.PutUint64(room[4:], txg)
	binary.LittleEndian.PutUint32(room[12:], sealSum(room, guid, key))
}

func sealSum(sealed []byte, guid GUID, key []byte) uint32 {
	var head [16 + 12 + 4]byte
	copy(head[:], guid[:])
	copy(head[16:], sealed[:12])
	binary.LittleEndian.PutUint32(head[28:], uint32(len(key)))
	sum := crc32.Update(0, castagnoli, head[:])
	sum = crc32.Update(sum, castagnoli, key)
	return crc32.Update(sum, castagnoli, sealed[sealSize:])
}

// unseal returns the value and the txg that wrote it. The error wraps
// [format.ErrDamaged] and names bucket and key.
func unseal(sealed []byte, guid GUID, b Bucket, key []byte) (value []byte, txg uint64, err error) {
	var what string
	switch {
	case len(sealed) < sealSize:
		what = "is shorter than its seal"
	case [2]byte(sealed) != sealMagic:
		what = "has no seal"
	case sealed[2] != sealVersion:
		what = fmt.Sprintf("has a seal of version %d", sealed[2])
	case Bucket(sealed[3]) != b:
		what = fmt.Sprintf("was written for bucket %v", Bucket(sealed[3]))
	case binary.LittleEndian.Uint32(sealed[12:]) != sealSum(sealed, guid, key):
		what = "does not match its checksum"
	default:
		return sealed[sealSize:], sealedBy(sealed), nil
	}
	return nil, 0, &valueError{fmt.Errorf("%v, key %x: the value %s: %w", b, key, what, format.ErrDamaged)}
}

// sealedBy returns the txg that wrote a value whose seal has been checked.
func sealedBy(sealed []byte) uint64 { return binary.LittleEndian.Uint64(sealed[4:]) }

// A valueError says that a key is there and its value is damaged.
type valueError struct{ error }

func (e *valueError) Unwrap() error { return e.error }

// entryHash is what one entry adds to the digest of all. A seal has a sum of
// the value, so its value need not be read.
func entryHash(sealed, key []byte) uint64 {
	var room [sealSize + 64]byte
	n := copy(room[:], sealed[:min(sealSize, len(sealed))])
	return xxhash.Sum64(append(room[:n], key...))
}

// A record is the value of the only key in bucket txg: which transaction group
// the file holds, and what all its other entries add up to.
type record struct {
	guid    GUID
	txg     uint64
	time    int64  // of the commit, in nanoseconds since 1970
	entries uint64 // number of keys in all other buckets
	digest  uint64 // sum of entryHash over them: proves that none is missing or stale
}

var recordKey = []byte("current")

const recordSize = 48

func (r record) sealed() []byte {
	b := make([]byte, sealSize, sealSize+recordSize)
	b = append(b, r.guid[:]...)
	b = binary.LittleEndian.AppendUint64(b, r.txg)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.time))
	b = binary.LittleEndian.AppendUint64(b, r.entries)
	b = binary.LittleEndian.AppendUint64(b, r.digest)
	seal(b, r.guid, Txg, r.txg, recordKey)
	return b
}

// parseRecord is the inverse of record.sealed. A record carries its pool's
// guid, so it can be read before that is known.
func parseRecord(sealed []byte) (record, error) {
	if len(sealed) != sealSize+recordSize {
		return record{}, fmt.Errorf("%v: a record of %d bytes: %w", Txg, len(sealed), format.ErrDamaged)
	}
	r := record{guid: GUID(sealed[sealSize:])}
	b, txg, err := unseal(sealed, r.guid, Txg, recordKey)
	if err != nil {
		return record{}, err
	}
	r.txg = binary.LittleEndian.Uint64(b[16:])
	r.time = int64(binary.LittleEndian.Uint64(b[24:]))
	r.entries = binary.LittleEndian.Uint64(b[32:])
	r.digest = binary.LittleEndian.Uint64(b[40:])
	if r.txg != txg {
		return record{}, fmt.Errorf("%v: a record of %d in a seal of %d: %w", Txg, r.txg, txg, format.ErrDamaged)
	}
	return r, nil
}

// replace returns the record after a change of one entry; nil is none.
func (r record) replace(key, old, new []byte) record {
	if old != nil {
		r.entries--
		r.digest -= entryHash(old, key)
	}
	if new != nil {
		r.entries++
		r.digest += entryHash(new, key)
	}
	return r
}
