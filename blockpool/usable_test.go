package blockpool

import (
	"errors"
	"fmt"
	"testing"
)

// writeAll writes 1 MiB after the other until that many bytes are there or there is
// no more space.
func writeAll(v *Volume, size int64) (written int64, err error) {
	for written < size {
		n, err := v.WriteAt(noise(min(1<<20, size-written), uint64(written)), written)
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// TestWhatIsReservedIsThere fills a pool around a reservation, with records of
// another size than the reserved ones, and then uses it up.
func TestWhatIsReservedIsThere(t *testing.T) {
	for _, profile := range allProfiles {
		for _, record := range []int64{4 << 10, 16 << 10, 128 << 10} {
			t.Run(fmt.Sprintf("%v-%d-%dK", profile.Profile, profile.devices, record>>10), func(t *testing.T) {
				const reserved = 24 << 20
				b := newBench(t, Config{DataProfile: profile.Profile}, profile.devices, 96<<20)
				b.must(b.CreateVolume(ctx, "mine", 64<<20, VolumeOptions{RecordSize: record, Reservation: reserved}))
				b.must(b.CreateVolume(ctx, "other", 1<<30, VolumeOptions{RecordSize: 16 << 10}))
				other, mine := b.volume("other"), b.volume("mine")
				written, err := writeAll(other, 1<<30)
				if !errors.Is(err, ErrNoSpace) {
					t.Fatalf("after %d bytes: %v", written, err)
				}
				if got, err := writeAll(mine, reserved); err != nil {
					t.Errorf("%d of %d reserved bytes could be written: %v", got, reserved, err)
				}
				b.must(b.recount())
			})
		}
	}
}

func TestReservationsCountParity(t *testing.T) {
	b := newBench(t, Config{DataProfile: RaidZ1}, 3, 128<<20)
	st := b.Status()
	if st.Usable.Size >= st.Data.Size*3/4 || st.Usable.Free >= st.Data.Free*3/4 || st.Usable.Size < st.Data.Size/2 {
		t.Fatalf("raidz1 on 3 devices: %+v raw, %+v usable", st.Data, st.Usable)
	}
	err := b.CreateVolume(ctx, "all", 1<<30, VolumeOptions{Reservation: st.Usable.Free + 16<<20})
	if !errors.Is(err, ErrNoSpace) {
		t.Errorf("%d bytes of %d were reserved: %v", st.Usable.Free+16<<20, st.Usable.Free, err)
	}
	b.must(b.CreateVolume(ctx, "half", 1<<30, VolumeOptions{Reservation: st.Usable.Free / 2}))
	if now := b.Status(); now.Reserved < st.Usable.Free/2*4/3 {
		t.Errorf("%d bytes are kept for a reservation of %d", now.Reserved, st.Usable.Free/2)
	}
	// Another device makes chunks wider, and nothing is forgotten.
	b.must(b.AddDevice(ctx, DeviceSpec{Path: b.disk(3), Size: 128 << 20}, false))
	b.must(b.SetLimits(ctx, "half", -1, -1, 0))
	if now := b.Status(); now.Reserved != 0 {
		t.Errorf("%d bytes are kept for nobody", now.Reserved)
	}
	v := b.volume("half")
	if _, err := writeAll(v, 16<<20); err != nil {
		t.Fatal(err)
	}
	b.must(b.Sync(ctx))
	if now := b.Status(); now.Usable.Used < 15<<20 || now.Usable.Used > 18<<20 {
		t.Errorf("16 MiB of data: %+v used", now.Usable)
	}
}
