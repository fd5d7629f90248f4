// Package aufs keeps each layer as a branch of aufs, deletions as files .wh.NAME,
// and shows a stack by aufs where the kernel has it, by lamina's server elsewhere.
//
//	ROOT/diff/ID          the branch
//	ROOT/layers/ID        its parents, one a line, the nearest first
//	ROOT/mnt/ID           where it is mounted unless another place is given
//	ROOT/work/ID          for the userspace union, which stages changes there
//	ROOT/records/ID.json  the record
//
// The first three are the layout of Docker's driver of this name. Names longer than
// 242 bytes cannot be kept by aufs, nor ones that begin with .wh. Branches of a
// mounted view can come and go: with the userspace engine by lamina branch, with
// the native one by mount -o remount,append:DIR=ro+wh and del:DIR.
package aufs

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/layerdir"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/mountopt"
)

// Open opens the directory of an aufs driver; see [layerdir.Open].
func Open(cfg driver.Config) (driver.Driver, error) {
	d, err := layerdir.Open(kind{}, cfg)
	if err != nil {
		return nil, err
	}
	return d, nil
}

type kind struct{}

func (kind) Name() string { return "aufs" }

func (kind) Options() []driver.Option {
	return append(layerdir.LimitOptions(),
		driver.Option{Name: "mountopt", Accepts: "mount options joined by commas", Help: "further options of each view"})
}

// branchesMax is how many branches aufs takes unless it was built for more
// (CONFIG_AUFS_BRANCH_MAX_127).
const branchesMax = 127

func (kind) Prepare(d *layerdir.Driver, options map[string]string) (obstacles []string, err error) {
	if err := d.MakeDirs("diff", "layers", "mnt", "work", "records"); err != nil {
		return nil, err
	}
	if o := options["mountopt"]; o != "" {
		d.MountOptions = []string{o}
	}
	if obstacles, err = d.TakeLimits(options); err != nil {
		return nil, err
	}
	if !inKernel() {
		obstacles = append(obstacles, "this kernel has no aufs (/proc/filesystems)")
	}
	if unix.Geteuid() != 0 || d.OverlayFormat() == tree.OverlayUser {
		obstacles = append(obstacles, "aufs is for root outside of user namespaces")
	}
	return obstacles, nil
}

func inKernel() bool {
	text, err := os.ReadFile("/proc/filesystems")
	return err == nil && slices.Contains(strings.Fields(string(text)), "aufs")
}

func (kind) Capabilities(d *layerdir.Driver) driver.Capabilities {
	c := driver.Capabilities{Size: d.Userspace(), Inodes: d.Userspace(), Shares: true, ArbitraryTargets: true}
	if d.Engine().Engine == driver.Native {
		c.MaxDepth = branchesMax - 1
	}
	return c
}

func (kind) Parts(id string) []layerdir.Part {
	return []layerdir.Part{
		{Staged: "diff", Final: "diff/" + id},
		{Staged: "work", Final: "work/" + id},
		{Staged: "mnt", Final: "mnt/" + id},
		{Staged: "layers", Final: "layers/" + id},
		{Staged: "record", Final: "records/" + id + ".json"},
	}
}

func (kind) Record(id string) string { return "records/" + id + ".json" }

func (kind) Fill(_ context.Context, d *layerdir.Driver, s *layerdir.Stage, l, parent *driver.Layer) error {
	if err := d.Mkroot(s.Path("diff"), parent); err != nil {
		return err
	}
	if err := os.Remove(s.Path("layers")); err != nil {
		return err
	}
	var lines strings.Builder
	for _, p := range l.Parents {
		fmt.Fprintln(&lines, p)
	}
	return os.WriteFile(s.Path("layers"), []byte(lines.String()), 0o644)
}

func (kind) BeginApply(_ context.Context, d *layerdir.Driver, l *driver.Layer) (layerdir.Content, error) {
	return layerdir.Content{Path: d.Path("diff", l.ID), Format: tree.Aufs}, nil
}

func (kind) EndApply(context.Context, *layerdir.Driver, *driver.Layer) error { return nil }
func (kind) Seal(context.Context, *layerdir.Driver, *driver.Layer) error     { return nil }
func (kind) Tidy(*layerdir.Driver, *driver.Layer) error                      { return nil }
func (kind) Sweep(*layerdir.Driver) ([]string, error)                        { return nil, nil }

func (kind) Stack(d *layerdir.Driver, l *driver.Layer) (layerdir.Stack, error) {
	s := layerdir.Stack{
		Top:   layerdir.Content{Path: d.Of(l.ID, "diff", l.ID), Format: tree.Aufs},
		Work:  d.Path("work", l.ID),
		Place: d.Path("mnt", l.ID),
	}
	for _, p := range l.Parents {
		s.Lowers = append(s.Lowers, d.Of(p, "diff", p))
	}
	return s, nil
}

// NativeLacks is what overlayfs lacks, but for the format.
func (kind) NativeLacks(o *mountopt.Options) []string {
	plain := *o
	plain.Format = mountopt.FormatAuto
	return plain.KernelObstacles()
}

func (kind) MountNative(d *layerdir.Driver, _ *layerdir.Stack, o *mountopt.Options, target string) error {
	first, further := branches(o, os.Getpagesize()-1)
	flags := uintptr(0)
	if o.ReadOnly {
		flags = unix.MS_RDONLY
	}
	if err := unix.Mount("none", target, "aufs", flags, first); err != nil {
		return fmt.Errorf("mount aufs on %s: %w; see the kernel's reason with: dmesg | tail", target, err)
	}
	for _, b := range further {
		if err := unix.Mount("none", target, "aufs", flags|unix.MS_REMOUNT, "append:"+b); err != nil {
			_ = unix.Unmount(target, unix.MNT_DETACH) // the first cause tells more
			return fmt.Errorf("append branch %s to the aufs on %s: %w", b, target, err)
		}
	}
	return nil
}

// branches returns the options of the mount, and the branches for which they have
// no room, to be appended.
func branches(o *mountopt.Options, room int) (options string, further []string) {
	const common = ",dirperm1,xino=/dev/shm/aufs.xino"
	var list []string
	if o.Upper != "" {
		list = append(list, o.Upper+"=rw")
	}
	for _, dir := range o.Lower {
		list = append(list, dir+"=ro+wh")
	}
	options = "br:" + list[0]
	for i, b := range list[1:] {
		if len(options)+1+len(b)+len(common) > room {
			return options + common, list[i+1:]
		}
		options += ":" + b
	}
	return options + common, nil
}

func (kind) Status(d *layerdir.Driver) []driver.Field {
	dirs, err := d.Layers()
	if err != nil {
		return nil // the count is a nicety, and what fails here fails louder elsewhere
	}
	return []driver.Field{
		{Name: "Dirs", Value: strconv.Itoa(len(dirs))},
		{Name: "Dirperm1 Supported", Value: "true"},
	}
}
