package blockpool

import (
	"errors"
	"testing"
)

// A snapshot may be named after another volume than the one that it was taken of.
// With records of another size its map means nothing to that volume.
func TestRollbackToRecordsOfAnotherSizeIsRefused(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateVolume(ctx, "small", 1<<20, VolumeOptions{RecordSize: 4 << 10}))
	b.must(b.CreateVolume(ctx, "large", 1<<20, VolumeOptions{RecordSize: 64 << 10}))
	b.must(b.Snapshot(ctx, "small", "large@s"))
	if err := b.Rollback(ctx, "large@s"); !errors.Is(err, ErrInvalid) {
		t.Errorf("rolled back: %v", err)
	}
}
