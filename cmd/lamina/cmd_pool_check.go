package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

func newPoolCheck() *cobra.Command {
	var f poolFlags
	var a poolserver.Check
	cmd := &cobra.Command{
		Use:   "check [--data] [--free-leaks] POOL",
		Short: "Look for what is wrong in a pool",
		Long: `Look at everything that a pool keeps about its volumes and space: that every node
fits its checksum and its place, that what is counted is what is there, that nothing
is lost or leaked. It changes nothing, save with --free-leaks. The pool may be in
use; one that cannot be opened is looked at as it lies.

It exits with 0 when nothing is wrong, 1 when it could not look or there are leaks
only, and 4 when something is damaged.`,
		Example: `  lamina pool check tank
  lamina pool check --data --json tank | jq .findings`,
		Args:              args(1, 1, "POOL"),
		ValidArgsFunction: f.completePool,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			place, err := f.locate(args[0])
			if err != nil {
				return err
			}
			report, err := checkPool(ctx, place, a)
			if err != nil {
				return err
			}
			if f.json {
				err = printJSON(cmd.OutOrStdout(), report)
			} else {
				err = report.WriteText(cmd.OutOrStdout())
			}
			if status := report.Class.ExitCode(); err == nil && status != 0 {
				return exitStatus(status)
			}
			return err
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&a.Data, "data", false, "read every copy of every record too")
	cmd.Flags().BoolVar(&a.RepairLeaks, "free-leaks", false, "free what nothing uses, if nothing is damaged")
	return cmd
}

// checkPool asks the pool's server, or looks itself where none starts.
func checkPool(ctx context.Context, place poolserver.Place, a poolserver.Check) (*blockpool.Report, error) {
	tell, end := newProgressBar("check")
	defer end()
	c, err := place.Connect(ctx, serveCommand(place))
	if err == nil {
		defer c.Close()
		c.Progress = tell
		return poolserver.PoolCheck.Call(ctx, c, a)
	}
	if tell == nil {
		tell = func(poolserver.Progress) {}
	}
	report, offline := blockpool.Check(ctx, place.Dir, blockpool.CheckOptions{
		Data: a.Data, RepairLeaks: a.RepairLeaks, SearchDevices: place.Files(),
		Progress: func(p blockpool.CheckProgress) { tell(poolserver.CheckProgress(p)) },
	})
	if offline != nil {
		return nil, offline // says what err says, and more
	}
	fmt.Fprintf(os.Stderr, "lamina: the pool cannot be opened (%v); this is how it lies\n", err)
	return report, nil
}

func newPoolDump() *cobra.Command {
	var f poolFlags
	var thin bool
	var a poolserver.DumpThin
	var data string
	cmd := &cobra.Command{
		Use:   "dump [--thin [--data FILE]] POOL [VOLUME...]",
		Short: "Write all metadata of a pool as text to stdout",
		Long: `Write all metadata of a pool as text to stdout: what "lamina pool restore" needs when
every replica of it is lost. The pool may be in use.

With --thin, volumes of 64K records are written as a dm-thin pool: their mappings as
the XML of thin_dump, which thin_restore takes, and with --data what they hold, as
the data device of that pool. A FILE that is no block device is to be made as large
as that device first (truncate -s): the pool has no free blocks beyond it.`,
		Example: `  lamina pool dump tank | zstd > tank.dump.zst
  lamina pool dump --thin --data /dev/vg/thin-data docker > meta.xml
  thin_restore -i meta.xml -o /dev/vg/thin-meta`,
		Args: args(1, -1, "POOL"),
	}
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		if !thin && (len(args) > 1 || data != "") {
			return usageError{errors.New("VOLUMEs and --data are for --thin; a dump has all of the pool")}
		}
		return nil
	}
	onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		if !thin {
			_, err := poolserver.PoolDump.Call(ctx, c, poolserver.None{}, os.Stdout)
			return err
		}
		to := os.Stdout
		if a.Names, a.Data = args, data != ""; a.Data {
			var err error
			if to, err = os.OpenFile(data, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
				return err
			}
			defer to.Close()
		}
		_, err := poolserver.PoolDumpThin.Call(ctx, c, a, os.Stdout, to)
		return err
	})
	cmd.Flags().MarkHidden("json")
	cmd.Flags().BoolVar(&thin, "thin", false, "volumes as a dm-thin pool, in the XML of thin_dump")
	cmd.Flags().StringVar(&data, "data", "", "with --thin: write what the volumes hold to `FILE`")
	return cmd
}

func newPoolTrim() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:   "trim POOL",
		Short: "Give all that is free back to files and devices",
		Long: `Give all that is free in a pool back to its files, which get holes, and devices, which
discard it. A pool with discard=on does so by itself when space becomes free.`,
		Example: `  lamina pool trim tank`,
		Args:    args(1, 1, "POOL"),
	}
	return onPool(cmd, &f, func(ctx context.Context, c *poolserver.Client, _ []string) error {
		n, err := poolserver.PoolTrim.Call(ctx, c, poolserver.None{})
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), n)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s given back\n", sizeText(n.Bytes))
		return err
	})
}

func newPoolRestore() *cobra.Command {
	var f poolFlags
	var force bool
	var data, prefix string
	cmd := &cobra.Command{
		Use:   "restore [--force | --thin-data FILE] POOL",
		Short: "Make the metadata of a pool from a dump on stdin",
		Long: `Make the metadata of a pool anew from a dump that stdin brings. POOL is the pool's
name or directory, or one of its devices. What was changed since the dump is lost.

With --force also when there is metadata, which is kept under another name, or when
the pool was changed since the dump.

With --thin-data, stdin is the XML of thin_dump and FILE the data device of that
dm-thin pool: its devices become volumes of a pool that is there, called after their
dev_id.`,
		Example: `  zstdcat tank.dump.zst | lamina pool restore tank
  thin_dump /dev/vg/thin-meta | lamina pool restore --thin-data /dev/vg/thin-data --prefix docker/ tank`,
		Args:              args(1, 1, "POOL"),
		ValidArgsFunction: f.completePool,
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			if data != "" {
				return f.restoreThin(ctx, args[0], data, prefix)
			}
			root, err := f.dir()
			if err != nil && !poolserver.IsPath(args[0]) {
				return err
			}
			place, err := poolserver.Locate(root, args[0])
			if errors.Is(err, poolserver.ErrNoPool) { // the metadata is what is missing
				place, err = poolserver.NewPlace(root, args[0])
			} else if err == nil {
				err = place.Stopped(ctx, false)
			}
			if err != nil {
				return err
			}
			return blockpool.Restore(ctx, place.Dir, os.Stdin, blockpool.RestoreOptions{Force: force, SearchDevices: place.Files()})
		},
	}
	f.add(cmd)
	cmd.Flags().MarkHidden("json")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also over metadata that is there, or with a dump that is too old")
	cmd.Flags().StringVar(&data, "thin-data", "", "make volumes from a dm-thin pool, whose data device is `FILE`")
	cmd.Flags().StringVar(&prefix, "prefix", "thin", "with --thin-data: begin the names of volumes with `TEXT`")
	return cmd
}

// restoreThin makes volumes from a dm-thin pool, whose mappings are on stdin.
func (f *poolFlags) restoreThin(ctx context.Context, pool, data, prefix string) error {
	from, err := os.Open(data)
	if err != nil {
		return err
	}
	defer from.Close()
	c, err := f.connect(ctx, pool)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = poolserver.PoolRestoreThin.Call(ctx, c, poolserver.RestoreThin{Prefix: prefix}, os.Stdin, from)
	return err
}

func newPoolCompact() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:   "compact POOL",
		Short: "Write the metadata anew without what is free in it",
		Long: `Write each replica of the metadata anew without what is free in it. The files of the
metadata never become shorter otherwise. The pool may be in use; changes wait.`,
		Example: `  lamina pool compact tank`,
		Args:    args(1, 1, "POOL"),
	}
	return onPool(cmd, &f, func(ctx context.Context, c *poolserver.Client, _ []string) error {
		done, err := poolserver.PoolCompact.Call(ctx, c, poolserver.None{})
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), done)
		}
		for _, d := range done {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s before, %s now\n", d.Replica, sizeText(d.Before), sizeText(d.After))
		}
		return nil
	})
}

func newPoolRmap() *cobra.Command {
	var f poolFlags
	part := rangeFlags{length: 4096}
	cmd := &cobra.Command{
		Use:   "rmap [--offset SIZE] [--length SIZE] POOL DEVICE",
		Short: "Tell whose data lies in a part of a device",
		Long: `Tell which records of which volumes and snapshots, or of which objects of datasets,
lie in a part of a device: what is lost, or made from other copies, when that part
cannot be read. The number of an object is that of a file's inode.`,
		Example: `  lamina pool rmap --offset 1G --length 64K tank /dev/sdb`,
		Args:    args(2, 2, "POOL and DEVICE"),
	}
	onPool(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		out := cmd.OutOrStdout()
		c.Progress = eachEvent(out, f.json, func(m blockpool.Mapping) {
			object := ""
			if m.Object != 0 {
				object = fmt.Sprintf(" object %d,", m.Object)
			}
			fmt.Fprintf(out, "%s:%s %d records from %d on, in %d sectors at %d\n", m.Volume, object, m.Count, m.First, m.Sectors, m.Addr)
		})
		_, err := poolserver.PoolRmap.Call(ctx, c, poolserver.DeviceRange{Path: args[0], Offset: int64(part.offset), Length: int64(part.length)})
		return err
	})
	part.add(cmd, "`SIZE` of the part")
	return cmd
}

// eachEvent returns what shows the results that come one by one: as lines of JSON, or
// as show does.
func eachEvent[T any](out io.Writer, asJSON bool, show func(T)) func(poolserver.Progress) {
	return func(p poolserver.Progress) {
		raw, err := json.Marshal(p.Event)
		if err != nil || p.Event == nil {
			return // progress of another kind
		}
		if asJSON {
			fmt.Fprintf(out, "%s\n", raw)
			return
		}
		var v T
		if json.Unmarshal(raw, &v) == nil {
			show(v)
		}
	}
}
