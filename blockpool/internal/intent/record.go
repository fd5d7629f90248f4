package intent

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"
)

// A Kind says what a payload is. Kinds below FirstOther are of this package;
// what stores something else in the log takes its kinds from there on.
type Kind uint8

// The kinds. Their numbers are on disk.
const (
	Write      Kind = 1 // bytes of a volume, in the log itself
	Pointer    Kind = 2 // a record of a volume that was written to its final place
	Discard    Kind = 3 // a range of a volume that need not be kept
	Zero       Kind = 4 // a range of a volume that must read as zeros
	Batch      Kind = 5 // changes of a dataset that belong together
	end        Kind = 15
	FirstOther Kind = 16
)

// A record begins with
//
//	 0  4  magic "LmIL"
//	 4  4  crc32c of the 40 bytes that follow
//	 8  8  the pool: xxhash64 of its guid
//	16  8  txg
//	24  8  number within the txg, from 0
//	32  4  length of the payload
//	36  4  crc32c of the payload
//	40  1  kind
//	41  1  version
//	42  6  zero
//
// and goes on with the payload and zeros up to a multiple of 8 bytes. The header
// has a checksum of its own so that the txg of a torn record is known.
const (
	headerSize    = 48
	recordAlign   = 8
	recordVersion = 1
)

var (
	recordMagic = [4]byte{'L', 'm', 'I', 'L'}
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
	le          = binary.LittleEndian
)

func poolHash(guid [16]byte) uint64 { return xxhash.Sum64(guid[:]) }

type header struct {
	pool, txg, seq uint64
	length, sum    uint32
	kind           Kind
}

func alignUp(n, to int64) int64 { return (n + to - 1) / to * to }

// size returns how much of the log the record takes.
func (h header) size() int64 { return recordSize(int(h.length)) }

func recordSize(payload int) int64 { return alignUp(headerSize+int64(payload), recordAlign) }

// appendRecord appends the packed record.
func appendRecord(b []byte, h header, payload []byte) []byte {
	var p [headerSize]byte
	copy(p[:], recordMagic[:])
	le.PutUint64(p[8:], h.pool)
	le.PutUint64(p[16:], h.txg)
	le.PutUint64(p[24:], h.seq)
	le.PutUint32(p[32:], uint32(len(payload)))
	le.PutUint32(p[36:], crc32.Checksum(payload, castagnoli))
	p[40], p[41] = byte(h.kind), recordVersion
	le.PutUint32(p[4:], crc32.Checksum(p[8:], castagnoli))
	b = append(b, p[:]...)
	b = append(b, payload...)
	return append(b, make([]byte, recordSize(len(payload))-headerSize-int64(len(payload)))...)
}

// parseHeader returns the header at the start of b, which has headerSize bytes
// at least; ok is false if there is none of that pool.
func parseHeader(b []byte, pool uint64) (h header, ok bool) {
	if [4]byte(b) != recordMagic || le.Uint64(b[8:]) != pool || b[41] != recordVersion {
		return header{}, false
	}
	if le.Uint32(b[4:]) != crc32.Checksum(b[8:headerSize], castagnoli) {
		return header{}, false
	}
	return header{
		pool: pool, txg: le.Uint64(b[16:]), seq: le.Uint64(b[24:]),
		length: le.Uint32(b[32:]), sum: le.Uint32(b[36:]), kind: Kind(b[40]),
	}, true
}

// whole reports whether a payload is the one that the header was written for.
func (h header) whole(payload []byte) bool {
	return crc32.Checksum(payload, castagnoli) == h.sum
}
