package blockpool

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestWhoKeepsContentIsToldWhatOthersChange is what the page cache above an export
// relies on: a change that is not told of is one that nobody sees.
func TestWhoKeepsContentIsToldWhatOthersChange(t *testing.T) {
	b := newBench(t, Config{}, 1, 256<<20)
	b.must(b.CreateVolume(ctx, "vol", 1<<20, VolumeOptions{}))
	mine, other := b.volume("vol"), b.volume("vol")
	var mu sync.Mutex
	var told []string
	mine.Watch(func(off, n int64) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprint(off, "+", n))
	})
	all := fmt.Sprint(0, "+", int64(math.MaxInt64))
	changes := mine.Changes()
	step := func(what string, do func() error, want ...string) {
		t.Helper()
		b.must(do())
		if now := mine.Changes(); now == changes {
			t.Errorf("%s: it is not counted", what)
		} else {
			changes = now
		}
		heard := func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Equal(told, want)
		}
		for end := time.Now().Add(5 * time.Second); !heard() && len(want) > 0 && want[0] == all && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if !heard() {
			t.Errorf("%s: told of %v, want %v", what, told, want)
		}
		told = nil
	}
	step("a write of another", func() error { _, err := other.WriteAt(fill(5000, 1), 100); return err }, "100+5000")
	step("a write of one's own", func() error { _, err := mine.WriteAt(fill(5000, 2), 100); return err })
	step("a discard", func() error { return other.Discard(ctx, 0, 65536) }, "0+65536")
	step("zeros", func() error { return other.Zero(ctx, 7, 70) }, "7+70")
	step("another size", func() error { return b.Resize(ctx, "vol", 2<<20) }, all)
	other.Watch(func(int64, int64) { t.Error("a handle that is closed was told") })
	other.Close()
	step("a write of one's own", func() error { _, err := mine.WriteAt(fill(5000, 3), 100); return err })

	b.must(b.Snapshot(ctx, "vol", "vol@s"))
	var full bytes.Buffer
	_, err := b.Send(ctx, &full, "vol@s", SendOptions{})
	b.must(err)
	mine.Close()
	step("a rollback", func() error { return b.Rollback(ctx, "vol@s") })
	_, err = b.Receive(ctx, &full, "copy", ReceiveOptions{})
	b.must(err)
	b.must(func() error { v := b.volume("vol"); defer v.Close(); _, err := v.WriteAt(fill(5000, 4), 0); return err }())
	b.must(b.Snapshot(ctx, "vol", "vol@t"))
	var more bytes.Buffer
	_, err = b.Send(ctx, &more, "vol@t", SendOptions{From: "vol@s"})
	b.must(err)
	mine = b.volume("copy")
	changes = mine.Changes()
	mine.Close() // what is open is not received into
	step("what is received", func() error {
		_, err := b.Receive(ctx, &more, "copy", ReceiveOptions{})
		mine = b.volume("copy")
		return err
	})
}
