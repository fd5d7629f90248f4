package blockpool

import (
	"testing"
	"time"

	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// What a destroyed volume had is freed piece by piece, and a kill in the middle
// of that loses no piece.
func TestVolumesThatWereDestroyedAreFreedAlsoAfterAKill(t *testing.T) {
	b := newSmallBench(t, Config{}, 1, memdev.NewUnrecorded())
	b.opts.Tunables.deadPerTxg = 1
	b.opts.Tunables.commit = func(commit func() error) error {
		time.Sleep(2 * time.Millisecond) // so that the kill comes before the end
		return commit()
	}
	b.open()
	for _, name := range []string{"a", "b"} {
		b.must(b.CreateVolume(ctx, name, 8<<20, VolumeOptions{RecordSize: 4 << 10}))
		v := b.volume(name)
		_, err := v.WriteAt(noise(8<<20, 1), 0)
		b.must(err)
		v.Close()
		b.must(b.Snapshot(ctx, name, name+"@s"))
	}
	for _, name := range []string{"a", "b@s", "a@s", "b"} {
		b.must(b.Destroy(ctx, name))
		pending := b.dead.pending()
		b.crash()
		if name == "a@s" && !pending {
			t.Error("nothing was left to be freed: this test proves nothing")
		}
	}
	b.must(b.recount())
	b.nothingLeft()
}
