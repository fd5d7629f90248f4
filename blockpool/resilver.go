package blockpool

import (
	"context"
	"errors"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/raid"
	"github.com/laminafs/lamina/blockpool/vdev"
)

// ReattachDevice takes a device into use again that was missing or has faulted:
// path is where it is now, empty for where it was. What it has missed is written
// to it, and nothing else: records that were born while it was away. It returns
// when the device has all.
//
// The device is opened anew, so it serves also a device whose cable was loose.
func (p *Pool) ReattachDevice(ctx context.Context, device, path string) error {
	return failed("attach device", device, p.runMove(ctx, func(ctx context.Context) error {
		d, err := p.findDevice(device)
		if err != nil {
			return err
		}
		if d.dev == nil || !p.online(d) {
			if err := p.reattach(ctx, d, path); err != nil {
				return err
			}
		}
		return p.resilverAll(ctx)
	}))
}

// ClearDevice tries a faulted device again, whose trouble is over. It is
// [Pool.ReattachDevice] at the place where the device is, and forgets what was
// counted against it.
func (p *Pool) ClearDevice(ctx context.Context, device string) error {
	return p.ReattachDevice(ctx, device, "")
}

// reattach opens a device again. It is the array's from then on, and lacks what
// the state says.
func (p *Pool) reattach(ctx context.Context, d *device, path string) error {
	// What the device misses may still be to be noted.
	if err := p.Sync(ctx); err != nil {
		return err
	}
	p.array.Remove(raid.DeviceID(d.id))
	if d.dev != nil {
		if err := d.dev.Close(); err != nil {
			p.events.add(Event{Kind: EventDevice, Object: d.state.Load().path, Text: err.Error()})
		}
	}
	dev, err := p.openAgain(d, path)
	if err != nil {
		p.swapDevice(d, nil)
		return err
	}
	now := p.swapDevice(d, dev)
	return p.do(ctx, &task{run: func(s *pass) error {
		st := s.deviceState(now)
		st.path = dev.Path()
		if st.away == 0 {
			st.away = s.g.number // it is not known to have missed anything: what comes until now is little
		}
		s.saveDevice(now, st)
		s.after = append(s.after, func() {
			p.array.Add(raid.DeviceID(now.id), dev)
			p.events.add(Event{Kind: EventDevice, Object: st.path, Text: fmt.Sprintf("device is back; it has missed what came from txg %d on", st.away)})
		})
		return nil
	}})
}

// openAgain opens a device and makes sure that it is the one.
func (p *Pool) openAgain(d *device, path string) (vdev.Device, error) {
	st := d.state.Load()
	if path == "" {
		path = st.path
	}
	path, err := absolute(path)
	if err != nil {
		return nil, err
	}
	o := OpenOptions{Storage: p.storage}
	at := *st
	at.path = path
	return o.deviceAt(&at, p.guid)
}

// swapDevice replaces what the pool knows of a device by the same device, open
// or not.
func (p *Pool) swapDevice(d *device, dev vdev.Device) *device {
	now := newDevice(*d.state.Load(), dev)
	now.faults.Store(d.faults.Load())
	p.devices.mu.Lock()
	defer p.devices.mu.Unlock()
	for i := range p.devices.list {
		if p.devices.list[i].id == d.id {
			p.devices.list[i] = now
		}
	}
	return now
}

// resilverAll gives all devices that are there what they have missed.
func (p *Pool) resilverAll(ctx context.Context) error {
	var list []*device
	var paths string
	for _, d := range p.devices.all() {
		if d.dev != nil && p.online(d) && d.state.Load().away != 0 {
			list = append(list, d)
			paths += ", " + d.state.Load().path
		}
	}
	if len(list) == 0 {
		return nil
	}
	total := int64(0)
	for _, d := range list {
		total += p.recordBytes(d)
	}
	ctx, end := p.moves.start(ctx, MoveStatus{Kind: MoveResilver, Device: paths[2:], Progress: Progress{Total: total}})
	p.events.add(Event{Kind: EventScrub, Object: paths[2:], Text: "resilver begins"})
	lost, err := p.resilver(ctx, list)
	err = cmpCause(ctx, err)
	if errors.Is(err, ErrClosed) {
		end(lost, err)
		return err
	}
	text := fmt.Sprintf("resilver ends: %d bytes of records were written anew, %d records are lost", p.MoveStatus().Done, lost)
	if err != nil {
		text = fmt.Sprintf("resilver is given up: %v", err)
	}
	p.events.add(Event{Kind: EventScrub, Object: paths[2:], Text: text})
	end(lost, err)
	return err
}

// resilver writes the records to devices that were born while those were away.
// Records that are written from now on reach them like the others.
//
// Crash before the end: the devices still lack what they lacked, as far as is
// known, and the next time does it all again.
func (p *Pool) resilver(ctx context.Context, list []*device) (lost uint64, err error) {
	away, faults := map[raid.DeviceID]uint64{}, map[uint32]uint64{}
	for _, d := range list {
		away[raid.DeviceID(d.id)], faults[d.id] = d.state.Load().away, d.faults.Load()
	}
	txg, err := p.settle(ctx)
	if err != nil {
		return 0, err
	}
	lost, err = p.rebuild(ctx, txg, func(c *chunk, rec format.Record, f func(int) error) error {
		for i, col := range c.Columns {
			if since := away[col.Device]; since != 0 && rec.Birth >= since {
				if err := f(i); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return lost, err
	}
	return lost, p.do(ctx, &task{run: func(s *pass) error {
		for _, d := range list {
			if !p.online(d) || d.faults.Load() != faults[d.id] || p.devices.get(d.id) != d {
				return fmt.Errorf("device %s has failed meanwhile: %w", d.state.Load().path, ErrIncomplete)
			}
		}
		for _, d := range list {
			st := s.deviceState(d)
			st.away = 0
			s.saveDevice(d, st)
		}
		s.after = append(s.after, p.updateRoom)
		return nil
	}})
}
