package devicemapper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/rootdir"
)

// A record is what the driver knows of a layer: metadata/ID.json.
type record struct {
	driver.Layer
	DeviceID   uint32 `json:"device_id"`
	DeviceSize int64  `json:"device_size"`
}

// locked runs a step while no other process does one.
func (d *volumes) locked(step func() error) error { return rootdir.Locked(d.path("lock"), step) }

func (d *volumes) recordPath(id string) string { return d.path("metadata", id+recordSuffix) }

const recordSuffix = ".json"

func (d *volumes) record(id string) (*record, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	r := &record{}
	err := readJSON(d.recordPath(id), r)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, driver.ErrNotFound
	case err != nil:
		return nil, err
	case r.ID != id:
		return nil, fmt.Errorf("its record %s is %w: it speaks of %q", d.recordPath(id), driver.ErrDamaged, r.ID)
	}
	return r, nil
}

// checkID also refuses what other drivers have as names of their own, so that layers
// can move between drivers.
func checkID(id string) error {
	if err := driver.CheckID(id); err != nil {
		return err
	}
	if slices.Contains([]string{"lock", "tmp"}, id) {
		return fmt.Errorf("%w: %q is a name of the driver's own", driver.ErrBadID, id)
	}
	return nil
}

// Layer reads the record of a layer.
func (d *volumes) Layer(id string) (driver.Layer, error) {
	r, err := d.record(id)
	if err != nil {
		return driver.Layer{}, d.fail("look up", id, err, "")
	}
	return r.Layer, nil
}

// Layers lists the layers by id.
func (d *volumes) Layers() ([]string, error) {
	entries, err := os.ReadDir(d.path("metadata"))
	if err != nil {
		return nil, d.fail("list layers", "", err, "")
	}
	ids := []string{}
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), recordSuffix); ok && checkID(id) == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// child returns a layer that is built on id, "" for none.
func (d *volumes) child(id string) (string, error) {
	ids, err := d.Layers()
	if err != nil {
		return "", err
	}
	for _, other := range ids {
		if r, err := d.record(other); err == nil && r.Parent() == id {
			return other, nil
		}
	}
	return "", nil
}

// The directory devices holds a file for each number that a device of the pool may
// have, with the id of the layer that it is for. It is made before the device and
// removed after it, so a crash leaves no device that nothing speaks of.

// maxDevice is the largest number of a device (24 bits, dm-thin's MAX_DEV_ID).
const maxDevice = 1<<24 - 1

// newDevice takes a number that is free: here, and in a pool that others use too. What
// has a number here and no record is deleted, so one that is another's must never be
// taken.
func (d *volumes) newDevice(ctx context.Context, id string) (uint32, error) {
	taken, err := d.devices()
	if err != nil {
		return 0, err
	}
	n := d.pool.firstNumber()
	if len(taken) > 0 {
		n = taken[len(taken)-1] + 1
	}
	for ; ; n++ {
		if n > maxDevice {
			n = 1
		}
		if slices.Contains(taken, n) {
			continue
		}
		others, err := d.pool.holds(ctx, n)
		if err != nil {
			return 0, err
		}
		if !others {
			break
		}
	}
	f, err := os.OpenFile(d.devicePath(n), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return 0, err
	}
	_, err = f.WriteString(id)
	if err == nil && !d.volatile {
		err = f.Sync()
	}
	return n, errors.Join(err, f.Close())
}

func (d *volumes) devicePath(n uint32) string {
	return d.path("devices", strconv.FormatUint(uint64(n), 10))
}

// devices returns the numbers that are taken, sorted.
func (d *volumes) devices() ([]uint32, error) {
	entries, err := os.ReadDir(d.path("devices"))
	if err != nil {
		return nil, err
	}
	var list []uint32
	for _, e := range entries {
		if n, err := strconv.ParseUint(e.Name(), 10, 32); err == nil {
			list = append(list, uint32(n))
		}
	}
	slices.Sort(list)
	return list, nil
}

// readJSON reads a file. What cannot be understood is [driver.ErrDamaged].
func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s is %w: %w", path, driver.ErrDamaged, err)
	}
	return nil
}

// syncRoot has what was written below the root be on disk.
func (d *volumes) syncRoot() error {
	if d.volatile {
		return nil
	}
	f, err := os.Open(d.root)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}
