package devicemapper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/layerdir"
	"github.com/laminafs/lamina/backends/driver/rootdir"
	"github.com/laminafs/lamina/fs/layer"
)

// Mount shows a layer.
func (d *volumes) Mount(ctx context.Context, id string, o driver.MountOptions) (string, error) {
	var path string
	err := d.locked(func() (err error) {
		path, err = d.mount(ctx, id, o)
		return err
	})
	return path, d.fail("mount", id, err, "")
}

func (d *volumes) mount(ctx context.Context, id string, o driver.MountOptions) (string, error) {
	r, err := d.record(id)
	if err != nil {
		return "", err
	}
	if r.Filled && !r.Committed && !o.ReadOnly {
		return "", driver.ErrFilled
	}
	at, err := d.mounts(id)
	if err != nil {
		return "", err
	}
	if !o.ReadOnly && !r.Committed && len(at) > 0 {
		return "", fmt.Errorf("%w on %s, and only once at a time for writing", driver.ErrMounted, at[0])
	}
	target, err := d.target(id, o.Target)
	if err != nil {
		return "", err
	}
	if slices.Contains(at, target) {
		return "", fmt.Errorf("%w on %s already", driver.ErrMounted, target)
	}
	// Crash behind the note: it counts only if the mount was made too.
	if err := d.noteMounts(id, append(at, target)); err != nil {
		return "", err
	}
	d.steps("mount")
	switch {
	case len(at) > 0 && d.byFuse2fs() && !r.Committed:
		err = fmt.Errorf("a second view of an active layer is %w by fuse2fs: it would not see what the first holds back", driver.ErrUnsupported)
	case len(at) > 0 && !d.byFuse2fs():
		err = layerdir.BindMount(at[0], target, true)
	default:
		err = d.show(ctx, r, target, o)
	}
	if err != nil {
		return "", errors.Join(err, d.noteMounts(id, at))
	}
	d.steps("mounted")
	return target, nil
}

// target returns where to mount, absolute and without symbolic links, as the kernel
// lists it.
func (d *volumes) target(id, asked string) (string, error) {
	if asked == "" {
		asked = d.path("mnt", id, rootDir)
		if err := os.MkdirAll(asked, 0o711); err != nil {
			return "", err
		}
	}
	abs, err := filepath.Abs(asked)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// show mounts the device of a layer out of sight, and its rootfs on target.
func (d *volumes) show(ctx context.Context, r *record, target string, o driver.MountOptions) error {
	if d.byFuse2fs() {
		dev, err := d.pool.activate(ctx, r.DeviceID, r.DeviceSize)
		if err != nil {
			return err
		}
		return d.fuse2fs(r.DeviceID, dev.path, target, rootDir, o.ReadOnly || r.Committed, append([]string{d.set.mountOptions}, o.Options...))
	}
	return d.withDevice(ctx, r, true, o.Options, func(dir string) error {
		return layerdir.BindMount(dir, target, o.ReadOnly && !r.Committed)
	})
}

// withDevice calls use with the layer's directory in a mount that ends with it. What
// use makes of the directory, a bind mount or a descriptor, keeps the device.
//
// The filesystem of a committed layer is read-only as a whole. That of an active one is
// not, so that it can be mounted for writing beside a view that only looks; fuse2fs has
// no filesystem that could be both.
func (d *volumes) withDevice(ctx context.Context, r *record, write bool, options []string, use func(dir string) error) error {
	dev, err := d.pool.activate(ctx, r.DeviceID, r.DeviceSize)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(d.path("tmp"), "mount-")
	if err != nil {
		return errors.Join(err, dev.release())
	}
	options = append([]string{d.set.mountOptions}, options...)
	at := filepath.Join(dir, rootDir)
	if d.byFuse2fs() {
		at = dir
		err = d.fuse2fs(r.DeviceID, dev.path, dir, rootDir, r.Committed || !write, options)
	} else {
		err = mountDevice(dev.path, dir, d.format.Filesystem, r.Committed, options...)
	}
	if err == nil {
		if d.format.Filesystem == xfs {
			err = setRetries(dev.path, d.set.xfsRetries)
		}
		if err == nil {
			err = use(at)
		}
		if e := d.unmountView(dir, true); err == nil {
			err = e
		}
	}
	_ = os.Remove(dir) // else swept
	return errors.Join(err, dev.release())
}

// enter opens the directory of a layer that need not be mounted. The device stays for
// as long as it is open. The lock is held.
func (d *volumes) enter(ctx context.Context, r *record, write bool) (root layer.Dir, err error) {
	if at, err := d.mounts(r.ID); err != nil || len(at) > 0 {
		if err != nil {
			return nil, err
		}
		return layer.OpenHostShared(at[0])
	}
	err = d.withDevice(ctx, r, write, nil, func(dir string) error {
		root, err = layer.OpenHostShared(dir)
		return err
	})
	if err != nil && root != nil {
		root.Close() // nothing was done with it
		root = nil
	}
	return root, err
}

// Unmount takes a view away.
func (d *volumes) Unmount(_ context.Context, id, path string, lazy bool) error {
	return d.fail("unmount", id, d.locked(func() error { return d.unmount(id, path, lazy) }), "")
}

func (d *volumes) unmount(id, path string, lazy bool) error {
	if _, err := d.record(id); err != nil {
		return err
	}
	at, err := d.mounts(id)
	if err != nil {
		return err
	}
	gone := at
	if path != "" {
		abs, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
			abs = filepath.Join(dir, filepath.Base(abs))
		}
		if !slices.Contains(at, abs) {
			return driver.ErrNotMounted
		}
		gone = []string{abs}
	}
	if len(gone) == 0 {
		return driver.ErrNotMounted
	}
	for _, target := range gone {
		d.steps("unmount")
		if err := d.unmountView(target, lazy); err != nil {
			return err
		}
		at = slices.DeleteFunc(slices.Clone(at), func(t string) bool { return t == target })
		d.steps("unmounted")
		if err := d.noteMounts(id, at); err != nil {
			return err
		}
	}
	return nil
}

// Mounts returns where a layer is mounted.
func (d *volumes) Mounts(id string) ([]string, error) {
	if _, err := d.record(id); err != nil {
		return nil, d.fail("look up mounts", id, err, "")
	}
	at, err := d.mounts(id)
	return at, d.fail("look up mounts", id, err, "")
}

// mounts returns where a layer is mounted, as noted and confirmed by the kernel.
func (d *volumes) mounts(id string) ([]string, error) { return rootdir.Mounts(d.path("mounts", id)) }

func (d *volumes) noteMounts(id string, at []string) error {
	return rootdir.NoteMounts(d.path("mounts", id), at)
}
