package layerdir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/rootdir"
	"github.com/laminafs/lamina/fs/mountopt"
)

// Mount shows a layer.
func (d *Driver) Mount(_ context.Context, id string, o driver.MountOptions) (string, error) {
	var path string
	err := d.locked(func() (err error) {
		path, err = d.mount(id, o)
		return err
	})
	return path, d.fail("mount", id, err, "")
}

func (d *Driver) mount(id string, o driver.MountOptions) (string, error) {
	l, err := d.record(id)
	if err != nil {
		return "", err
	}
	s, err := d.kind.Stack(d, l)
	if err != nil {
		return "", err
	}
	if l.Filled && !l.Committed && !o.ReadOnly {
		return "", driver.ErrFilled
	}
	readOnly := o.ReadOnly || l.Committed
	at, err := d.mounts(id)
	if err != nil {
		return "", err
	}
	if !readOnly && len(at) > 0 {
		return "", fmt.Errorf("%w on %s, and only once at a time for writing", driver.ErrMounted, at[0])
	}
	if d.Elsewhere(id) { // where nothing can be made
		s.Place = d.path("views", id)
	}
	target, err := d.target(&s, o.Target)
	if err != nil {
		return "", err
	}
	if slices.Contains(at, target) {
		return "", fmt.Errorf("%w on %s already", driver.ErrMounted, target)
	}
	if s.Plain && o.Target == "" && !readOnly && l.Size == 0 && l.Inodes == 0 && !d.OwnersInXattrs() && d.choice.Engine == driver.Native {
		return s.Top.Path, nil
	}
	// Crash behind the note: it counts only if the mount was made too.
	if err := d.noteMounts(id, append(at, target)); err != nil {
		return "", err
	}
	d.Step("mount")
	options, err := d.unionOptions(l, &s, readOnly, o.Options)
	if err == nil {
		err = d.show(l, &s, &options, target)
	}
	if err != nil {
		return "", errors.Join(err, d.noteMounts(id, at))
	}
	d.Step("mounted")
	return target, nil
}

// target returns where to mount, absolute and without symbolic links, as the
// kernel lists it.
func (d *Driver) target(s *Stack, asked string) (string, error) {
	if asked == "" {
		asked = s.Place
		if err := os.MkdirAll(asked, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	abs, err := filepath.Abs(asked)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// show mounts by the engine that was chosen, or by the userspace one where the
// layer needs what the kernel lacks.
func (d *Driver) show(l *driver.Layer, s *Stack, o *mountopt.Options, target string) error {
	if d.choice.Engine == driver.Native {
		obstacles := d.kind.NativeLacks(o)
		if len(obstacles) == 0 {
			return d.kind.MountNative(d, s, o, target)
		}
		if !d.choice.Fallback {
			return fmt.Errorf("%w: %s; take --engine=userspace", driver.ErrUnsupported, obstacles[0])
		}
	}
	if err := o.CheckServer(); err != nil {
		return err
	}
	return d.servers.Serve(*o, target)
}

// Unmount takes a view away.
func (d *Driver) Unmount(_ context.Context, id, path string, lazy bool) error {
	return d.fail("unmount", id, d.locked(func() error { return d.unmount(id, path, lazy) }), "")
}

func (d *Driver) unmount(id, path string, lazy bool) error {
	l, err := d.record(id)
	if err != nil {
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
		// The mount itself may not answer any more, so only what leads to it is looked at.
		if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
			abs = filepath.Join(dir, filepath.Base(abs))
		}
		if !slices.Contains(at, abs) {
			if s, err := d.kind.Stack(d, l); err == nil && s.Plain && abs == s.Top.Path {
				return nil // it was never mounted
			}
			return driver.ErrNotMounted
		}
		gone = []string{abs}
	}
	if len(gone) == 0 {
		if s, err := d.kind.Stack(d, l); err == nil && s.Plain {
			return nil
		}
		return driver.ErrNotMounted
	}
	for _, target := range gone {
		d.Step("unmount")
		if err := d.servers.Unmount(target, lazy); err != nil {
			return err
		}
		at = slices.DeleteFunc(slices.Clone(at), func(t string) bool { return t == target })
		d.Step("unmounted")
		if err := d.noteMounts(id, at); err != nil {
			return err
		}
	}
	return nil
}

// Mounts returns where a layer is mounted.
func (d *Driver) Mounts(id string) ([]string, error) {
	if _, err := d.record(id); err != nil {
		return nil, d.fail("look up mounts", id, err, "")
	}
	at, err := d.mounts(id)
	return at, d.fail("look up mounts", id, err, "")
}

func (d *Driver) mountsFile(id string) string { return d.path("mounts", id) }

// mounts returns where a layer is mounted, as noted and confirmed by the kernel.
func (d *Driver) mounts(id string) ([]string, error) { return rootdir.Mounts(d.mountsFile(id)) }

func (d *Driver) noteMounts(id string, at []string) error {
	return rootdir.NoteMounts(d.mountsFile(id), at)
}

// Bound is part of kinds whose layers are whole trees that bound their own size: a view
// is the tree, bound to another place.
type Bound struct{}

// NativeLacks leaves out the size.
func (Bound) NativeLacks(o *mountopt.Options) []string {
	without := *o
	without.Size = 0
	return without.KernelObstacles()
}

// MountNative binds the tree.
func (Bound) MountNative(_ *Driver, s *Stack, o *mountopt.Options, target string) error {
	return BindMount(s.Top.Path, target, o.ReadOnly)
}

// BindMount shows a directory at another place, for kinds whose trees need no more.
func BindMount(path, target string, readOnly bool) error {
	if err := unix.Mount(path, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", path, target, err)
	}
	if !readOnly {
		return nil
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, 0, &attr); err != nil {
		return errors.Join(fmt.Errorf("make %s read-only: %w", target, err), unix.Unmount(target, unix.MNT_DETACH))
	}
	return nil
}
