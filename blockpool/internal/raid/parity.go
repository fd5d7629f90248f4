package raid

import (
	"fmt"
	"sync"

	"github.com/klauspost/reedsolomon"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// encoders keeps one encoder per number of data columns and parity. Which
// matrices they use is part of the format on disk.
type encoders struct {
	mu  sync.RWMutex
	all [MaxColumns + 1][3]reedsolomon.Encoder
}

func (e *encoders) get(data, parity int) reedsolomon.Encoder {
	e.mu.RLock()
	enc := e.all[data][parity]
	e.mu.RUnlock()
	if enc != nil {
		return enc
	}
	options := []reedsolomon.Option{reedsolomon.WithMaxGoroutines(1)}
	if parity == 1 {
		options = append(options, reedsolomon.WithFastOneParityMatrix()) // exclusive or
	}
	enc, err := reedsolomon.New(data, parity, options...)
	if err != nil {
		panic(err) // fewer than MaxColumns columns, of a checked chunk, are always possible
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all[data][parity] = enc
	return enc
}

var zeroSector [format.SectorSize]byte

// encode computes the parity pieces of a record, which is padded to sectors,
// one after the other into parity. The rows that all pieces have are done at
// once; in the last row short pieces count as zeros.
func (e *encoders) encode(s *stripe, data, parity []byte) {
	enc := e.get(s.data(), s.parity)
	var room [MaxColumns][]byte
	shards := room[:s.count]
	common, height := s.all[s.count-1].bytes(), s.all[0].bytes() // the last piece is the shortest
	for i := range s.pieces() {
		p := &s.all[i]
		if i < s.parity {
			shards[i+s.data()] = parity[int64(i)*height:][:common]
		} else {
			shards[i-s.parity] = p.of(data)[:common]
		}
	}
	encode(enc, shards)
	if common == height {
		return
	}
	for i := range s.pieces() {
		p := &s.all[i]
		switch {
		case i < s.parity:
			shards[i+s.data()] = parity[int64(i)*height:][common:height]
		case p.bytes() == height:
			shards[i-s.parity] = p.of(data)[common:height]
		default:
			shards[i-s.parity] = zeroSector[:]
		}
	}
	encode(enc, shards)
}

func encode(enc reedsolomon.Encoder, shards [][]byte) {
	if err := enc.Encode(shards); err != nil {
		panic(fmt.Sprintf("raid: encode %d shards: %v", len(shards), err)) // of equal length, all there
	}
}
