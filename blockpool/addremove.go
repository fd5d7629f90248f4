package blockpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
	"github.com/laminafs/lamina/blockpool/vdev"
)

// AddDevice takes a device into the pool; new chunks use it at once. One that
// carries the label of another pool, or is not empty, is refused with [ErrExists]
// unless force is set.
//
//	Crash after the label: a device that the pool does not know; it is added again.
//	Crash after the txg:   it is in the pool.
func (p *Pool) AddDevice(ctx context.Context, spec DeviceSpec, force bool) error {
	_, err := p.addDevice(ctx, spec, force, nil)
	return failed("add device", spec.Path, err)
}

// addDevice adds a device that is to take the place of an old one, or of none.
func (p *Pool) addDevice(ctx context.Context, spec DeviceSpec, force bool, old *device) (*device, error) {
	if err := p.readOnly(); err != nil {
		return nil, err
	}
	dev, err := p.openNew(&spec, force)
	if err != nil {
		return nil, err
	}
	var d *device
	err = p.do(ctx, &task{run: func(s *pass) error {
		st := deviceState{
			id: uint32(s.state.nextDevice + 1), guid: newGUID(), path: spec.Path, size: dev.Size(), added: time.Now(),
		}
		if old != nil {
			st.heirOf = old.id
		}
		d = newDevice(st, dev)
		if old != nil {
			if err := s.inherit(old, d); err != nil {
				return err
			}
		}
		if err := writeLabel(dev, p.labelOf(d, p.meta.Txg())); err != nil {
			return err
		}
		s.state.nextDevice++
		s.saveDevice(d, st)
		s.after = append(s.after, func() {
			p.array.Add(raid.DeviceID(d.id), dev)
			p.devices.add(d)
			p.updateRoom()
		})
		return nil
	}})
	if err != nil && (d == nil || p.devices.get(d.id) == nil) {
		// Whoever ended the wait may find the device in the pool all the same;
		// then it is the pool's to close.
		if context.Cause(ctx) == nil {
			err = errors.Join(err, dev.Close(), discardNew(spec))
		}
		return nil, err
	}
	p.events.add(Event{Kind: EventDevice, Object: spec.Path, Text: fmt.Sprintf("device %d was added: %d bytes", d.id, dev.Size())})
	return d, nil
}

// openNew opens or makes a device that is to be added.
func (p *Pool) openNew(spec *DeviceSpec, force bool) (vdev.Device, error) {
	path, err := absolute(spec.Path)
	if err != nil {
		return nil, err
	}
	spec.Path = path
	for _, d := range p.devices.all() {
		if d.state.Load().path == path {
			return nil, fmt.Errorf("it is device %d of this pool: %w", d.id, ErrExists)
		}
	}
	var dev vdev.Device
	if spec.Size > 0 {
		if dev, err = p.storage.Create(path, spec.Size); err != nil {
			return nil, err
		}
	} else {
		if dev, err = p.storage.Open(path); err != nil {
			return nil, err
		}
		if err := p.strange(dev); err != nil && !force {
			return nil, errors.Join(err, dev.Close())
		}
	}
	if dev.Size() < minDeviceSize {
		return nil, errors.Join(invalidf("%s has %d bytes, a device needs %d at least", path, dev.Size(), minDeviceSize), dev.Close(), discardNew(*spec))
	}
	return dev, nil
}

// discardNew removes a file that was made for a device that is none.
func discardNew(spec DeviceSpec) error {
	if spec.Size == 0 {
		return nil
	}
	if err := os.Remove(spec.Path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// strange says what a device is used for, unless that is nothing, or it was added
// to this pool and the crash came too soon.
func (p *Pool) strange(dev vdev.Device) error {
	l, err := readLabel(dev)
	if err != nil || l.pool != p.guid {
		return inUse(dev)
	}
	for _, d := range p.devices.all() {
		if d.state.Load().guid == l.deviceGUID {
			return fmt.Errorf("%s is device %d of this pool: attach it instead: %w", dev.Path(), d.id, ErrExists)
		}
	}
	return nil
}

// Grow makes use of a device that has become longer: a block device, or a file,
// which is made size bytes long unless size is 0.
//
//	Crash before the txg: the device is longer, and as much of it is used as before.
func (p *Pool) Grow(ctx context.Context, device string, size int64) error {
	return failed("grow device", device, p.grow(ctx, device, size))
}

func (p *Pool) grow(ctx context.Context, name string, size int64) error {
	d, err := p.findDevice(name)
	switch {
	case err != nil:
		return err
	case d.dev == nil || !p.online(d):
		return fmt.Errorf("it is not online: %w", ErrIncomplete)
	}
	if size == 0 {
		size = d.dev.Size()
		if st, err := os.Stat(d.dev.Path()); err == nil && st.Mode().IsRegular() {
			size = st.Size()
		}
	}
	if err := d.dev.Grow(size); err != nil {
		return err
	}
	if err := d.dev.Sync(); err != nil {
		return err
	}
	before := d.state.Load().size
	if err := p.do(ctx, &task{run: func(s *pass) error {
		st := s.deviceState(d)
		st.size = max(st.size, d.dev.Size())
		s.saveDevice(d, st)
		s.after = append(s.after, p.updateRoom)
		return nil
	}}); err != nil {
		return err
	}
	p.events.add(Event{Kind: EventDevice, Object: d.dev.Path(), Text: fmt.Sprintf("device grew from %d to %d bytes", before, d.state.Load().size)})
	return nil
}

// RemoveDevice moves all that a device holds to the others, while everything
// goes on, and lets it leave the pool. When they have no room for it, or are too
// few for the profiles, it refuses with [ErrNoSpace] and says what is lacking. It
// refuses, too, to leave records behind that cannot be read.
//
// The end of ctx, and [Pool.StopMove], end it: the device stays. The end of the
// process does not: when the pool is opened again, it goes on.
func (p *Pool) RemoveDevice(ctx context.Context, device string) error {
	return failed("remove device", device, p.runMove(ctx, func(ctx context.Context) error {
		d, err := p.findDevice(device)
		if err != nil {
			return err
		}
		if err := p.markLeaving(ctx, d); err != nil {
			return err
		}
		return p.remove(ctx, d)
	}))
}

// runMove runs what moves chunks when nobody else does.
func (p *Pool) runMove(ctx context.Context, move func(context.Context) error) error {
	if err := p.readOnly(); err != nil {
		return err
	}
	ctx, done, err := p.jobs.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	if st := p.MoveStatus(); st.Running && st.Kind != MoveResilver {
		return fmt.Errorf("%s of %s is under way: %w", st.Kind, cmp.Or(st.Device, "data"), ErrBusy)
	}
	turn, err := p.jobs.move(ctx)
	if err != nil {
		return err
	}
	defer turn()
	return move(ctx)
}

// findDevice finds a device by path, id or guid.
func (p *Pool) findDevice(name string) (*device, error) {
	path, _ := absolute(name)
	for _, d := range p.devices.all() {
		st := d.state.Load()
		if st.path == path || st.path == name || strconv.FormatUint(uint64(d.id), 10) == name || st.guid.String() == name {
			return d, nil
		}
	}
	return nil, fmt.Errorf("the pool has no such device: %w", ErrNotFound)
}

// markLeaving has a device get no new chunks, if all that it has can go
// elsewhere.
func (p *Pool) markLeaving(ctx context.Context, d *device) error {
	return p.do(ctx, &task{run: func(s *pass) error {
		st := s.deviceState(d)
		st.leaving, st.heirOf = true, 0
		rest := 0
		for _, o := range p.devices.usable() {
			if o != d {
				rest++
			}
		}
		if least := p.Config().DataProfile.MinDevices(); rest < least {
			return fmt.Errorf("profile %v needs %d devices, %d would be left: %w", p.Config().DataProfile, least, rest, ErrNoSpace)
		}
		targets := slices.DeleteFunc(p.targets(nil), func(t *device) bool { return t == d })
		chunks := slices.DeleteFunc(p.space.all(), (*chunk).empty)
		if _, err := planMoves(d, targets, chunks, slices.DeleteFunc(s.allChunks(), (*chunk).empty), math.MaxInt); err != nil {
			return err
		}
		s.saveDevice(d, st)
		s.after = append(s.after, p.updateRoom)
		return nil
	}})
}

// remove empties a device that is leaving and forgets it.
func (p *Pool) remove(ctx context.Context, d *device) error {
	path := d.state.Load().path
	ctx, end := p.moves.start(ctx, MoveStatus{Kind: MoveRemove, Device: path, Progress: Progress{Total: p.recordBytes(d)}})
	p.events.add(Event{Kind: EventDevice, Object: path, Text: "device is being emptied, to be removed"})
	lost, err := p.vacate(ctx, d, nil, true)
	if err == nil {
		err = p.forget(ctx, d, 0)
	}
	err = cmpCause(ctx, err)
	if err != nil && !errors.Is(err, ErrClosed) {
		err = errors.Join(err, p.stay(ctx, d))
		p.events.add(Event{Kind: EventDevice, Object: path, Text: fmt.Sprintf("device is not removed: %v", err)})
	}
	end(lost, err)
	return err
}

// cmpCause returns why ctx has ended when that is behind an error.
func cmpCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// stay lets devices that were to leave, or to take a place, be as any other.
func (p *Pool) stay(ctx context.Context, list ...*device) error {
	return p.do(context.WithoutCancel(ctx), &task{run: func(s *pass) error {
		for _, d := range list {
			st := s.deviceState(d)
			st.leaving, st.heirOf = false, 0
			s.saveDevice(d, st)
		}
		s.after = append(s.after, p.updateRoom)
		return nil
	}})
}

// forget lets a device go that holds nothing any more. heir, if it is not 0, has
// its place then.
//
//	Crash before the txg: the device is still to be forgotten.
//	Crash after it:       it has a label of a pool that does not know it.
func (p *Pool) forget(ctx context.Context, d *device, heir uint32) error {
	if _, err := p.settle(ctx); err != nil { // nobody writes to it any more
		return err
	}
	if err := p.do(context.WithoutCancel(ctx), &task{run: func(s *pass) error {
		for _, c := range s.allChunks() {
			if c.names(d.id) {
				return fmt.Errorf("chunk %d still lies on it: %w", c.ID, ErrBusy)
			}
		}
		s.batch.Delete(meta.Devices, key64(uint64(d.id)))
		s.left = append(s.left, d.id)
		if h := p.devices.get(heir); h != nil {
			st := s.deviceState(h)
			st.heirOf = 0
			s.saveDevice(h, st)
		}
		s.after = append(s.after, func() {
			p.devices.remove(d)
			p.array.Remove(raid.DeviceID(d.id))
			p.updateRoom()
		})
		return nil
	}}); err != nil {
		return err
	}
	path := d.state.Load().path
	p.events.add(Event{Kind: EventDevice, Object: path, Text: "device has left the pool"})
	if d.dev == nil {
		return nil
	}
	if err := clearLabel(d.dev); err != nil {
		p.events.add(Event{Kind: EventDevice, Object: path, Text: fmt.Sprintf("its label could not be wiped: %v", err)})
	}
	if err := d.dev.Close(); err != nil {
		p.events.add(Event{Kind: EventDevice, Object: path, Text: err.Error()})
	}
	return nil
}

// names reports whether a chunk, or a shadow of it, lies on a device.
func (c *chunk) names(device uint32) bool {
	for _, col := range c.Columns {
		if uint32(col.Device) == device || col.Shadow != nil && uint32(col.Shadow.Device) == device {
			return true
		}
	}
	return false
}

// continueMoves goes on with what the end of the process interrupted, and gives
// devices what they have missed.
func (p *Pool) continueMoves() {
	p.background(EventDevice, "move", func(ctx context.Context) error {
		turn, err := p.jobs.move(ctx)
		if err != nil {
			return err
		}
		defer turn()
		var errs []error
		inherited := map[uint32]bool{}
		for _, h := range p.devices.all() {
			if of := h.state.Load().heirOf; of != 0 {
				inherited[of] = true
				errs = append(errs, p.replace(ctx, p.devices.get(of), h))
			}
		}
		for _, d := range p.devices.all() {
			if d.state.Load().leaving && !inherited[d.id] && context.Cause(ctx) == nil {
				errs = append(errs, p.remove(ctx, d))
			}
		}
		if len(errs) == 0 && p.hasShadows() {
			errs = append(errs, p.dropShadows(ctx)) // of a move that was given up
		}
		if p.converting() && context.Cause(ctx) == nil {
			errs = append(errs, p.convert(ctx))
		}
		return errors.Join(append(errs, p.resilverAll(ctx))...)
	})
}

// hasShadows reports whether some chunk is on its way.
func (p *Pool) hasShadows() bool {
	for _, c := range p.space.all() {
		for _, col := range c.Columns {
			if col.Shadow != nil {
				return true
			}
		}
	}
	return false
}
