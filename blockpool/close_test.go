package blockpool

import (
	"errors"
	"sync"
	"testing"
)

// Whoever still has a volume open when its pool is closed gets an error, however
// close it is.
func TestVolumesOfAClosedPoolFail(t *testing.T) {
	for range 6 {
		b := newBench(t, Config{}, 1, 64<<20)
		b.must(b.CreateVolume(ctx, "v", 1<<20, VolumeOptions{}))
		v := b.volume("v")
		_, err := v.WriteAt(noise(1<<20, 1), 0)
		b.must(err)
		b.must(b.Sync(ctx))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					if _, err := v.ReadAt(make([]byte, 100<<10), 0); err != nil {
						return
					}
				}
			})
		}
		b.must(b.Close())
		wg.Wait()
		if _, err := v.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrClosed) {
			t.Errorf("read: %v", err)
		}
		if _, err := v.WriteAt(make([]byte, 1), 0); !errors.Is(err, ErrClosed) {
			t.Errorf("write: %v", err)
		}
		if err := v.Flush(ctx); !errors.Is(err, ErrClosed) {
			t.Errorf("flush: %v", err)
		}
	}
}
