package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

func newVolume() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "Make, snapshot and export the volumes of a pool",
		Long: `A volume is a disk of a virtual size that takes space where it is written. A
snapshot is called VOLUME@NAME, costs nothing and stays as it is; a clone is a
volume that begins with what another volume or snapshot has. None depends on
another: they can be removed in any order.

POOL is a name or a path; see: lamina pool --help.`,
		Example: `  lamina volume create --size 10G tank base
  lamina volume snapshot tank base@clean
  lamina volume clone tank base@clean work
  lamina volume export --loop tank work`,
		Args: unknownVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newVolumeCreate(), newVolumeList(), newVolumeSnapshot(), newVolumeClone(), newVolumePromote(),
		newVolumeRollback(), newVolumeRename(), newVolumeResize(), newVolumeSet(), newVolumeRm(),
		newVolumeUsage(), newVolumeDelta(), newVolumeTrim(), newVolumeDiscard(), newVolumeSend(), newVolumeReceive(),
		newVolumeRead(), newVolumeWrite(), newVolumeExport(), newVolumeUnexport(),
	)
	return cmd
}

func newVolumeCreate() *cobra.Command {
	var f poolFlags
	var a poolserver.CreateVolume
	var size, record byteSize
	var limits limitFlags
	cmd := &cobra.Command{
		Use:   "create --size SIZE POOL VOLUME",
		Short: "Make a volume",
		Long: `Make a volume of a virtual size, which takes no space yet. In a pool that was made
with --devicemapper it has 10G unless another size is given.`,
		Example: `  lamina volume create --size 100G tank data
  lamina volume create --size 20G --record-size 64K --refquota 5G tank vm/disk0`,
		Args: args(2, 2, "POOL and VOLUME"),
	}
	onPool(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		a.Name, a.Size, a.RecordSize = args[0], int64(size), int64(record)
		a.Quota, a.Refquota, a.Reservation = int64(limits.quota), int64(limits.refquota), int64(limits.reservation)
		return printed[blockpool.VolumeInfo](&f, cmd)(poolserver.VolumeCreate.Call(ctx, c, a))
	})
	cmd.Flags().VarP(&size, "size", "s", "virtual `SIZE`, such as 10G")
	cmd.Flags().Var(&record, "record-size", "`SIZE` of the unit in which space is taken and shared, 4K to 128K; the pool's")
	limits.add(cmd)
	return cmd
}

// limitFlags are the limits of a volume.
type limitFlags struct{ quota, refquota, reservation byteSize }

func (l *limitFlags) add(cmd *cobra.Command) {
	cmd.Flags().Var(&l.quota, "quota", "it and its snapshots may use `SIZE`; 0: no limit")
	cmd.Flags().Var(&l.refquota, "refquota", "it may hold `SIZE` of data; 0: no limit")
	cmd.Flags().Var(&l.reservation, "reservation", "keep `SIZE` free for it")
}

func newVolumeSet() *cobra.Command {
	var f poolFlags
	var limits limitFlags
	cmd := &cobra.Command{
		Use:   "set POOL VOLUME",
		Short: "Change the limits of a volume",
		Example: `  lamina volume set --quota 20G --reservation 5G tank data
  lamina volume set --quota 0 tank data`,
		Args: args(2, 2, "POOL and VOLUME"),
	}
	onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		a := poolserver.Limits{Name: args[0]}
		for _, l := range []struct {
			flag string
			v    *byteSize
			to   **int64
		}{{"quota", &limits.quota, &a.Quota}, {"refquota", &limits.refquota, &a.Refquota}, {"reservation", &limits.reservation, &a.Reservation}} {
			if cmd.Flags().Changed(l.flag) {
				*l.to = (*int64)(l.v)
			}
		}
		return printed[blockpool.VolumeInfo](&f, cmd)(poolserver.VolumeSet.Call(ctx, c, a))
	})
	limits.add(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("quota") || cmd.Flags().Changed("refquota") || cmd.Flags().Changed("reservation") {
			return nil
		}
		return usageError{errors.New("nothing to change: give --quota, --refquota or --reservation")}
	}
	return cmd
}

func newVolumeList() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:     "list POOL",
		Aliases: []string{"ls"},
		Short:   "List volumes and snapshots",
		Long: `List volumes and snapshots with what they use. USED is what they have written and is
in use, by themselves or others; REFER is what they hold, shared or not.`,
		Example: `  lamina volume list tank
  lamina volume list --json tank | jq -r '.[] | select(.kind == "snapshot") .name'`,
		Args: args(1, 1, "POOL"),
	}
	return onPool(cmd, &f, func(ctx context.Context, c *poolserver.Client, _ []string) error {
		list, err := poolserver.VolumeList.Call(ctx, c, poolserver.None{})
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), list)
		}
		return printVolumes(cmd.OutOrStdout(), list)
	})
}

func printVolumes(out io.Writer, list []blockpool.VolumeInfo) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tKIND\tSIZE\tUSED\tREFER\tRECORD\tQUOTA\tCREATED\tORIGIN")
	for _, v := range list {
		kind := v.Kind
		if v.Receiving {
			kind = "receiving"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Name, kind, sizeText(v.Size), sizeText(v.Used), sizeText(v.Referenced),
			sizeText(v.RecordSize), limitText(v.Quota), v.Created.Local().Format(time.DateTime), dash(v.Origin))
	}
	return w.Flush()
}

func newVolumeSnapshot() *cobra.Command {
	var f poolFlags
	var from string
	cmd := &cobra.Command{
		Use:   "snapshot POOL VOLUME@NAME",
		Short: "Keep a volume as it is now",
		Long: `Keep what a volume has now as the snapshot VOLUME@NAME, in one step that costs the
same however large the volume is. All that was written before is in it. A
filesystem that is mounted should be frozen meanwhile (fsfreeze), so that the
snapshot mounts clean.`,
		Example: `  lamina volume snapshot tank data@monday
  lamina volume snapshot --from data@monday tank data@kept`,
		Args: args(2, 2, "POOL and VOLUME@NAME"),
	}
	onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		a := poolserver.FromTo{From: from, To: args[0]}
		if a.From == "" {
			a.From = volumeOf(a.To)
		}
		return printed[blockpool.VolumeInfo](&f, cmd)(poolserver.VolumeSnapshot.Call(ctx, c, a))
	})
	cmd.Flags().StringVar(&from, "from", "", "take it of `SNAPSHOT` instead of the volume")
	return cmd
}

// volumeOf returns the volume's part of the name of a snapshot.
func volumeOf(name string) string {
	for i := range len(name) {
		if name[i] == '@' {
			return name[:i]
		}
	}
	return name
}

func newVolumeClone() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:     "clone POOL FROM VOLUME",
		Short:   "Make a volume with what another volume or snapshot has",
		Example: `  lamina volume clone tank base@clean work`,
		Args:    args(3, 3, "POOL, FROM, the volume or snapshot to clone, and VOLUME, the new one"),
	}
	return onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		return printed[blockpool.VolumeInfo](&f, cmd)(poolserver.VolumeClone.Call(ctx, c, poolserver.FromTo{From: args[0], To: args[1]}))
	})
}

func newVolumePromote() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:   "promote POOL VOLUME",
		Short: "Make a clone what its origin was",
		Long: `Give a clone the snapshots of the volume that it comes from, up to the one that it
was cloned from. Only names change.`,
		Example: `  lamina volume promote tank work`,
		Args:    args(2, 2, "POOL and VOLUME"),
	}
	return onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		return printed[blockpool.VolumeInfo](&f, cmd)(poolserver.VolumePromote.Call(ctx, c, poolserver.Name{Name: args[0]}))
	})
}

func newVolumeRollback() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:   "rollback POOL VOLUME@NAME",
		Short: "Make a volume what its snapshot is",
		Long: `Make a volume what its snapshot is. What was written since is lost, unless another
snapshot has it; all snapshots stay. It is refused while the volume is open.`,
		Example: `  lamina volume rollback tank data@monday`,
		Args:    args(2, 2, "POOL and VOLUME@NAME"),
	}
	return onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		return printed[poolserver.None](&f, cmd)(poolserver.VolumeRollback.Call(ctx, c, poolserver.Name{Name: args[0]}))
	})
}

func newVolumeRename() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:     "rename POOL OLD NEW",
		Aliases: []string{"mv"},
		Short:   "Give a volume or snapshot another name",
		Example: `  lamina volume rename tank data archive/data
  lamina volume rename tank data@a data@b`,
		Args: args(3, 3, "POOL, OLD and NEW"),
	}
	return onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		return printed[blockpool.VolumeInfo](&f, cmd)(poolserver.VolumeRename.Call(ctx, c, poolserver.FromTo{From: args[0], To: args[1]}))
	})
}

func newVolumeResize() *cobra.Command {
	var f poolFlags
	var shrink bool
	cmd := &cobra.Command{
		Use:   "resize [--shrink] POOL VOLUME SIZE",
		Short: "Change the virtual size of a volume",
		Long: `Change the virtual size of a volume. A larger one takes no space; what lies beyond a
smaller one is lost, so that takes --shrink. Who has the volume open keeps the
size that it was told: loop devices learn of a new one by losetup -c.`,
		Example: `  lamina volume resize tank data 200G`,
		Args:    args(3, 3, "POOL, VOLUME and SIZE"),
	}
	var size byteSize
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		if err := size.Set(args[2]); err != nil {
			return usageError{err}
		}
		return nil
	}
	onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		a := poolserver.ResizeVolume{Name: args[0], Size: int64(size), Shrink: shrink}
		return printed[blockpool.VolumeInfo](&f, cmd)(poolserver.VolumeResize.Call(ctx, c, a))
	})
	cmd.Flags().BoolVar(&shrink, "shrink", false, "also to a smaller size")
	return cmd
}

func newVolumeRm() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:     "rm POOL VOLUME...",
		Aliases: []string{"destroy"},
		Short:   "Remove volumes and snapshots",
		Long: `Remove volumes and snapshots. Snapshots and clones of a volume stay when it goes.
The space comes back in the background. A volume that is open is refused.`,
		Example: `  lamina volume rm tank work data@monday`,
		Args:    args(2, -1, "POOL and at least one VOLUME or VOLUME@NAME"),
	}
	return onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		for _, name := range args {
			if _, err := poolserver.VolumeDestroy.Call(ctx, c, poolserver.Name{Name: name}); err != nil {
				return err
			}
		}
		return nil
	})
}
