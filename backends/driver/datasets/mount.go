package datasets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/fs/mountopt"
)

// Mount has the server mount a layer's dataset, or the snapshot of a committed one.
func (d *Driver) Mount(ctx context.Context, id string, o driver.MountOptions) (path string, err error) {
	err = d.locked(func() error {
		path, err = d.mount(ctx, id, o)
		return err
	})
	return path, d.fail("mount", id, err, "")
}

func (d *Driver) mount(ctx context.Context, id string, o driver.MountOptions) (string, error) {
	l, err := d.record(ctx, id)
	if err != nil {
		return "", err
	}
	if l.Filled && !l.Committed && !o.ReadOnly {
		return "", driver.ErrFilled
	}
	at, err := d.mounts(ctx, id)
	if err != nil {
		return "", err
	}
	if !l.Committed && len(at) > 0 {
		return "", fmt.Errorf("%w on %s, and only once at a time while it is not committed", driver.ErrMounted, at[0])
	}
	target, err := d.target(id, o.Target)
	if err != nil {
		return "", err
	}
	if slices.Contains(at, target) {
		return "", fmt.Errorf("%w on %s already", driver.ErrMounted, target)
	}
	words, err := d.words(l.Committed || o.ReadOnly, o.Options)
	if err != nil {
		return "", err
	}
	name := d.dataset(id)
	if l.Committed {
		name = d.snapshot(id)
	}
	d.steps("mount")
	if _, err = Ask(ctx, d, poolserver.DatasetMount, poolserver.MountDataset{Name: name, Target: target, Options: words}); err != nil {
		return "", err
	}
	d.steps("mounted")
	if err := settled(target); err != nil {
		return "", errors.Join(err, d.unmount(ctx, target, true))
	}
	return target, nil
}

// settled looks at a new mount. Until the kernel has asked once it takes the root
// directory for root's, and would refuse its owner a chmod that comes first. A server
// that was started in another mount namespace has mounted where nobody sees it here.
func settled(target string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil {
		return fmt.Errorf("look at the new view on %s: %w", target, err)
	}
	if st.Type != unix.FUSE_SUPER_MAGIC {
		return fmt.Errorf("the server of the pool was started in another mount namespace, where it mounts: %w; end it with: lamina pool stop", driver.ErrUnsupported)
	}
	var root unix.Stat_t
	if err := unix.Stat(target, &root); err != nil {
		return fmt.Errorf("look at the new view on %s: %w", target, err)
	}
	return nil
}

// target returns where to mount, absolute and without symbolic links, as the kernel
// lists it.
func (d *Driver) target(id, asked string) (string, error) {
	if asked == "" {
		asked = d.path("mnt", id)
		if err := os.Mkdir(asked, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	abs, err := filepath.Abs(asked)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// words are the options of a view as containers need it.
func (d *Driver) words(readOnly bool, further []string) (string, error) {
	all := append(slices.Clone(d.kind.MountOptions), further...)
	o, err := mountopt.Parse(all...)
	if err != nil {
		return "", err
	}
	if len(o.Unknown) > 0 {
		return "", fmt.Errorf("mount option %s is %w", o.Unknown[0], driver.ErrUnsupported)
	}
	if err := o.CheckDataset(); err != nil {
		return "", err
	}
	if o.Atime == mountopt.AtimeDefault {
		all = append(all, "noatime")
	}
	switch uid, gid := os.Geteuid(), os.Getegid(); {
	case uid == 0 && !o.AllowRoot:
		all = append(all, "allow_other")
	case uid != 0 && o.SquashUID == nil && !o.SquashToRoot:
		// This user could not touch what root owns. So all is shown as the user's,
		// and what the user makes is root's.
		all = append(all, fmt.Sprintf("squash_to_uid=%d,squash_to_gid=%d,uidmapping=0:%d:1,gidmapping=0:%d:1", uid, gid, uid, gid))
	}
	if readOnly {
		all = append(all, "ro")
	}
	return strings.Join(all, ","), nil
}

// Unmount takes views away.
func (d *Driver) Unmount(ctx context.Context, id, path string, lazy bool) error {
	err := d.locked(func() error {
		if _, err := d.record(ctx, id); err != nil {
			return err
		}
		at, err := d.mounts(ctx, id)
		if err != nil {
			return err
		}
		if path != "" {
			target, err := filepath.Abs(path)
			if err == nil {
				if real, e := filepath.EvalSymlinks(target); e == nil {
					target = real
				}
			}
			if !slices.Contains(at, target) {
				return driver.ErrNotMounted
			}
			at = []string{target}
		}
		if len(at) == 0 {
			return driver.ErrNotMounted
		}
		for _, target := range at {
			d.steps("unmount")
			if err := d.unmount(ctx, target, lazy); err != nil {
				return err
			}
		}
		return nil
	})
	return d.fail("unmount", id, err, "")
}

func (d *Driver) unmount(ctx context.Context, target string, lazy bool) error {
	_, err := Ask(ctx, d, poolserver.DatasetUnmount, poolserver.UnmountDataset{Target: target, Force: lazy})
	return err
}

// Mounts returns where a layer is mounted.
func (d *Driver) Mounts(id string) ([]string, error) {
	ctx := context.Background()
	if _, err := d.record(ctx, id); err != nil {
		return nil, d.fail("look up mounts", id, err, "")
	}
	at, err := d.mounts(ctx, id)
	return at, d.fail("look up mounts", id, err, "")
}

// mounts asks the server, which is the one that mounts.
func (d *Driver) mounts(ctx context.Context, id string) (at []string, err error) {
	list, err := query(ctx, d, poolserver.DatasetMounts, poolserver.None{})
	for _, m := range list {
		if !m.Private && !m.Hidden && (m.Dataset == d.dataset(id) || m.Dataset == d.snapshot(id)) {
			at = append(at, m.Target)
		}
	}
	return at, err
}
