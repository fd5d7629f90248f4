package blockpool

import (
	"slices"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/meta"
)

func TestADamagedNodeOfADestroyedTreeDoesNotStopThePool(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateVolume(ctx, "v", 8<<20, VolumeOptions{RecordSize: 4 << 10}))
	v := b.volume("v")
	if _, err := v.WriteAt(fill(8<<20, 1), 0); err != nil {
		t.Fatal(err)
	}
	v.Close()
	b.must(b.Sync(ctx)) // the nodes are on disk from here on
	b.must(b.do(ctx, &task{run: func(s *pass) error {
		root, err := s.nodes.Load(s.peekNamed("v").root)
		if err != nil {
			return err
		}
		s.batch.Delete(meta.Nodes, key64(uint64(root.Child(1))))
		return nil
	}}))
	b.reopen()
	b.must(b.Destroy(ctx, "v"))
	for b.dead.pending() {
		b.must(b.Sync(ctx))
	}
	told := func(e Event) bool { return e.Kind == EventDamaged }
	if !slices.ContainsFunc(b.Events(0), told) {
		t.Error("no event tells of the damage")
	}
	b.must(b.CreateVolume(ctx, "w", 1<<20, VolumeOptions{}))
}

func TestQuotaCountsAnOverwriteOnce(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateVolume(ctx, "q", 8<<20, VolumeOptions{Refquota: 1 << 20}))
	v := b.volume("q")
	defer v.Close()
	for i := range 8 {
		if _, err := v.WriteAt(fill(1<<20, uint64(i)), 0); err != nil {
			t.Fatalf("overwrite %d: %v", i, err)
		}
	}
}
