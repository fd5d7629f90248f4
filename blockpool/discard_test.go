package blockpool

import (
	"bytes"
	"testing"
)

func TestFreedSpaceGoesBackToTheDevices(t *testing.T) {
	for _, profile := range allProfiles[:4] {
		t.Run(profile.Profile.String(), func(t *testing.T) {
			b := newBench(t, Config{DataProfile: profile.Profile, Discard: true}, profile.devices, 96<<20)
			b.must(b.CreateVolume(ctx, "vol", 16<<20, VolumeOptions{}))
			b.must(b.CreateVolume(ctx, "other", 1<<20, VolumeOptions{}))
			used := func() (n int64) {
				for _, d := range b.journal.Devices() {
					n += d.Used()
				}
				return n
			}
			write := func(name string, want []byte) {
				v := b.volume(name)
				defer v.Close()
				if _, err := v.WriteAt(want, 0); err != nil {
					t.Fatal(err)
				}
				b.must(b.Sync(ctx))
			}
			keep := fill(1<<20, 4)
			write("other", keep)
			empty := used()
			write("vol", fill(16<<20, 1))
			if full := used(); full < empty+16<<20 {
				t.Fatalf("%d bytes in use, %d before", full, empty)
			}
			b.must(b.Destroy(ctx, "vol"))
			for b.dead.pending() || b.discards.pending() {
				b.must(b.Sync(ctx))
			}
			b.must(b.Sync(ctx))
			for b.discards.pending() {
				spin()
			}
			if left := used(); left > empty+1<<20 {
				t.Errorf("%d bytes are in use after all was freed, %d before it was written", left, empty)
			}
			if !bytes.Equal(b.content("other"), keep) {
				t.Error("what was not freed has changed")
			}
		})
	}
}

func TestTrimGivesBackAllThatIsFreeUnderLoad(t *testing.T) {
	b := newBench(t, Config{DataProfile: Mirror}, 2, 96<<20)
	b.must(b.CreateVolume(ctx, "big", 32<<20, VolumeOptions{}))
	b.must(b.CreateVolume(ctx, "vol", 6<<20, VolumeOptions{}))
	v := b.volume("big")
	if _, err := v.WriteAt(fill(32<<20, 1), 0); err != nil {
		t.Fatal(err)
	}
	v.Close()
	b.must(b.Sync(ctx))
	d := b.journal.Device(b.disk(0))
	full := d.Used()
	b.must(b.Destroy(ctx, "big"))
	for b.dead.pending() {
		b.must(b.Sync(ctx))
	}
	b.must(b.Sync(ctx))
	w := b.volume("vol")
	defer w.Close()
	l := startLoad(t, w, make([]byte, 6<<20), 8)
	calls := 0
	n, err := b.Trim(ctx, func(done, total int64) {
		if calls++; done > total {
			t.Errorf("%d of %d", done, total)
		}
	})
	b.must(err)
	want := l.end()
	if n < 32<<20 || calls < 4 {
		t.Errorf("%d bytes were trimmed in %d steps", n, calls)
	}
	if left := d.Used(); left > full-20<<20 {
		t.Errorf("%d bytes are in use, %d before", left, full)
	}
	b.sound("vol", want)
}
