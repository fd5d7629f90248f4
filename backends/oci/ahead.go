package oci

import "io"

// A readAhead is read by a goroutine of its own before it is asked for, so that what
// stands behind it (a decompressor, a digest) and who reads from it have a processor
// each. Its bytes and its error are those of the reader below.
//
//	below ── goroutine ──> full ──> Read
//	             ^────────── free <──┘
//
// What it wraps must not be used by others until Close has returned, which may wait
// for one Read of it.
type readAhead struct {
	full  chan []byte
	free  chan []byte
	stop  chan struct{}
	ended chan struct{}
	err   error // of the reader below; written before full is closed

	chunk []byte // what is left of the one that is being read
	whole []byte // that chunk, to be given back
}

// A reader is ahead by at most aheadChunks of aheadChunk bytes.
const (
	aheadChunk  = 256 << 10
	aheadChunks = 16
)

func newReadAhead(r io.Reader) *readAhead {
	a := &readAhead{
		full: make(chan []byte, aheadChunks), free: make(chan []byte, aheadChunks),
		stop: make(chan struct{}), ended: make(chan struct{}),
	}
	go a.run(r)
	return a
}

// run fills chunks until the end of what is below.
func (a *readAhead) run(r io.Reader) {
	defer close(a.ended)
	defer close(a.full)
	for made := 0; ; {
		var chunk []byte
		if made < aheadChunks && len(a.free) == 0 {
			chunk = make([]byte, aheadChunk)
			made++
		} else {
			select {
			case chunk = <-a.free:
			case <-a.stop:
				return
			}
		}
		n, err := fill(r, chunk[:aheadChunk])
		if n > 0 {
			select {
			case a.full <- chunk[:n]:
			case <-a.stop:
				return
			}
		}
		if err != nil {
			a.err = err
			return
		}
	}
}

// fill reads until p is full or r has an error, that of its end included. (io.ReadFull
// has an error of its own for an early end, which could not be told from one of r's.)
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}

func (a *readAhead) Read(p []byte) (int, error) {
	for len(a.chunk) == 0 {
		if a.whole != nil {
			a.free <- a.whole // has room for all that there are
			a.whole = nil
		}
		chunk, more := <-a.full
		if !more {
			if a.err == nil { // closed
				return 0, io.ErrClosedPipe
			}
			return 0, a.err
		}
		a.chunk, a.whole = chunk, chunk
	}
	n := copy(p, a.chunk)
	a.chunk = a.chunk[n:]
	return n, nil
}

// Close ends the goroutine, and with it the use of the reader below.
func (a *readAhead) Close() error {
	close(a.stop)
	<-a.ended
	return nil
}
