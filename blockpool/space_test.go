package blockpool

import (
	"bytes"
	"errors"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// Space that was cut into a chunk is not also there for another chunk: else the
// pool believes in more than it has, and the part that is kept for deletes and
// repairs is given to writers.
func TestSpaceOfNewChunksIsCountedOnce(t *testing.T) {
	b := newBench(t, Config{}, 1, 128<<20)
	b.must(b.CreateVolume(ctx, "vol", 1<<30, VolumeOptions{}))
	free := b.space.available(format.Data)
	v := b.volume("vol")
	defer v.Close()
	written := int64(0)
	for {
		n, err := v.WriteAt(noise(1<<20, 1), written)
		written += int64(n)
		if errors.Is(err, ErrNoSpace) {
			break
		}
		b.must(err)
	}
	b.must(b.recount())
	if left, want := b.space.available(format.Data), free-written/4096; left != want {
		t.Errorf("%d sectors are left of %d after %d bytes", left, free, written)
	}
	if left, total := b.space.available(format.Data), b.space.total(format.Data); left < total*kept/100 {
		t.Errorf("%d of %d sectors are left, %d%% are kept", left, total, kept)
	}
}

// A pool that is full takes new volumes, which need no space: that is how dm-thin
// and zfs do it, and Config.MinFree is there for who wants it otherwise.
func TestAFullPoolTakesNewVolumes(t *testing.T) {
	b := newSmallBench(t, Config{}, 1, memdev.NewUnrecorded())
	b.open()
	b.must(b.CreateVolume(ctx, "vol", 64<<20, VolumeOptions{}))
	v := b.volume("vol")
	defer v.Close()
	n, err := v.WriteAt(noise(64<<20, 1), 0)
	if !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	b.must(b.CreateVolume(ctx, "new", 1<<20, VolumeOptions{}))
	got := make([]byte, n)
	if _, err := v.ReadAt(got, 0); err != nil || !bytes.Equal(got, noise(64<<20, 1)[:n]) {
		t.Errorf("the %d bytes that were written differ: %v", n, err)
	}
	if _, err := v.ReadAt(got[:1], int64(n)); err != nil || got[0] != 0 {
		t.Errorf("more than the %d bytes was written: %v", n, err)
	}
}
