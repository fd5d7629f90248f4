package raid

import (
	"sync"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A buffer is scratch memory from a pool. It holds whatever it held before.
type buffer struct {
	b     []byte
	whole *[]byte
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

func newBuffer(n int64) buffer {
	whole := buffers.Get().(*[]byte)
	if int64(cap(*whole)) < n {
		*whole = make([]byte, n)
	}
	return buffer{(*whole)[:n], whole}
}

func (b buffer) free() {
	if b.whole != nil {
		buffers.Put(b.whole)
	}
}

// pad returns data continued by zeros to whole sectors: data itself if it is
// whole. done gives the memory back.
func pad(data []byte) (padded []byte, done func()) {
	n := format.Sectors(int64(len(data))) * format.SectorSize
	if n == int64(len(data)) {
		return data, func() {}
	}
	b := newBuffer(n)
	clear(b.b[copy(b.b, data):])
	return b.b, b.free
}
