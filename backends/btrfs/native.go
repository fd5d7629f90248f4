package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/layerdir"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/fusefs/control"
)

// obstacles says why the kernel cannot keep the layers of a directory, which may not
// be there yet, one sentence each.
func obstacles(root string, options map[string]string) []string {
	for _, name := range userspaceOnly {
		if _, set := options[name]; set {
			return []string{"the kernel's btrfs has no option " + name + " for this; what a filesystem is made of is said to mkfs.btrfs and mount"}
		}
	}
	if unix.Geteuid() != 0 {
		return []string{"this user cannot give files away, which the kernel's btrfs would need to keep the owners of an image"}
	}
	var st unix.Statfs_t
	at := root
	err := unix.Statfs(at, &st)
	if err == unix.ENOENT {
		at = filepath.Dir(root)
		err = unix.Statfs(at, &st)
	}
	switch {
	case err != nil:
		return []string{fmt.Sprintf("statfs %s: %v", at, err)}
	case st.Type != unix.BTRFS_SUPER_MAGIC:
		return []string{at + " does not lie on btrfs"}
	}
	return nil
}

// A native is the driver as the kernel's btrfs does it.
type native struct {
	layerdir.Bound
	minSpace int64
}

var (
	_ layerdir.Kind  = (*native)(nil)
	_ layerdir.Mover = (*native)(nil)
)

func (*native) Name() string { return "btrfs" }

func (*native) Options() []driver.Option { return options() }

func (k *native) Prepare(d *layerdir.Driver, options map[string]string) (_ []string, err error) {
	if err := d.MakeDirs("subvolumes", "mnt", "layers"); err != nil {
		return nil, err
	}
	for name, to := range map[string]*int64{"size": &d.Size, "min_space": &k.minSpace} {
		if text, set := options[name]; set {
			if *to, err = driver.ParseSize(text); err != nil {
				return nil, fmt.Errorf("option %s: %w", name, err)
			}
		}
	}
	return d.TryNative(func(dir string) []string {
		path := filepath.Join(dir, "subvolume")
		err := createSubvolume(path)
		if err == nil {
			err = destroySubvolume(path)
		}
		if err != nil {
			return []string{err.Error()}
		}
		return nil
	})
}

// Capabilities: quotas of a filesystem are for root, and not that of a user namespace.
func (*native) Capabilities(*layerdir.Driver) driver.Capabilities {
	return driver.Capabilities{Size: unix.Geteuid() == 0 && !control.InUserNamespace(), Shares: true, ArbitraryTargets: true}
}

func (*native) Parts(id string) []layerdir.Part {
	return []layerdir.Part{
		{Staged: "subvolume", Final: "subvolumes/" + id},
		{Staged: "mnt", Final: "mnt/" + id},
		{Staged: "record", Final: "layers/" + id + ".json"},
	}
}

func (*native) Record(id string) string { return "layers/" + id + ".json" }

// Fill snapshots the parent.
func (k *native) Fill(_ context.Context, d *layerdir.Driver, s *layerdir.Stage, l, parent *driver.Layer) error {
	path := s.Path("subvolume")
	if err := os.Remove(path); err != nil { // the directory that stands for it
		return err
	}
	if parent == nil {
		if err := createSubvolume(path); err != nil {
			return err
		}
		if err := d.Mkroot(path, nil); err != nil {
			return err
		}
	} else if err := snapshotSubvolume(d.Path("subvolumes", parent.ID), path); err != nil {
		return err
	}
	switch {
	case l.Size == 0:
		return nil
	case l.Size < k.minSpace:
		return fmt.Errorf("a size of %d is %w: the least is %d, which the option min_space says", l.Size, driver.ErrUnsupported, k.minSpace)
	}
	return limitSubvolume(path, l.Size)
}

func (*native) BeginApply(_ context.Context, d *layerdir.Driver, l *driver.Layer) (layerdir.Content, error) {
	return layerdir.Content{Path: d.Path("subvolumes", l.ID), Format: tree.Full}, nil
}

func (*native) EndApply(context.Context, *layerdir.Driver, *driver.Layer) error { return nil }
func (*native) Seal(context.Context, *layerdir.Driver, *driver.Layer) error     { return nil }

// Tidy has the kernel refuse changes of what is committed. After a crash between the
// record and this, opening the driver does it.
func (*native) Tidy(d *layerdir.Driver, l *driver.Layer) error {
	return setReadOnly(d.Path("subvolumes", l.ID), true)
}

func (*native) Sweep(*layerdir.Driver) ([]string, error) { return nil, nil }

// Move renames. A subvolume that is read-only cannot get another "..".
func (*native) Move(from, to string) error {
	if isSubvolume(from) {
		if err := setReadOnly(from, false); err != nil {
			return err
		}
	}
	return os.Rename(from, to)
}

// Delete deletes a stage, whose subvolumes lie directly in it.
func (*native) Delete(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); isSubvolume(path) {
			if err := destroySubvolume(path); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(dir)
}

// tick is how far behind the clock the times may be that the kernel gives to inodes:
// they are those of its last timer interrupt.
const tick = 20 * time.Millisecond

func (*native) Stack(d *layerdir.Driver, l *driver.Layer) (layerdir.Stack, error) {
	s := layerdir.Stack{
		Top:     layerdir.Content{Path: d.Path("subvolumes", l.ID), Format: tree.Full},
		Place:   d.Path("mnt", l.ID),
		Plain:   true,
		Compare: tree.CompareOptions{Since: l.Created.Add(-tick)},
	}
	if p := l.Parent(); p != "" {
		s.Old = []string{d.Path("subvolumes", p)}
	}
	return s, nil
}

// Status has the lines of docker info. What stands there for the version of the tools
// is that of the kernel, which does it all.
func (*native) Status(*layerdir.Driver) []driver.Field {
	release := "unknown"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		release = strings.TrimRight(string(u.Release[:]), "\x00")
	}
	return []driver.Field{
		{Name: "Build Version", Value: "Linux " + release},
		{Name: "Library Version", Value: "none: ioctls"},
	}
}
