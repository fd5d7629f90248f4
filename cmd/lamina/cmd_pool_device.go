package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

func newPoolScrub() *cobra.Command {
	var f poolFlags
	var a poolserver.Scrub
	var rate byteSize
	var stop, pause bool
	cmd := &cobra.Command{
		Use:   "scrub [--rate SIZE] [--pause | --stop] POOL",
		Short: "Read everything, every copy, and mend what is wrong",
		Long: `Read every copy of everything that is stored, the replicas of the metadata too, and
mend what does not fit its checksum. It goes on when the command is interrupted or
the server is killed; "lamina pool status" shows how far it is.

It exits with 1 when something was found that could not be mended.`,
		Example: `  lamina pool scrub tank
  lamina pool scrub --rate 50M --detach tank
  lamina pool scrub --pause tank; lamina pool scrub --resume tank`,
		Args: args(1, 1, "POOL"),
	}
	onPool(cmd, &f, func(ctx context.Context, c *poolserver.Client, _ []string) error {
		a.Rate = int64(rate)
		var st blockpool.ScrubStatus
		var err error
		if stop || pause {
			st, err = poolserver.PoolScrubControl.Call(ctx, c, poolserver.ScrubControl{Pause: pause})
		} else {
			st, err = poolserver.PoolScrub.Call(ctx, c, a)
		}
		if err != nil {
			return err
		}
		if f.json {
			err = printJSON(cmd.OutOrStdout(), st)
		} else if !a.Detach {
			fmt.Fprintln(cmd.OutOrStdout(), scrubText(&st))
		}
		if err == nil && st.Unrecoverable > 0 {
			err = exitStatus(exitFailure)
		}
		return err
	})
	flags := cmd.Flags()
	flags.Var(&rate, "rate", "read `SIZE` per second at most")
	flags.BoolVar(&a.Resume, "resume", false, "go on with a scrub that was paused")
	flags.BoolVarP(&a.Detach, "detach", "d", false, "do not wait for its end")
	flags.BoolVar(&pause, "pause", false, "pause the scrub that is under way")
	flags.BoolVar(&stop, "stop", false, "give the scrub up that is under way")
	return cmd
}

// scrubText tells of a scrub as zpool does.
func scrubText(st *blockpool.ScrubStatus) string {
	switch st.State {
	case blockpool.ScrubNone:
		return "none requested"
	case blockpool.ScrubRunning:
		return fmt.Sprintf("scrub in progress since %s, %s of %s (%s), %s mended", clock(st.Began), sizeText(st.Done), sizeText(st.Total), percent(st.Done, st.Total), sizeText(st.Mended))
	case blockpool.ScrubFinished:
		return fmt.Sprintf("scrub mended %s in %v with %d errors on %s", sizeText(st.Mended), st.Ended.Sub(st.Began).Round(1e9), st.LostRecords+st.LostNodes, clock(st.Ended))
	}
	return fmt.Sprintf("scrub %s at %s of %s, %s mended", st.State, sizeText(st.Done), sizeText(st.Total), sizeText(st.Mended))
}

// deviceFlags are the flags of what is done to devices.
type deviceFlags struct {
	poolFlags
	size  byteSize
	force bool
}

func (f *deviceFlags) addDevice(cmd *cobra.Command) {
	cmd.Flags().VarP(&f.size, "size", "s", "make the device as a file of `SIZE`, if it is not there")
	cmd.Flags().BoolVarP(&f.force, "force", "f", false, "take it although it is part of another pool or not empty")
}

// fresh returns the size of a device that is to be made, 0 for one that is there.
func (f *deviceFlags) fresh(path string) (int64, error) {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	if f.size == 0 {
		return 0, fmt.Errorf("there is no device %s; to make it as a file add --size SIZE", path)
	}
	return int64(f.size), nil
}

// changed returns what prints an empty result.
func (f *deviceFlags) changed(cmd *cobra.Command) func(poolserver.None, error) error {
	return printed[poolserver.None](&f.poolFlags, cmd)
}

func newPoolAdd() *cobra.Command {
	var f deviceFlags
	cmd := &cobra.Command{
		Use:   "add [--size SIZE] POOL DEVICE",
		Short: "Take a device into a pool",
		Long: `Take a file or block device into a pool that is in use. What is written from then on
uses it.`,
		Example: `  lamina pool add tank /dev/sdd
  lamina pool add --size 50G tank /mnt/more/data.img`,
		Args: args(2, 2, "POOL and DEVICE"),
	}
	onPool(cmd, &f.poolFlags, func(ctx context.Context, c *poolserver.Client, args []string) error {
		path, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		size, err := f.fresh(path)
		if err != nil {
			return err
		}
		return f.changed(cmd)(poolserver.PoolAdd.Call(ctx, c, poolserver.Device{Path: path, Size: size, Force: f.force}))
	})
	f.addDevice(cmd)
	return cmd
}

func newPoolRemove() *cobra.Command {
	var f deviceFlags
	var stop bool
	cmd := &cobra.Command{
		Use:   "remove POOL DEVICE",
		Short: "Move what a device holds to the others and let it go",
		Long: `Move all that a device holds to the other devices, while the pool is in use, and
let it leave the pool. It goes on when the command is interrupted; --stop ends it,
and the device stays.`,
		Example: `  lamina pool remove tank /dev/sdb
  lamina pool remove --stop tank /dev/sdb`,
		Args: args(2, 2, "POOL and DEVICE"),
	}
	onPool(cmd, &f.poolFlags, func(ctx context.Context, c *poolserver.Client, args []string) error {
		path, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		return f.changed(cmd)(poolserver.PoolRemove.Call(ctx, c, poolserver.Device{Path: path, Stop: stop}))
	})
	cmd.Flags().BoolVar(&stop, "stop", false, "end a removal, replacement or resilver that is under way")
	return cmd
}

func newPoolReplace() *cobra.Command {
	var f deviceFlags
	cmd := &cobra.Command{
		Use:   "replace [--size SIZE] POOL OLD NEW",
		Short: "Have another device take the place of one",
		Long: `Have the device NEW take the place of OLD, while the pool is in use. What OLD holds
is copied, or, where OLD is missing or has failed, made from the other devices. It
goes on when the command is interrupted.`,
		Example: `  lamina pool replace tank /dev/sdb /dev/sdd`,
		Args:    args(3, 3, "POOL, OLD and NEW"),
	}
	onPool(cmd, &f.poolFlags, func(ctx context.Context, c *poolserver.Client, args []string) error {
		old, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		heir, err := filepath.Abs(args[1])
		if err != nil {
			return err
		}
		size, err := f.fresh(heir)
		if err != nil {
			return err
		}
		return f.changed(cmd)(poolserver.PoolReplace.Call(ctx, c, poolserver.Device{Path: old, Heir: heir, Size: size, Force: f.force}))
	})
	f.addDevice(cmd)
	return cmd
}

func newPoolGrow() *cobra.Command {
	var f deviceFlags
	cmd := &cobra.Command{
		Use:   "grow POOL DEVICE [SIZE]",
		Short: "Use all of a device that has become longer",
		Long:  `Use all of a block device that has become longer, or make a file longer and use that.`,
		Example: `  lamina pool grow tank /dev/vg/pool
  lamina pool grow tank /mnt/more/data.img 100G`,
		Args: args(2, 3, "POOL, DEVICE and, for a file, SIZE"),
	}
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		if len(args) < 3 {
			return nil
		}
		if err := f.size.Set(args[2]); err != nil {
			return usageError{err}
		}
		return nil
	}
	return onPool(cmd, &f.poolFlags, func(ctx context.Context, c *poolserver.Client, args []string) error {
		path, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		return f.changed(cmd)(poolserver.PoolGrow.Call(ctx, c, poolserver.Device{Path: path, Size: int64(f.size)}))
	})
}

func newPoolOnline() *cobra.Command {
	var f deviceFlags
	cmd := &cobra.Command{
		Use:   "online POOL DEVICE [WHERE]",
		Short: "Take a device into use again that was missing or has failed",
		Long: `Take a device into use again that was missing or has failed; WHERE is where it is
now, if that is elsewhere. What it has missed is written to it, and nothing else.`,
		Example: `  lamina pool online tank /dev/sdb
  lamina pool online tank /dev/sdb /dev/sdf`,
		Args: args(2, 3, "POOL, DEVICE and WHERE, if it has moved"),
	}
	return onPool(cmd, &f.poolFlags, func(ctx context.Context, c *poolserver.Client, args []string) error {
		a := poolserver.Device{}
		var err error
		if a.Path, err = filepath.Abs(args[0]); err != nil {
			return err
		}
		if len(args) > 1 {
			if a.Heir, err = filepath.Abs(args[1]); err != nil {
				return err
			}
		}
		return f.changed(cmd)(poolserver.PoolOnline.Call(ctx, c, a))
	})
}
