package devicemapper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/rootdir"
)

// Remove takes a layer's record away, and then its device. One that somebody still
// has open is deleted by the cleanup after that ended.
func (d *volumes) Remove(ctx context.Context, id string) error {
	if _, err := d.record(id); err != nil && !errors.Is(err, driver.ErrDamaged) {
		return d.fail("remove", id, err, "")
	}
	err := d.locked(func() error {
		r, err := d.removable(id)
		if err != nil {
			return err
		}
		if r != nil && !d.set.deferDelete {
			if err := d.pool.idle(ctx, r.DeviceID, r.DeviceSize); err != nil {
				return err
			}
		}
		d.steps("unpublish")
		// Crash before: the layer. Behind: a device that no record speaks of, swept.
		if err := os.Remove(d.recordPath(id)); err != nil {
			return err
		}
		d.steps("delete")
		d.tidyMounts(id)
		if r == nil {
			return nil // its device is swept
		}
		if err := d.deleteDevice(ctx, r.DeviceID, r.DeviceSize); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
		return nil
	})
	return d.fail("remove", id, err, "")
}

// removable reports why a layer cannot be removed. A damaged one can, and has no
// record.
func (d *volumes) removable(id string) (*record, error) {
	r, err := d.record(id)
	if errors.Is(err, driver.ErrDamaged) {
		r, err = nil, nil
	}
	if err == nil {
		err = d.notMounted(id)
	}
	if err != nil {
		return nil, err
	}
	child, err := d.child(id)
	if err == nil && child != "" {
		err = fmt.Errorf("%w: %s; remove that first", driver.ErrHasChildren, child)
	}
	return r, err
}

// deleteDevice deletes a device and then gives its number back.
func (d *volumes) deleteDevice(ctx context.Context, n uint32, size int64) error {
	if err := d.pool.remove(ctx, n, size); err != nil {
		return err
	}
	d.steps("number back")
	return os.Remove(d.devicePath(n))
}

// tidyMounts removes the note of a layer's mounts and its place. What is not empty
// stays.
func (d *volumes) tidyMounts(id string) {
	_ = os.Remove(d.path("mounts", id))
	_ = os.Remove(d.path("mnt", id, rootDir))
	_ = os.Remove(d.path("mnt", id))
}

// Cleanup sweeps what crashes have left.
func (d *volumes) Cleanup(ctx context.Context) (swept []string, err error) {
	err = d.locked(func() error {
		for _, sweep := range []func(context.Context) ([]string, error){d.sweepTemporary, d.sweepRecords, d.sweepDevices, d.sweepPlaces} {
			more, err := sweep(ctx)
			swept = append(swept, more...)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return swept, d.fail("clean up", "", err, "")
}

// sweepTemporary takes mounts away that were made on the way to somewhere, which
// happens under the lock only.
func (d *volumes) sweepTemporary(context.Context) (swept []string, err error) {
	entries, err := os.ReadDir(d.path("tmp"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := d.path("tmp", e.Name())
		for d.unmountView(path, true) == nil {
		}
		if err := os.Remove(path); err != nil {
			return swept, err
		}
		swept = append(swept, "tmp/"+e.Name())
	}
	return swept, nil
}

// sweepRecords removes records that were about to replace others.
func (d *volumes) sweepRecords(context.Context) (swept []string, err error) {
	entries, err := os.ReadDir(d.path("metadata"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != rootdir.NewSuffix {
			continue
		}
		if err := os.Remove(d.path("metadata", e.Name())); err != nil {
			return swept, err
		}
		swept = append(swept, "metadata/"+e.Name())
	}
	return swept, nil
}

// sweepDevices deletes devices that no record speaks of. Those that somebody has open
// are for another time.
func (d *volumes) sweepDevices(ctx context.Context) (swept []string, err error) {
	used, err := d.usedDevices()
	if err != nil {
		return nil, err
	}
	taken, err := d.devices()
	if err != nil {
		return nil, err
	}
	for _, n := range taken {
		if slices.Contains(used, n) {
			continue
		}
		// Its size is not known any more; that of the base device has the best of
		// discarding.
		err := d.deleteDevice(ctx, n, max(d.format.BaseSize, d.set.baseSize))
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		if err != nil {
			return swept, err
		}
		swept = append(swept, "devices/"+strconv.FormatUint(uint64(n), 10))
	}
	return swept, nil
}

// usedDevices returns the numbers that records speak of. A record that cannot be read
// is an error: its device may not be taken for one without.
func (d *volumes) usedDevices() ([]uint32, error) {
	if err := readJSON(d.path(formatFile), &d.format); err != nil {
		return nil, err
	}
	used := []uint32{d.format.Base}
	ids, err := d.Layers()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		r, err := d.record(id)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", id, err)
		}
		used = append(used, r.DeviceID)
	}
	return used, nil
}

// sweepPlaces removes notes and places of layers that are gone.
func (d *volumes) sweepPlaces(context.Context) ([]string, error) {
	for _, dir := range []string{"mounts", "mnt"} {
		entries, err := os.ReadDir(d.path(dir))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			id := strings.TrimSuffix(e.Name(), rootdir.NewSuffix)
			if _, err := os.Lstat(d.recordPath(id)); errors.Is(err, os.ErrNotExist) {
				d.tidyMounts(e.Name())
			}
		}
	}
	return nil, nil // nothing that a layer's content was in
}
