package nbd

import (
	"math/bits"
	"sync"
)

// A buffer holds the data of a request. Its capacity is a power of two, so that
// few sizes are worth keeping, and is what a budget is charged for it.
type buffer struct {
	data []byte // as long as was asked for
}

const smallestBuffer = 4096

// buffers keeps buffers between requests, by the logarithm of their capacity.
// The garbage collector takes what is not used for a while.
var buffers [32]sync.Pool

// capacity returns the size of the buffer that holds n bytes.
func capacity(n int) int {
	if n <= smallestBuffer {
		return smallestBuffer
	}
	return 1 << bits.Len(uint(n-1))
}

// newBuffer returns a buffer of n bytes with arbitrary content.
func newBuffer(n int) *buffer {
	c := capacity(n)
	if b, ok := buffers[bits.Len(uint(c))].Get().(*buffer); ok {
		b.data = b.data[:n]
		return b
	}
	return &buffer{make([]byte, n, c)}
}

// charge returns what the buffer takes from a budget.
func (b *buffer) charge() int64 { return int64(cap(b.data)) }

// free gives the buffer to whoever needs one next.
func (b *buffer) free() { buffers[bits.Len(uint(cap(b.data)))].Put(b) }
