package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

func newDatasetMount() *cobra.Command {
	var f poolFlags
	var options []string
	var all bool
	cmd := &cobra.Command{
		Use:   "mount [-o OPTION,...] [-a | POOL/DATASET[@SNAPSHOT] [DIR]]",
		Short: "Mount datasets",
		Long: `Mount a dataset on DIR, or where its property mountpoint says; a snapshot is mounted
read-only. Without arguments, list what is mounted. -a mounts all datasets of a pool,
or of all pools, that have a mountpoint and canmount=on, the outermost first.

Properties say how (readonly, atime, exec, setuid, devices); -o takes options of
mount(8), which win for this time. The server of the pool serves the mounts, as the
user who owns the pool, and runs as long as there is one. Another user is let in only
with -o allow_other, which ordinary users may say where /etc/fuse.conf does.`,
		Example: `  lamina dataset mount tank/home ~/x
  lamina dataset mount -o ro tank/home@monday /mnt
  lamina dataset mount -a tank
  lamina dataset mount`,
		Args: args(0, 2, "POOL/DATASET and DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 1:
				return usageError{errors.New("-a takes at most a POOL")}
			case all:
				return f.mountAll(cmd, args, strings.Join(options, ","))
			case len(args) == 0:
				return f.listMounts(cmd)
			}
			target := ""
			if len(args) > 1 {
				var err error
				if target, err = filepath.Abs(args[1]); err != nil {
					return err
				}
			}
			return f.onPoolOf(cmd, args[:1], func(ctx context.Context, c *poolserver.Client, pool string, names []string) error {
				m, err := mountOne(ctx, c, names[0], target, strings.Join(options, ","))
				if err != nil {
					return inPool(pool, err)
				}
				m.Dataset = joinDataset(pool, m.Dataset)
				return f.print(cmd, m)
			})
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return f.completeDataset(cmd, args, typed)
		},
	}
	f.add(cmd)
	cmd.Flags().StringSliceVarP(&options, "option", "o", nil, "mount with `OPTION`s of mount(8)")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "all that have a mountpoint")
	return cmd
}

// mountOne mounts a dataset, on its mountpoint if no target is given, which is then
// made if need be.
func mountOne(ctx context.Context, c *poolserver.Client, name, target, options string) (poolserver.MountInfo, error) {
	if target == "" && !strings.Contains(name, "@") {
		list, err := poolserver.DatasetGet.Call(ctx, c, poolserver.GetDatasets{Names: []string{name}, Properties: []string{"mountpoint", "mounted"}})
		if err != nil {
			return poolserver.MountInfo{}, err
		}
		d := datasetOf{Dataset: list[0]}
		if dir := d.property("mountpoint").Value; filepath.IsAbs(dir) && d.property("mounted").Value == "no" {
			if err := makeTarget(dir); err != nil {
				return poolserver.MountInfo{}, err
			}
		}
	}
	return poolserver.DatasetMount.Call(ctx, c, poolserver.MountDataset{Name: name, Target: target, Options: options})
}

// mountNew mounts a dataset that was just made where it says, if it does.
func mountNew(ctx context.Context, c *poolserver.Client, d poolserver.Dataset) (poolserver.MountInfo, error) {
	p := datasetOf{Dataset: d}
	if p.property("mountpoint").Value == "none" || p.property("canmount").Value != "on" || p.property("mounted").Value == "yes" {
		return poolserver.MountInfo{}, nil
	}
	return mountOne(ctx, c, d.Name, "", "")
}

// mountAll mounts what has a mountpoint.
func (f *poolFlags) mountAll(cmd *cobra.Command, pools []string, options string) error {
	list, err := f.collect(cmd, pools, selection{depth: -1, types: []string{blockpool.TypeFilesystem}}, []string{"mountpoint", "canmount", "mounted"})
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(d datasetOf) bool {
		return d.property("mountpoint").Value == "none" || d.property("canmount").Value != "on" || d.property("mounted").Value == "yes"
	})
	slices.SortStableFunc(list, func(a, b datasetOf) int {
		return cmp.Compare(a.property("mountpoint").Value, b.property("mountpoint").Value)
	})
	var failed []error
	mounts := []poolserver.MountInfo{}
	for _, d := range list {
		failed = append(failed, f.onPoolOf(cmd, []string{d.name()}, func(ctx context.Context, c *poolserver.Client, pool string, names []string) error {
			m, err := mountOne(ctx, c, names[0], "", options)
			m.Dataset = joinDataset(pool, m.Dataset)
			if err == nil {
				mounts = append(mounts, m)
			}
			return inPool(pool, err)
		}))
	}
	return errors.Join(append(failed, f.print(cmd, mounts))...)
}

// listMounts shows what is mounted, of all pools that have a server.
func (f *poolFlags) listMounts(cmd *cobra.Command) error {
	root, err := f.dir()
	if err != nil {
		return err
	}
	places, err := poolserver.List(root)
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	all := []poolserver.MountInfo{}
	for _, p := range places {
		c, err := p.Dial()
		if errors.Is(err, poolserver.ErrNotRunning) {
			continue // without a server nothing is mounted
		}
		if err != nil {
			return err
		}
		list, err := poolserver.DatasetMounts.Call(ctx, c, poolserver.None{})
		c.Close()
		if err != nil {
			return err
		}
		for _, m := range list {
			m.Dataset = joinDataset(p.Name(), m.Dataset)
			all = append(all, m)
		}
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), all)
	}
	rows := [][]string{{"DATASET", "ON"}}
	for _, m := range all {
		rows = append(rows, []string{m.Dataset, m.Target})
	}
	t := tableFlags{}
	return t.print(cmd.OutOrStdout(), rows, make([]bool, 2))
}

func newDatasetUmount() *cobra.Command {
	var f poolFlags
	var force, all bool
	cmd := &cobra.Command{
		Use:     "umount [-f] [-a [POOL] | POOL/DATASET[@SNAPSHOT] | DIR]",
		Aliases: []string{"unmount"},
		Short:   "Unmount datasets",
		Long: `Unmount a dataset, by its name or by the directory; ./a/b is a directory, a/b the
dataset b of the pool a. It is refused while files in it
are open; with -f it goes out of sight at once and ends with the last file. -a
unmounts all, the innermost first.`,
		Example: `  lamina dataset umount tank/home
  lamina dataset umount ~/x
  lamina dataset umount -a tank`,
		Args: args(0, 1, "POOL/DATASET or DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case all:
				return f.unmountAll(cmd, args, force)
			case len(args) == 0:
				return usageError{errors.New("umount needs POOL/DATASET, DIR or -a; see: lamina dataset umount --help")}
			}
			if _, name, err := splitDataset(args[0]); err != nil || name == "" || strings.HasPrefix(args[0], ".") {
				return f.unmountDir(args[0], force)
			}
			return f.onPoolOf(cmd, args, func(ctx context.Context, c *poolserver.Client, pool string, names []string) error {
				return inPool(pool, unmountDataset(ctx, c, poolserver.UnmountDataset{Name: names[0], Force: force}))
			})
		},
		ValidArgsFunction: f.completeDataset,
	}
	f.add(cmd)
	cmd.Flags().MarkHidden("json")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also while it is in use")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "all of a pool, or of all pools")
	return cmd
}

// unmountDir unmounts the dataset that is mounted on a directory.
func (f *poolFlags) unmountDir(dir string, force bool) error {
	m, err := findMount(dir)
	if err != nil {
		return err
	}
	defer m.Close()
	if m.rest != "." {
		return fmt.Errorf("umount %s: %w: it lies in what is mounted on %s", dir, unix.EINVAL, m.target)
	}
	ctx, stop := interruptible()
	defer stop()
	return unmountDataset(ctx, m.Client, poolserver.UnmountDataset{Target: m.target, Force: force})
}

func unmountDataset(ctx context.Context, c *poolserver.Client, a poolserver.UnmountDataset) error {
	u, err := poolserver.DatasetUnmount.Call(ctx, c, a)
	if err == nil && u.Elsewhere != "" {
		tellElsewhere(u.Elsewhere)
	}
	return err
}

func (f *poolFlags) unmountAll(cmd *cobra.Command, pools []string, force bool) error {
	if len(pools) == 0 {
		root, err := f.dir()
		if err != nil {
			return err
		}
		places, err := poolserver.List(root)
		if err != nil {
			return err
		}
		for _, p := range places {
			pools = append(pools, p.Name())
		}
	}
	var failed []error
	for _, pool := range pools {
		place, err := f.locate(pool)
		if err != nil {
			return err
		}
		c, err := place.Dial()
		if errors.Is(err, poolserver.ErrNotRunning) {
			continue
		}
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, stop := interruptible()
		defer stop()
		list, err := poolserver.DatasetMounts.Call(ctx, c, poolserver.None{})
		if err != nil {
			return err
		}
		for _, m := range slices.Backward(list) { // by target, so the innermost first
			if m.Hidden {
				continue
			}
			err := unmountDataset(ctx, c, poolserver.UnmountDataset{Target: m.Target, Force: force})
			failed = append(failed, inPool(pool, err))
		}
	}
	return errors.Join(failed...)
}

// syncMounts has the kernel hand over what programs have written to datasets that are
// mounted, so that a snapshot has it. Names may be those of snapshots to be. A mount
// that this user cannot reach is left out: what lies there in the kernel's cache is
// that of the last seconds, as with any crash.
func syncMounts(ctx context.Context, c *poolserver.Client, names []string, recursive bool) error {
	list, err := poolserver.DatasetMounts.Call(ctx, c, poolserver.None{})
	if err != nil {
		return err
	}
	for _, m := range list {
		wanted := slices.ContainsFunc(names, func(n string) bool {
			n = volumeOf(n)
			return m.Dataset == n || recursive && strings.HasPrefix(m.Dataset, n+"/") || strings.HasPrefix(n, m.Dataset+"/")
		})
		if !wanted || m.ReadOnly {
			continue
		}
		if err := syncDir(m.Target); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("write out what %s has: %w", m.Target, err)
		}
	}
	return nil
}

// syncDir is syncfs(2) of what a directory lies in.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(d.Fd())))
}
