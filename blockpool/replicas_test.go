package blockpool

import (
	"errors"
	"os"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/meta"
)

func TestReplicasComeAndGo(t *testing.T) {
	b, want := newLoaded(t, Config{DataProfile: Mirror}, 2, 64<<20)
	v := b.volume("vol")
	l := startLoad(t, v, want, 3)
	second, third := b.dir+"/elsewhere.db", ReplicaName(b.dir, 2)
	b.must(b.AddReplica(ctx, second))
	b.must(b.AddReplica(ctx, third))
	if err := b.AddReplica(ctx, b.dir+"/fourth.db"); err == nil {
		t.Error("a fourth replica")
	}
	if b.Config().MetadataProfile != Mirror {
		t.Error("three replicas are no mirror")
	}
	b.must(b.RemoveReplica(ctx, ReplicaName(b.dir, 0)))
	b.must(b.RecopyReplica(ctx, second))
	want = l.end()
	v.Close()
	b.must(b.Close())
	if _, err := os.Stat(ReplicaName(b.dir, 0)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of the removed replica: %v", err)
	}
	// A device knows where the others are.
	p, err := Open(b.disk(0), b.opts)
	b.must(err)
	b.Pool = p
	if got := b.replicaPaths(); len(got) != 2 {
		t.Errorf("replicas: %v", got)
	}
	if bad, err := b.meta.Verify(); err != nil || len(bad) != 0 {
		t.Errorf("%v, %v", bad, err)
	}
	b.sound("vol", want)
	b.must(b.RemoveReplica(ctx, second))
	if err := b.RemoveReplica(ctx, third); err == nil {
		t.Error("the last replica was removed")
	}
	b.must(b.Close())
	b.open()
	b.sound("vol", want)
}

func TestAFailedReplicaIsWrittenAnew(t *testing.T) {
	b, want := newLoaded(t, Config{DataProfile: Mirror, MetadataProfile: Mirror}, 2, 64<<20)
	damageValues(t, ReplicaName(b.dir, 1), meta.Nodes, 40)
	if bad, _ := b.meta.Verify(); len(bad) != 1 {
		t.Fatalf("%v", bad)
	}
	b.must(b.Sync(ctx)) // leaves it behind
	if got := b.meta.Failed(); len(got) != 1 {
		t.Fatalf("failed: %v", got)
	}
	b.must(b.RecopyReplica(ctx, ReplicaName(b.dir, 1)))
	if got := b.meta.Failed(); len(got) != 0 {
		t.Fatalf("failed: %v", got)
	}
	b.reopen()
	b.sound("vol", want)
}
