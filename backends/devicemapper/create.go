package devicemapper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/rootdir"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/layer"
)

// Create makes a snapshot of the parent's device, or of the base device.
func (d *volumes) Create(ctx context.Context, id, parent string, o driver.CreateOptions) error {
	if _, err := d.newLayer(id, parent, o); err != nil {
		return d.fail("create", id, err, "")
	}
	d.steps("record")
	err := d.locked(func() error {
		r, err := d.newLayer(id, parent, o) // another process may have been faster
		if err != nil {
			return err
		}
		return d.create(ctx, r)
	})
	return d.fail("create", id, err, "")
}

// newLayer checks what was asked for.
func (d *volumes) newLayer(id, parent string, o driver.CreateOptions) (*record, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(d.recordPath(id)); err == nil {
		return nil, driver.ErrExists
	}
	switch {
	case o.Size < 0 || o.Inodes < 0:
		return nil, fmt.Errorf("a limit below 0 is %w", driver.ErrUnsupported)
	case o.Inodes > 0:
		return nil, fmt.Errorf("a limit of files is %w: the filesystem of a device has as many as its size gives", driver.ErrUnsupported)
	}
	r := &record{Layer: driver.Layer{ID: id, Size: o.Size}}
	if r.Size == 0 {
		r.Size = d.set.size
	}
	if parent == "" {
		return r, nil
	}
	p, err := d.record(parent)
	if err != nil {
		return nil, fmt.Errorf("parent %s: %w", parent, err)
	}
	if !p.Committed {
		return nil, fmt.Errorf("parent %s: %w; commit it first", parent, driver.ErrActive)
	}
	r.Parents = append([]string{parent}, p.Parents...)
	return r, nil
}

// create makes the device and then the record.
//
// Crash before the last step: a device that no record speaks of, swept. Behind it:
// the layer.
func (d *volumes) create(ctx context.Context, r *record) error {
	if err := d.hasRoom(ctx); err != nil {
		return err
	}
	if err := d.base(ctx); err != nil {
		return err
	}
	of, size := d.format.Base, d.format.BaseSize
	if p := r.Parent(); p != "" {
		parent, err := d.record(p)
		if err != nil {
			return err
		}
		of, size = parent.DeviceID, parent.DeviceSize
	}
	r.DeviceSize = max(size, d.format.BaseSize)
	if r.Size > 0 && r.Size < r.DeviceSize {
		return fmt.Errorf("a size of %s is %w: devices grow only, and the one that it begins as has %s", human(r.Size), driver.ErrUnsupported, human(r.DeviceSize))
	}
	r.DeviceSize = max(r.DeviceSize, r.Size)
	d.steps("number")
	n, err := d.newDevice(ctx, r.ID)
	if err != nil {
		return err
	}
	r.DeviceID = n
	d.steps("snapshot")
	if err := d.pool.snapshot(ctx, n, of, r.DeviceSize); err != nil {
		return errors.Join(err, os.Remove(d.devicePath(n)))
	}
	r.Created = time.Now().UTC()
	if r.DeviceSize > size {
		d.steps("grow")
		if err := d.grow(ctx, n, r.DeviceSize); err != nil {
			return err
		}
	}
	d.steps("publish")
	return rootdir.ReplaceJSON(d.recordPath(r.ID), r)
}

// hasRoom refuses new layers below dm.min_free_space.
func (d *volumes) hasRoom(ctx context.Context) error {
	s, err := d.pool.space(ctx)
	if err != nil {
		return err
	}
	if what, free, least, short := s.short(d.set.minFree); short {
		return fmt.Errorf("the pool has %s of %s free, and dm.min_free_space wants %s: %w; remove layers, make the pool larger, or change dm.min_free_space", human(free), what, human(least), unix.ENOSPC)
	}
	return nil
}

// Apply fills an active layer from an archive.
func (d *volumes) Apply(ctx context.Context, id string, archive io.Reader, o tree.ApplyOptions) (tree.Applied, error) {
	var root layer.Dir
	err := d.locked(func() error {
		r, err := d.active(id)
		if err == nil && r.Filled {
			err = driver.ErrFilled
		}
		if err != nil {
			return err
		}
		// Crash from here on: an active layer with a part of the archive, which the
		// record says, so that nobody writes to it.
		r.Filled = true
		if err := rootdir.ReplaceJSON(d.recordPath(id), r); err != nil {
			return err
		}
		root, err = d.enter(ctx, r, true)
		return err
	})
	if err != nil {
		return tree.Applied{}, d.fail("apply", id, err, "")
	}
	d.steps("apply")
	applied, err := tree.Apply(ctx, tree.Target{Root: root, Format: tree.Full}, archive, o)
	d.steps("applied")
	err = errors.Join(err, root.Close())
	return applied, d.fail("apply", id, err, "the layer holds a part of it; remove the layer")
}

// active returns the record of a layer that is not committed and not mounted.
func (d *volumes) active(id string) (*record, error) {
	r, err := d.record(id)
	if err != nil {
		return nil, err
	}
	if r.Committed {
		return nil, driver.ErrCommitted
	}
	return r, d.notMounted(id)
}

func (d *volumes) notMounted(id string) error {
	at, err := d.mounts(id)
	if err == nil && len(at) > 0 {
		err = fmt.Errorf("%w on %s; unmount it first", driver.ErrMounted, at[0])
	}
	return err
}

// Commit makes an active layer one that never changes. Its device is flushed before
// its record says so.
func (d *volumes) Commit(ctx context.Context, id string) error {
	if _, err := d.active(id); err != nil {
		return d.fail("commit", id, err, "")
	}
	d.steps("seal")
	err := d.locked(func() error {
		r, err := d.active(id)
		if err != nil {
			return err
		}
		if err := d.pool.idle(ctx, r.DeviceID, r.DeviceSize); err != nil {
			return err
		}
		r.Committed = true
		if err := rootdir.WriteJSON(d.recordPath(id)+rootdir.NewSuffix, r); err != nil {
			return err
		}
		if err := d.syncRoot(); err != nil {
			return err
		}
		// Crash up to here: an active layer, and a file that the next commit replaces.
		// From the rename on: a committed one, all of which is on disk.
		d.steps("commit")
		if err := os.Rename(d.recordPath(id)+rootdir.NewSuffix, d.recordPath(id)); err != nil {
			return err
		}
		d.steps("committed")
		if d.volatile {
			return nil
		}
		return rootdir.SyncDir(d.path("metadata"))
	})
	return d.fail("commit", id, err, "")
}

// human is a size as docker info prints it.
func human(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return strconv.FormatFloat(f, 'g', 4, 64) + units[i]
}
