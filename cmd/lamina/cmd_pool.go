package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/fs/fusefs"
)

func newPool() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pool",
		Short: "Make and look after pools of thin volumes",
		Long: `A pool takes files or block devices and gives out volumes, which take space when
they are written, and snapshots, which share all they can.

A POOL is named by its name, or by a path: of its directory, of its metadata or of
one of its devices. Pools that have a name lie in the directory of --root, which is
/var/lib/lamina/pools for root and ~/.local/share/lamina/pools for others.

Each pool in use has a server, which starts when a command needs it and ends when
there is nothing to do. If it is killed, the next command starts one that carries
on with all that was acknowledged.`,
		Example: `  lamina pool create --size 10G tank
  lamina pool create --profile mirror tank /dev/sdb /dev/sdc
  lamina pool status tank
  lamina volume create --size 100G tank data`,
		Args: unknownVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newPoolCreate(), newPoolList(), newPoolStatus(), newPoolSet(), newPoolEvents(),
		newPoolScrub(), newPoolAdd(), newPoolRemove(), newPoolReplace(), newPoolGrow(), newPoolOnline(), newPoolConvert(), newPoolReplica(),
		newPoolCheck(), newPoolRepair(), newPoolDump(), newPoolRestore(), newPoolCompact(), newPoolTrim(), newPoolRmap(),
		newPoolServe(), newPoolStop(), newPoolDestroy(),
	)
	return cmd
}

func newPoolServe() *cobra.Command {
	var f poolFlags
	var idle time.Duration
	cmd := &cobra.Command{
		Use:   "serve [--idle TIME] POOL",
		Short: "Serve a pool in the foreground",
		Long: `Serve a pool until it is stopped, or has had nothing to do for the time of --idle.
There is seldom a need for it: commands start the server of a pool themselves.

SIGTERM ends it, unless somebody uses an export; a second one within ten seconds
ends it all the same. What is acknowledged is safe either way.`,
		Example: `  lamina pool serve --idle 0 tank          # for ever: for a unit of systemd
  LAMINA_POOL_IDLE=5m lamina volume list tank`,
		Args: args(1, 1, "POOL"),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := f.locate(args[0])
			if err != nil {
				return err
			}
			return poolserver.Serve(poolserver.Config{Place: p, Idle: idle, Log: fusefs.NewLogger("lamina"), Version: version()})
		},
		ValidArgsFunction: f.completePool,
	}
	f.add(cmd)
	cmd.Flags().MarkHidden("json")
	cmd.Flags().DurationVar(&idle, "idle", idleTime(), "end after `TIME` without work, clients and exports; 0: never")
	return cmd
}

// idleTime is how long a server that a command starts waits for something to do.
func idleTime() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("LAMINA_POOL_IDLE")); err == nil && d >= 0 {
		return d
	}
	return poolserver.DefaultIdle
}

func newPoolStop() *cobra.Command {
	var f poolFlags
	var force bool
	cmd := &cobra.Command{
		Use:   "stop [--force] POOL",
		Short: "End the server of a pool",
		Long: `End the server of a pool, its exports first, and wait until the pool is let go of.
It is refused while somebody uses an export. A pool without a server is no error.`,
		Example:           `  lamina pool stop tank`,
		Args:              args(1, 1, "POOL"),
		ValidArgsFunction: f.completePool,
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := f.locate(args[0])
			if err != nil {
				return err
			}
			ctx, stop := interruptible()
			defer stop()
			return p.Stopped(ctx, force)
		},
	}
	f.add(cmd)
	cmd.Flags().MarkHidden("json")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also take exports from who uses them")
	return cmd
}

// poolRow is a pool as "list" shows it.
type poolRow struct {
	Name    string             `json:"name"`
	Dir     string             `json:"dir"`
	Running bool               `json:"running"`
	Error   string             `json:"error,omitempty"` // why nothing is known of it
	Status  *poolserver.Status `json:"status,omitempty"`
}

func newPoolList() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the pools that are there, with or without a server",
		Long: `List the pools in the directory of --root. What is in a pool is known of those that
have a server; "lamina pool status" starts one.

SIZE, ALLOC and FREE are raw, as zpool list has them: on raidz they count parity.
USABLE is what volumes may have of that, and AVAIL what of it is free.`,
		Example: `  lamina pool list
  lamina pool list --json | jq -r .[].name`,
		Args: args(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			rows, err := f.rows()
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			if len(rows) == 0 {
				root, _ := f.dir() // it was found above
				fmt.Fprintf(os.Stderr, "lamina: no pool in %s\n", root)
				return nil
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tSTATE\tSIZE\tALLOC\tFREE\tCAP\tUSABLE\tAVAIL\tVOLUMES\tPID\tDIR")
			for _, r := range rows {
				r.print(w)
			}
			return w.Flush()
		},
	}
	f.add(cmd)
	return cmd
}

// rows asks the servers that there are.
func (f *poolFlags) rows() ([]poolRow, error) {
	root, err := f.dir()
	if err != nil {
		return nil, err
	}
	places, err := poolserver.List(root)
	if err != nil {
		return nil, err
	}
	rows := []poolRow{} // an empty list in JSON, not null
	for _, p := range places {
		r := poolRow{Name: p.Name(), Dir: p.Dir}
		c, err := p.Dial()
		if err == nil {
			var st poolserver.Status
			st, err = poolserver.PoolStatus.Call(context.Background(), c, poolserver.None{})
			r.Running, r.Status = true, &st
			c.Close()
		}
		if err != nil && err != poolserver.ErrNotRunning {
			r.Error, r.Status = err.Error(), nil
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func (r *poolRow) print(w *tabwriter.Writer) {
	switch {
	case r.Error != "":
		fmt.Fprintf(w, "%s\tunknown: %s\n", r.Name, r.Error)
	case r.Status == nil:
		fmt.Fprintf(w, "%s\tstopped\t-\t-\t-\t-\t-\t-\t-\t-\t%s\n", r.Name, r.Dir)
	default:
		d, net := r.Status.Data, r.Status.Usable
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", r.Name, r.Status.State, sizeText(d.Size), sizeText(d.Used),
			sizeText(d.Free), percent(d.Used, d.Size), sizeText(net.Size), sizeText(net.Free), r.Status.Volumes, r.Status.Server.PID, r.Dir)
	}
}
