package blockpool

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// load writes to a volume and reads it back, side by side with whatever a test
// does to the pool below it.
type load struct {
	t    testing.TB
	v    *Volume
	stop chan struct{}
	once sync.Once
	wg   sync.WaitGroup
	ops  atomic.Int64
	want []byte // each worker has a part of its own
}

const loadWorkers = 3

// startLoad begins with what want says that the volume has.
func startLoad(t testing.TB, v *Volume, want []byte, seed uint64) *load {
	l := &load{t: t, v: v, stop: make(chan struct{}), want: want}
	part := len(want) / loadWorkers
	for i := range loadWorkers {
		l.wg.Go(func() { l.work(int64(i*part), want[i*part:(i+1)*part], rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	t.Cleanup(func() { l.end() })
	return l
}

func (l *load) work(base int64, want []byte, rng *rand.Rand) {
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		n := 1 + rng.IntN(60<<10)
		off := rng.IntN(len(want) - n)
		switch rng.IntN(8) {
		case 0:
			if err := l.v.Zero(ctx, base+int64(off), int64(n)); err != nil {
				l.t.Errorf("zero under load: %v", err)
				return
			}
			clear(want[off : off+n])
		case 1:
			if err := l.v.Flush(ctx); err != nil {
				l.t.Errorf("flush under load: %v", err)
				return
			}
		case 2, 3:
			p := fill(n, rng.Uint64())
			if _, err := l.v.WriteAt(p, base+int64(off)); err != nil {
				l.t.Errorf("write under load: %v", err)
				return
			}
			copy(want[off:], p)
		default:
			p := make([]byte, n)
			if _, err := l.v.ReadAt(p, base+int64(off)); err != nil && err != io.EOF {
				l.t.Errorf("read under load: %v", err)
				return
			}
			if !bytes.Equal(p, want[off:off+n]) {
				l.t.Errorf("%d bytes at %d differ under load", n, base+int64(off))
				return
			}
		}
		l.ops.Add(1)
	}
}

// end returns what the volume must have now.
func (l *load) end() []byte {
	l.once.Do(func() { close(l.stop) })
	l.wg.Wait()
	return l.want
}

// wait returns when so many more operations were done.
func (l *load) wait(n int64) {
	for from := l.ops.Load(); l.ops.Load() < from+n && !l.t.Failed(); {
		select {
		case <-l.v.v.pool.stopped:
			return
		default:
			spin()
		}
	}
}
