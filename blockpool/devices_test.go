package blockpool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

func spin() { time.Sleep(200 * time.Microsecond) }

// disk returns the path of device number i.
func (b *bench) disk(i int) string { return filepath.Join(b.dir, fmt.Sprintf("disk%d", i)) }

// sound fails unless every copy of everything is right, and the volume has what
// it must have.
func (b *bench) sound(volume string, want []byte) {
	b.Helper()
	st, err := b.Scrub(ctx, ScrubOptions{})
	b.must(err)
	if st.State != ScrubFinished || st.Mended != 0 || st.Unrecoverable != 0 || st.LostRecords != 0 || st.LostNodes != 0 {
		b.Fatalf("a scrub finds %+v", st)
	}
	if got := b.content(volume); !bytes.Equal(got, want) {
		b.Fatal("the content differs")
	}
}

// newLoaded makes a pool with a volume that has something, and returns that.
func newLoaded(t testing.TB, c Config, n int, size int64) (*bench, []byte) {
	b := newBench(t, c, n, size)
	b.must(b.CreateVolume(ctx, "vol", 6<<20, VolumeOptions{RecordSize: 16 << 10}))
	v := b.volume("vol")
	defer v.Close()
	want := fill(6<<20, 1)
	if _, err := v.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	b.must(b.Snapshot(ctx, "vol", "vol@s"))
	return b, want
}

func TestAddedAndGrownDevicesGiveRoomAtOnce(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	before := b.space.available(0)
	b.must(b.AddDevice(ctx, DeviceSpec{Path: b.disk(1), Size: 64 << 20}, false))
	added := b.space.available(0)
	if added < before+15<<10 {
		t.Errorf("%d sectors are free after a device was added, %d before", added, before)
	}
	b.must(b.Grow(ctx, b.disk(1), 128<<20))
	if got := b.space.available(0); got < added+15<<10 {
		t.Errorf("%d sectors are free after it grew, %d before", got, added)
	}
	b.must(b.CreateVolume(ctx, "vol", 150<<20, VolumeOptions{}))
	v := b.volume("vol")
	want := fill(150<<20, 3)
	if _, err := v.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	v.Close()
	b.reopen()
	b.sound("vol", want)
	if got := b.Devices(); len(got) != 2 || got[1].Size != 128<<20 || got[1].Allocated < 90<<20 {
		t.Errorf("%+v", got)
	}
	if err := b.AddDevice(ctx, DeviceSpec{Path: b.disk(1)}, true); !errors.Is(err, ErrExists) {
		t.Errorf("added twice: %v", err)
	}
	other := newBench(t, Config{Name: "other"}, 1, 64<<20)
	other.must(other.Close())
	b.journal.Create(b.disk(7), 64<<20)
	d := b.journal.Device(b.disk(7))
	d.Poke(0, other.journal.Device(other.disk(0)).Peek(0, 1<<20))
	d.Close()
	if err := b.AddDevice(ctx, DeviceSpec{Path: b.disk(7)}, false); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "other") {
		t.Errorf("a device of another pool: %v", err)
	}
	b.must(b.AddDevice(ctx, DeviceSpec{Path: b.disk(7)}, true))
}

func TestRemovedDevicesLeaveNothingBehindUnderLoad(t *testing.T) {
	for _, profile := range []struct {
		Profile
		devices int
	}{{Single, 2}, {Mirror, 3}, {RaidZ1, 3}, {RaidZ2, 4}} {
		t.Run(profile.Profile.String(), func(t *testing.T) {
			b, want := newLoaded(t, Config{DataProfile: profile.Profile}, profile.devices, 96<<20)
			if profile.Parity() > 0 { // others are to take what it has
				if err := b.RemoveDevice(ctx, b.disk(0)); !errors.Is(err, ErrNoSpace) {
					t.Fatalf("a device that cannot be missed: %v", err)
				}
				b.must(b.AddDevice(ctx, DeviceSpec{Path: b.disk(profile.devices), Size: 96 << 20}, false))
			}
			v := b.volume("vol")
			l := startLoad(t, v, want, 5)
			l.wait(50)
			b.must(b.RemoveDevice(ctx, b.disk(0))) // it has the log, too
			l.wait(50)
			want = l.end()
			v.Close()
			if _, err := readLabel(b.journal.Device(b.disk(0))); err == nil {
				t.Error("the removed device still has its label")
			}
			for _, d := range b.Devices() {
				if d.Path == b.disk(0) {
					t.Errorf("it is still there: %+v", d)
				}
			}
			b.sound("vol", want)
			b.crash()
			b.sound("vol", want)
		})
	}
}

func TestADeviceIsNotRemovedWhenTheOthersHaveNoRoom(t *testing.T) {
	b := newBench(t, Config{}, 2, 64<<20)
	b.must(b.CreateVolume(ctx, "vol", 90<<20, VolumeOptions{}))
	v := b.volume("vol")
	defer v.Close()
	if _, err := v.WriteAt(fill(90<<20, 1), 0); err != nil {
		t.Fatal(err)
	}
	b.must(b.Sync(ctx))
	err := b.RemoveDevice(ctx, "1")
	if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "add or grow") {
		t.Fatalf("%v", err)
	}
	if d := b.Devices()[0]; d.State != "online" {
		t.Errorf("after the refusal it is %s", d.State)
	}
	if err := b.RemoveDevice(ctx, "/nowhere"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestARemovalThatIsStoppedOrKilled(t *testing.T) {
	b, want := newLoaded(t, Config{DataProfile: Mirror}, 3, 96<<20)
	slow := b.journal.Device(b.disk(2)).Inject(memdev.Fault{Ops: memdev.Writes, Delay: 3 * time.Millisecond})
	stopped, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := b.RemoveDevice(stopped, b.disk(0)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("stopped: %v", err)
	}
	if d := b.Devices()[0]; d.State != "online" || b.hasShadows() {
		t.Fatalf("after it was stopped: %+v", d)
	}
	done := make(chan error)
	go func() { done <- b.RemoveDevice(ctx, b.disk(0)) }()
	for !b.MoveStatus().Running || b.MoveStatus().Done == 0 {
		spin()
	}
	if err := b.RemoveDevice(ctx, b.disk(1)); !errors.Is(err, ErrBusy) {
		t.Errorf("two at a time: %v", err)
	}
	b.Abandon()
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("killed: %v", err)
	}
	slow()
	b.open()
	for len(b.Devices()) == 3 {
		spin()
	}
	b.sound("vol", want)
}

func TestReplacedDevicesUnderLoad(t *testing.T) {
	for _, gone := range []bool{false, true} {
		for _, profile := range allProfiles {
			if gone && profile.Profile == Single {
				continue
			}
			t.Run(fmt.Sprintf("%v-%d-gone=%v", profile.Profile, profile.devices, gone), func(t *testing.T) {
				b, want := newLoaded(t, Config{DataProfile: profile.Profile}, profile.devices, 64<<20)
				v := b.volume("vol")
				l := startLoad(t, v, want, 6)
				l.wait(30)
				if gone {
					b.journal.Device(b.disk(0)).Pull(0)
					l.wait(30)
				}
				b.must(b.ReplaceDevice(ctx, b.disk(0), DeviceSpec{Path: b.disk(9), Size: 80 << 20}, false))
				l.wait(30)
				want = l.end()
				v.Close()
				devices := b.Devices()
				if last := devices[len(devices)-1]; len(devices) != profile.devices || last.Path != b.disk(9) || last.State != "online" {
					t.Fatalf("%+v", devices)
				}
				b.sound("vol", want)
				b.crash()
				b.sound("vol", want)
			})
		}
	}
}

func TestAReplacementMustBeLargeEnough(t *testing.T) {
	b := newBench(t, Config{}, 1, 128<<20)
	b.must(b.CreateVolume(ctx, "vol", 60<<20, VolumeOptions{}))
	v := b.volume("vol")
	defer v.Close()
	if _, err := v.WriteAt(fill(60<<20, 1), 0); err != nil {
		t.Fatal(err)
	}
	b.must(b.Sync(ctx))
	if err := b.ReplaceDevice(ctx, b.disk(0), DeviceSpec{Path: b.disk(1), Size: 40 << 20}, false); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("%v", err)
	}
	if d := b.Devices(); len(d) != 1 || d[0].State != "online" {
		t.Fatalf("%+v", d)
	}
}

func TestADeviceIsPulledAndResilveredUnderLoadTwentyTimes(t *testing.T) {
	for _, profile := range []struct {
		Profile
		devices int
	}{{Mirror, 2}, {RaidZ1, 3}} {
		t.Run(profile.Profile.String(), func(t *testing.T) {
			b, want := newLoaded(t, Config{DataProfile: profile.Profile}, profile.devices, 64<<20)
			v := b.volume("vol")
			l := startLoad(t, v, want, 7)
			for i := range 20 {
				n := i % profile.devices
				d := b.journal.Device(b.disk(n))
				d.Pull(0)
				for b.Devices()[n].State != "faulted" && !t.Failed() {
					spin()
				}
				l.wait(10)
				d.Return()
				all := b.storedBytes()
				b.must(b.ReattachDevice(ctx, b.disk(n), ""))
				if info := b.Devices()[n]; info.State != "online" || info.Missed != 0 {
					t.Fatalf("round %d: %+v", i, info)
				}
				if st := b.MoveStatus(); st.Kind != MoveResilver || st.Done >= all {
					t.Fatalf("round %d: more than the dirty range was written: %+v of %d", i, st, all)
				}
			}
			want = l.end()
			v.Close()
			b.sound("vol", want)
		})
	}
}

func TestADeviceThatWasMissingIsResilveredWhenItIsThereAgain(t *testing.T) {
	b, want := newLoaded(t, Config{DataProfile: Mirror}, 2, 64<<20)
	b.must(b.Close())
	d := b.journal.Device(b.disk(1))
	d.Pull(0)
	b.open()
	if st := b.Devices()[1].State; st != "missing" {
		t.Fatalf("it is %s", st)
	}
	v := b.volume("vol")
	more := fill(1<<20, 9)
	if _, err := v.WriteAt(more, 1<<20); err != nil {
		t.Fatal(err)
	}
	copy(want[1<<20:], more)
	v.Close()
	b.must(b.Close())
	d.Return()
	b.open()
	for b.Devices()[1].State != "online" {
		spin()
	}
	if st := b.MoveStatus(); st.Done != 1<<20 {
		t.Errorf("%d bytes were resilvered, not what was missed", st.Done)
	}
	b.sound("vol", want)
}
