package dm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// SectorSize is the unit of tables, in bytes.
const SectorSize = 512

// A Target is what a device maps to: one target over all of it.
type Target struct {
	Sectors uint64
	Type    string // thin-pool, thin, linear
	Params  string // as dmsetup has them behind the type
}

// Info is what device-mapper knows of a device.
type Info struct {
	Major, Minor uint32
	Open         int  // how many have it open
	Deferred     bool // it goes away with the last of them
	Suspended    bool
	ReadOnly     bool
}

// Node returns the path of the device.
func (i Info) Node() string { return fmt.Sprintf("/dev/dm-%d", i.Minor) }

// Number is the device as tables name it.
func (i Info) Number() string { return fmt.Sprintf("%d:%d", i.Major, i.Minor) }

func (a *answer) info() Info {
	return Info{
		Major: unix.Major(a.Dev), Minor: unix.Minor(a.Dev), Open: int(a.OpenCount),
		Deferred: a.Flags&flagDeferred != 0, Suspended: a.Flags&flagSuspend != 0, ReadOnly: a.Flags&flagReadOnly != 0,
	}
}

// Info looks a device up. [unix.ENXIO] tells that there is none of that name.
func (c *Control) Info(name string) (Info, error) {
	a, err := c.do(request{cmd: cmdDevStatus, name: name})
	if err != nil {
		return Info{}, failed("look up", name, err)
	}
	return a.info(), nil
}

// Create makes a device and starts it. EBUSY tells that one of that name is there.
func (c *Control) Create(name string, t Target, readOnly bool) (Info, error) {
	if _, err := c.do(request{cmd: cmdDevCreate, name: name}); err != nil {
		return Info{}, failed("create", name, err)
	}
	err := c.load(name, t, readOnly)
	if err == nil {
		err = c.resume(name)
	}
	if err != nil {
		return Info{}, errors.Join(failed("create", name, err), c.Remove(name, false))
	}
	return c.Info(name)
}

// Reload gives a device another table.
func (c *Control) Reload(name string, t Target, readOnly bool) error {
	err := c.load(name, t, readOnly)
	if err == nil {
		err = c.suspend(name)
	}
	if err == nil {
		err = c.resume(name)
	}
	return failed("reload", name, err)
}

// While calls do while the device is suspended, with all that was written to it
// before done. A device that is not there needs no suspending.
func (c *Control) While(name string, do func() error) error {
	switch err := c.suspend(name); {
	case errors.Is(err, unix.ENXIO):
		return do()
	case err != nil:
		return failed("suspend", name, err)
	}
	err := do()
	return errors.Join(err, failed("resume", name, c.resume(name)))
}

func (c *Control) suspend(name string) error {
	_, err := c.do(request{cmd: cmdDevSuspend, name: name, flags: flagSuspend})
	return err
}

func (c *Control) resume(name string) error {
	_, err := c.do(request{cmd: cmdDevSuspend, name: name, event: udevHandsOff})
	return err
}

// specSize is that of struct dm_target_spec.
const specSize = 40

func (c *Control) load(name string, t Target, readOnly bool) error {
	spec := make([]byte, specSize, specSize+len(t.Params)+8)
	binary.NativeEndian.PutUint64(spec[8:], t.Sectors)
	copy(spec[24:39], t.Type)
	spec = append(spec, t.Params...)
	spec = append(spec, make([]byte, 8-len(spec)%8)...) // at least the end of the string
	var flags uint32
	if readOnly {
		flags = flagReadOnly
	}
	_, err := c.do(request{cmd: cmdTableLoad, name: name, flags: flags, targets: 1, payload: spec})
	return err
}

// Remove takes a device away; EBUSY while it is open. Deferred, one that is open goes
// when it no longer is. [unix.ENXIO] tells that there is none.
func (c *Control) Remove(name string, deferred bool) error {
	var flags uint32
	if deferred {
		flags = flagDeferred
	}
	_, err := c.do(request{cmd: cmdDevRemove, name: name, flags: flags, event: udevHandsOff})
	return failed("remove", name, err)
}

// Message sends a message to the target at the beginning of a device.
func (c *Control) Message(name, message string) error {
	payload := make([]byte, 8, 8+len(message)+1) // the sector, 0
	payload = append(append(payload, message...), 0)
	_, err := c.do(request{cmd: cmdTargetMsg, name: name, payload: payload})
	return failed("message "+message, name, err)
}

// Status returns what the target of a device tells of itself, and its type.
func (c *Control) Status(name string) (targetType, status string, err error) {
	return c.table(name, 0)
}

// Table returns the parameters of the target of a device, and its type.
func (c *Control) Table(name string) (targetType, params string, err error) {
	return c.table(name, flagStatusTable)
}

func (c *Control) table(name string, flags uint32) (targetType, said string, err error) {
	a, err := c.do(request{cmd: cmdTableStatus, name: name, flags: flags})
	if err != nil {
		return "", "", failed("status", name, err)
	}
	if a.TargetCount < 1 || len(a.data) < specSize {
		return "", "", failed("status", name, errors.New("it has no table"))
	}
	return text(a.data[24:40]), text(a.data[specSize:]), nil
}

// Targets returns the types of targets that the kernel has, with their versions.
func (c *Control) Targets() (map[string][3]uint32, error) {
	a, err := c.do(request{cmd: cmdListVersions})
	if err != nil {
		return nil, fmt.Errorf("device-mapper: list targets: %w", err)
	}
	// struct dm_target_versions: the way to the next, the version, the name.
	targets := map[string][3]uint32{}
	for data := a.data; len(data) > 16; {
		next := binary.NativeEndian.Uint32(data)
		var v [3]uint32
		for i := range v {
			v[i] = binary.NativeEndian.Uint32(data[4+4*i:])
		}
		targets[text(data[16:])] = v
		if next == 0 || int(next) > len(data) {
			break
		}
		data = data[next:]
	}
	return targets, nil
}

// Names returns the names of all devices.
func (c *Control) Names() ([]string, error) {
	a, err := c.do(request{cmd: cmdListDevices})
	if err != nil {
		return nil, fmt.Errorf("device-mapper: list devices: %w", err)
	}
	// struct dm_name_list: the number, the way to the next, the name.
	var names []string
	for data := a.data; len(data) > 12; {
		next := binary.NativeEndian.Uint32(data[8:])
		if name := text(data[12:]); name != "" {
			names = append(names, name)
		}
		if next == 0 || int(next) > len(data) {
			break
		}
		data = data[next:]
	}
	return names, nil
}

func failed(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("device-mapper: %s %s: %w", op, name, err)
}

// Load has the kernel load the module of a type of targets, if it has it
// (DM_GET_TARGET_VERSION, since Linux 5.0).
func (c *Control) Load(targetType string) error {
	_, err := c.do(request{cmd: cmdTargetVersion, name: targetType})
	return failed("load target", targetType, err)
}
