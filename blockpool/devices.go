package blockpool

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
	"github.com/laminafs/lamina/blockpool/vdev"
)

// A device is one of the pool's, there or not.
type device struct {
	id    uint32
	state atomic.Pointer[deviceState] // as committed; replaced, never changed
	dev   vdev.Device                 // nil when it is missing

	faults atomic.Uint64 // how often it was faulted
}

func newDevice(state deviceState, dev vdev.Device) *device {
	d := &device{id: state.id, dev: dev}
	d.state.Store(&state)
	return d
}

// devices are those of the pool, by id.
type devices struct {
	mu   sync.RWMutex
	list []*device
}

// all returns the devices, by id.
func (d *devices) all() []*device {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.list)
}

// get returns the device of that id, or nil.
func (d *devices) get(id uint32) *device {
	for _, dev := range d.all() {
		if dev.id == id {
			return dev
		}
	}
	return nil
}

// usable returns the devices that new chunks may be made on.
func (d *devices) usable() (list []*device) {
	for _, dev := range d.all() {
		if st := dev.state.Load(); dev.sound() && !st.leaving && st.heirOf == 0 {
			list = append(list, dev)
		}
	}
	return list
}

// takers returns the devices that new chunks of a profile may be made on. Where too
// few are usable, those that are away count too, as long as what is written can be
// read without them: a pool that has lost a device goes on, and the device, or what
// takes its place, gets what it missed as it does of older chunks.
func (d *devices) takers(profile Profile) []*device {
	list, need := d.usable(), profile.MinDevices()
	spare := profile.Parity()
	if profile == Mirror {
		spare = need - 1
	}
	if len(list) >= need || len(list) < need-spare {
		return list
	}
	for _, dev := range d.all() {
		if st := dev.state.Load(); len(list) < need && !dev.sound() && !st.leaving && st.heirOf == 0 {
			list = append(list, dev)
		}
	}
	return list
}

// sound reports whether the device is there and has missed nothing.
func (d *device) sound() bool { return d.dev != nil && d.state.Load().away == 0 }

// add takes a device in.
func (d *devices) add(dev *device) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, dev)
	slices.SortFunc(d.list, func(a, b *device) int { return cmp.Compare(a.id, b.id) })
}

// remove forgets a device.
func (d *devices) remove(dev *device) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = slices.DeleteFunc(d.list, func(o *device) bool { return o == dev })
}

// saveDevice puts a device's state into the batch, and makes it the known one when
// the txg is durable.
func (s *pass) saveDevice(d *device, state deviceState) {
	if slices.Contains(s.left, d.id) {
		return
	}
	if s.devices == nil {
		s.devices = map[uint32]deviceState{}
	}
	s.devices[d.id] = state
	s.batch.Put(meta.Devices, key64(uint64(d.id)), state.pack())
	s.after = append(s.after, func() { d.state.Store(&state) })
}

// deviceState returns the state of a device as this txg has it, to be changed.
func (s *pass) deviceState(d *device) deviceState {
	if st, ok := s.devices[d.id]; ok {
		return st
	}
	return *d.state.Load()
}

// noteFaulted notes the devices that have not all that this txg has written. It
// is committed with it, or a crash would leave nobody who knows.
func (s *pass) noteFaulted() {
	for _, d := range s.p.devices.all() {
		if st := s.deviceState(d); d.dev != nil && !s.p.online(d) && st.away == 0 {
			st.away = s.g.number
			s.saveDevice(d, st)
		}
	}
}

// online reports whether a device is there and has not failed.
func (p *Pool) online(d *device) bool { return p.array.State(raid.DeviceID(d.id)) == raid.Online }

// writeLabels writes the labels of all devices that are there; txg is durable. It
// fails only when no device takes one: a device that does not is faulted.
func (p *Pool) writeLabels(txg uint64) error {
	var errs []error
	written := 0
	for _, d := range p.devices.all() {
		if d.dev == nil || !p.online(d) {
			continue
		}
		if err := writeLabel(d.dev, p.labelOf(d, txg)); err != nil {
			p.array.Fault(raid.DeviceID(d.id))
			p.faulted(raid.DeviceID(d.id), "write label", err)
			errs = append(errs, err)
			continue
		}
		written++
	}
	if written == 0 {
		return fmt.Errorf("write labels: %w", errors.Join(errs...))
	}
	return nil
}

// labelOf returns what the label of a device is to say.
func (p *Pool) labelOf(d *device, txg uint64) *label {
	return &label{
		pool: p.guid, name: p.Config().Name, device: d.id, deviceGUID: d.state.Load().guid, size: d.state.Load().size,
		txg: txg, replicas: p.replicaPaths(), failed: p.meta.Failed(),
	}
}

// DeviceInfo tells of a device. Sizes are in bytes.
type DeviceInfo struct {
	ID        uint32    `json:"id"`
	GUID      GUID      `json:"guid"`
	Path      string    `json:"path"`
	State     string    `json:"state"` // online, faulted, missing, leaving or resilvering
	Size      int64     `json:"size"`
	Allocated int64     `json:"allocated"` // given to chunks
	Added     time.Time `json:"added"`
	// Missed is the first txg that the device has not, 0 when it has all.
	Missed uint64 `json:"missed_since_txg,omitempty"`

	ReadErrors     uint64 `json:"read_errors"` // since the pool was opened
	WriteErrors    uint64 `json:"write_errors"`
	ChecksumErrors uint64 `json:"checksum_errors"`
}

// Devices returns the devices of the pool, by id.
func (p *Pool) Devices() []DeviceInfo {
	chunks, status := p.space.all(), p.array.Status()
	var list []DeviceInfo
	for _, d := range p.devices.all() {
		st := *d.state.Load()
		i := DeviceInfo{ID: d.id, GUID: st.guid, Path: st.path, Size: st.size, Added: st.added, Missed: st.away, State: "online"}
		for _, st := range status {
			if uint32(st.ID) == d.id {
				i.ReadErrors, i.WriteErrors, i.ChecksumErrors = st.ReadErrors, st.WriteErrors, st.ChecksumErrors
			}
		}
		switch {
		case d.dev == nil:
			i.State = "missing"
		case !p.online(d):
			i.State = "faulted"
		case st.leaving:
			i.State = "leaving"
		case st.away != 0:
			i.State = "resilvering"
		}
		i.Allocated = st.size - labelSpace
		for _, g := range d.gaps(chunks) {
			i.Allocated -= g.n
		}
		list = append(list, i)
	}
	return list
}

// replicaPaths returns where the metadata is, replicas that failed included.
func (p *Pool) replicaPaths() (paths []string) {
	for _, r := range p.meta.Replicas() {
		paths = append(paths, r.Path)
	}
	return paths
}

// faulted is told by the array that an operation failed on a device. If that
// faulted it, what it may have missed begins with the txg after the last durable
// one; the next txg notes it.
func (p *Pool) faulted(id raid.DeviceID, op string, cause error) {
	d := p.devices.get(uint32(id))
	if d == nil {
		return
	}
	if p.online(d) {
		p.events.add(Event{Kind: EventDevice, Object: d.state.Load().path, Text: fmt.Sprintf("%s failed: %v", op, cause)})
		return
	}
	d.faults.Add(1)
	since := p.meta.Txg() + 1
	p.events.add(Event{Kind: EventDevice, Object: d.state.Load().path, Text: fmt.Sprintf("device faulted: %s: %v", op, cause)})
	p.later(p.noteAway(d.id, since))
}

// noteAway returns a task that notes the first txg that a device misses.
func (p *Pool) noteAway(id uint32, since uint64) *task {
	return &task{run: func(s *pass) error {
		d := p.devices.get(id)
		if d == nil {
			return nil
		}
		if st := s.deviceState(d); st.away == 0 {
			st.away = since
			s.saveDevice(d, st)
		}
		return nil
	}}
}

// deviceAt opens the device with a label of this pool at one of the places where
// it may be: its path, or a directory or path that was given.
func (o *OpenOptions) deviceAt(st *deviceState, pool GUID) (vdev.Device, error) {
	var errs []error
	for _, path := range append([]string{st.path}, o.SearchDevices...) {
		dev, err := o.Storage.Open(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l, err := readLabel(dev)
		if err == nil && l.pool == pool && l.deviceGUID == st.guid {
			return dev, nil
		}
		if err == nil {
			err = fmt.Errorf("%s is device %d of pool %s (%s): %w", path, l.device, l.name, l.pool, ErrInvalid)
		}
		errs = append(errs, errors.Join(err, dev.Close()))
	}
	return nil, errors.Join(errs...)
}

// absolute returns the path by which a device or replica is found from anywhere.
func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return abs, nil
}
