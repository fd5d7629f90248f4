package blockpool

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
)

func TestCompactGivesBackWhatDeletedVolumesTookOfTheMetadata(t *testing.T) {
	b := newBench(t, Config{MetadataProfile: Mirror}, 1, 128<<20)
	b.must(b.CreateVolume(ctx, "vol", 32<<20, VolumeOptions{RecordSize: 4 << 10}))
	v := b.volume("vol")
	for i := range 24 {
		if _, err := v.WriteAt(fill(1<<20, uint64(i)), int64(i)<<20); err != nil {
			t.Fatal(err)
		}
		b.must(b.Snapshot(ctx, "vol", fmt.Sprintf("vol@%d", i)))
	}
	b.must(v.Zero(ctx, 0, 24<<20))
	b.must(v.Close())
	for i := range 24 {
		b.must(b.Destroy(ctx, fmt.Sprintf("vol@%d", i)))
	}
	b.work(20, 1)
	for b.dead.pending() {
		b.must(b.Sync(ctx))
	}
	done, err := b.Compact(ctx)
	b.must(err)
	if len(done) != 2 {
		t.Fatalf("%+v", done)
	}
	for _, c := range done {
		if c.After <= 0 || c.After > c.Before/2 {
			t.Errorf("%+v", c)
		}
	}
	b.work(20, 2) // it goes on being used
	b.must(b.Sync(ctx))
	want := b.contents()
	b.clean(b.checked())
	if !reflect.DeepEqual(b.contents(), want) {
		t.Error("contents differ")
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if done, err := b.Compact(ended); !errors.Is(err, context.Canceled) || len(done) > 0 {
		t.Errorf("%v, %v", done, err)
	}
}
