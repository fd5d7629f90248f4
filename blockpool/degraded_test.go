package blockpool

import (
	"bytes"
	"errors"
	"testing"
)

// TestADegradedPoolTakesAllThatItHasRoomFor fills a pool that has lost as many
// devices as it may, past the chunks that it had then. When they are there again they
// get what they lack, and then others may be lost.
func TestADegradedPoolTakesAllThatItHasRoomFor(t *testing.T) {
	for _, c := range []struct {
		Profile
		devices, lost int
	}{{Mirror, 2, 1}, {RaidZ1, 3, 1}, {RaidZ2, 4, 2}} {
		t.Run(c.Profile.String(), func(t *testing.T) {
			b := newBench(t, Config{DataProfile: c.Profile}, c.devices, 128<<20)
			b.must(b.CreateVolume(ctx, "vol", 1<<30, VolumeOptions{}))
			b.must(b.Close())
			for i := range c.lost {
				b.journal.Device(b.disk(i)).Pull(0)
			}
			b.open()
			usable := b.Status().Usable.Free
			v := b.volume("vol")
			written, err := writeAll(v, 1<<30)
			if !errors.Is(err, ErrNoSpace) || written < usable*9/10 {
				t.Fatalf("%d bytes of %d were taken: %v", written, usable, err)
			}
			v.Close()
			b.must(b.Close())
			for i := range c.lost {
				b.journal.Device(b.disk(i)).Return()
			}
			b.open()
			eventuallyOnline(b)
			b.must(b.recount())
			st, err := b.Scrub(ctx, ScrubOptions{})
			b.must(err)
			if st.LostRecords != 0 || st.Unrecoverable != 0 {
				t.Fatalf("%+v", st)
			}
			b.must(b.Close())
			for i := range c.lost { // others than before
				b.journal.Device(b.disk(c.devices - 1 - i)).Pull(0)
			}
			b.open()
			got := b.content("vol")
			for off := int64(0); off < written; off += 1 << 20 {
				n := min(1<<20, written-off)
				if !bytes.Equal(got[off:off+n], noise(n, uint64(off))) {
					t.Fatalf("other bytes at %d", off)
				}
			}
		})
	}
}

// eventuallyOnline waits for the resilver of all devices.
func eventuallyOnline(b *bench) {
	for i := range b.Devices() {
		for b.Devices()[i].State != "online" {
			spin()
		}
	}
}

func TestAScrubThatHasJustBegunIsNotForgotten(t *testing.T) {
	b, _ := newLoaded(t, Config{}, 1, 64<<20)
	go b.Pool.Scrub(ctx, ScrubOptions{Rate: 256 << 10})
	for b.ScrubStatus().Records == 0 {
		spin()
	}
	b.crash()
	if st := b.ScrubStatus(); st.State != ScrubRunning {
		t.Errorf("after the kill: %+v", st)
	}
}
