package blockpool

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// storedNodes counts the nodes in the metadata.
func (b *bench) storedNodes() (n uint64) {
	b.Helper()
	e := b.epochs.hold()
	defer e.release()
	b.must(e.view.Scan(meta.Nodes, nil, func(_, _ []byte) error { n++; return nil }))
	return n
}

// What usage promises for a destroy is what the destroy brings back.
func TestUsageIsWhatDestroyingBringsBack(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			const records, size = 60_000, 4 << 10
			b := newBench(t, Config{}, 1, 1<<30)
			rng := rand.New(rand.NewPCG(seed, 8))
			b.must(b.CreateVolume(ctx, "v0", records*size, VolumeOptions{RecordSize: size}))
			for i := range 24 {
				var volumes []VolumeInfo
				for _, info := range b.Volumes() {
					if info.Kind == KindVolume.String() {
						volumes = append(volumes, info)
					}
				}
				from := volumes[rng.IntN(len(volumes))].Name
				v := b.volume(from)
				for range 4 {
					first := rng.Int64N(records)
					n := 1 + rng.Int64N(min(records-first, 2000))
					if rng.IntN(4) == 0 {
						b.must(v.Discard(ctx, first*size, n*size))
					} else if _, err := v.WriteAt(make([]byte, n*size), first*size); err != nil {
						t.Fatal(err)
					}
				}
				v.Close()
				if rng.IntN(3) == 0 {
					b.must(b.Clone(ctx, from, fmt.Sprintf("v%d", i+1)))
				} else {
					b.must(b.Snapshot(ctx, from, fmt.Sprintf("%s@%d", from, i)))
				}
			}
			for left := b.Volumes(); len(left) > 0; left = b.Volumes() {
				b.must(b.drain())
				rng.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
				left = left[:1+rng.IntN(min(4, len(left)))]
				var names []string
				for _, info := range left {
					names = append(names, info.Name)
				}
				promised, err := b.UsageOf(ctx, append(names, names[0])...)
				b.must(err)
				if u, err := b.Usage(ctx, names[0]); err != nil || u.Referenced != left[0].Referenced ||
					u.Exclusive+u.Shared != u.Referenced || u.Exclusive > promised.Bytes || int64(u.Records)*size != u.Exclusive {
					t.Fatalf("%s: %+v of %+v, %v", names[0], u, promised, err)
				}
				free, nodes := b.space.available(0), b.storedNodes()
				for _, name := range names {
					b.must(b.Destroy(ctx, name))
				}
				b.must(b.drain())
				got := Freed{Bytes: (b.space.available(0) - free) * 4096, Nodes: nodes - b.storedNodes()}
				got.Records = uint64(got.Bytes / size)
				if got != promised {
					t.Fatalf("destroying %v brought back %+v, promised was %+v", names, got, promised)
				}
			}
			if n := b.storedNodes(); n != 0 {
				t.Errorf("%d nodes are left", n)
			}
		})
	}
}
