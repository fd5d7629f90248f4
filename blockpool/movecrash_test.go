package blockpool

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/raid"
)

var errPulled = errors.New("it was pulled")

// Each of these changes the devices of a pool while scripts run.
var deviceWork = []struct {
	name    string
	profile Profile
	devices int
	do      func(*bench) error
}{
	{"remove, single", Single, 2, func(b *bench) error { return b.RemoveDevice(ctx, "/disk0") }},
	{"remove, mirror", Mirror, 3, func(b *bench) error { return b.RemoveDevice(ctx, "/disk0") }},
	{"replace, single", Single, 1, func(b *bench) error {
		return b.ReplaceDevice(ctx, "/disk0", DeviceSpec{Path: "/new", Size: minDeviceSize}, false)
	}},
	{"add and replace, raidz1", RaidZ1, 3, func(b *bench) error {
		if err := b.AddDevice(ctx, DeviceSpec{Path: "/more", Size: minDeviceSize}, false); err != nil {
			return err
		}
		return b.ReplaceDevice(ctx, "/disk1", DeviceSpec{Path: "/new", Size: minDeviceSize}, false)
	}},
	{"convert, single to mirror", Single, 2, convertTo(Mirror)},
	{"convert, mirror to single", Mirror, 2, convertTo(Single)},
	{"convert, mirror to raidz1", Mirror, 3, convertTo(RaidZ1)},
	{"convert, raidz1 to raidz2 and to single", RaidZ1, 4, convertTo(RaidZ2, Single)},
	{"pull and attach, mirror", Mirror, 2, func(b *bench) error {
		for i := range 3 {
			id := raid.DeviceID(1 + i%2)
			d := b.journal.Device(fmt.Sprintf("/disk%d", i%2))
			d.Pull(0)
			time.Sleep(5 * time.Millisecond)
			b.array.Fault(id) // as when it is written to next
			b.faulted(id, "test", errPulled)
			time.Sleep(10 * time.Millisecond)
			d.Return()
			if err := b.ReattachDevice(ctx, d.Path(), ""); err != nil {
				return err
			}
		}
		return nil
	}},
}

// convertTo returns what converts a pool to one profile after the other, and pauses
// each time on the way.
func convertTo(profiles ...Profile) func(*bench) error {
	return func(b *bench) error {
		for _, profile := range profiles {
			go func() {
				time.Sleep(10 * time.Millisecond)
				b.PauseConvert()
			}()
			if err := b.Convert(ctx, profile, ConvertOptions{}); err != nil {
				return err
			}
			if b.ConvertStatus().State != ConvertPaused {
				continue
			}
			if err := b.Convert(ctx, profile, ConvertOptions{Resume: true}); err != nil {
				return err
			}
		}
		return nil
	}
}

// settled waits until what the crash interrupted has been gone on with, and tells
// whether each copy of everything is right then.
func settled(p *Pool) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		busy := p.hasShadows() || p.converting()
		for _, d := range p.devices.all() {
			st := d.state.Load()
			busy = busy || st.leaving || st.heirOf != 0 || st.away != 0 && d.dev != nil
		}
		if !busy {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the move does not end: %+v, %+v, %+v", p.MoveStatus(), p.Devices(), p.Events(0))
		}
	}
	st, err := p.Scrub(ctx, ScrubOptions{})
	if err != nil {
		return err
	}
	if st.Mended+st.Unrecoverable != 0 || st.LostRecords+st.LostNodes != 0 {
		return fmt.Errorf("a scrub finds %+v", st)
	}
	return nil
}

// TestAfterACrashAMoveGoesOnAndNothingIsLost enumerates crashes while devices
// leave, are replaced, or return, LAMINA_MOVE_STATES for each.
func TestAfterACrashAMoveGoesOnAndNothingIsLost(t *testing.T) {
	states := fromEnv("LAMINA_MOVE_STATES", 200)
	for i, work := range deviceWork {
		t.Run(work.name, func(t *testing.T) {
			rec := recordBeside(t, work.profile, work.devices, Single, uint64(i), 1, 150, work.do)
			each(t, states, func(c *crasher, k int) error {
				n := rec.journal.Len() - rec.from
				at, seed := rec.from+c.rng.IntN(n+1), c.rng.Uint64()|1
				if k%4 == 0 { // the process was killed
					at, seed = rec.from+k*n/states, 0
				}
				s := rec.journal.State(at, seed)
				p, err := c.open(s.Journal, boltState(s, rec.base), rec.opts)
				if err != nil {
					return fmt.Errorf("%v: %w", s, err)
				}
				defer p.Abandon()
				if err := c.contents(rec, p, s.Marks(), seed != 0); err != nil {
					return fmt.Errorf("%v: %w", s, err)
				}
				if err := settled(p); err != nil {
					return fmt.Errorf("%v: %w", s, err)
				}
				if err := c.contents(rec, p, s.Marks(), seed != 0); err != nil {
					return fmt.Errorf("%v: after the move: %w", s, err)
				}
				return recountAll(p, false)
			})
		})
	}
}
