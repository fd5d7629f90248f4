package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

func newPoolStatus() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:   "status POOL",
		Short: "Show the devices of a pool, their errors, and its space",
		Example: `  lamina pool status tank
  lamina pool status --json tank | jq .devices`,
		Args: args(1, 1, "POOL"),
	}
	return onPool(cmd, &f, func(ctx context.Context, c *poolserver.Client, _ []string) error {
		st, err := poolserver.PoolStatus.Call(ctx, c, poolserver.None{})
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), st)
		}
		return printStatus(cmd.OutOrStdout(), &st)
	})
}

// printStatus shows a pool as zpool status does, and its space as lvs.
func printStatus(out io.Writer, st *poolserver.Status) error {
	fmt.Fprintf(out, "  pool: %s\n state: %s\n", st.Name, strings.ToUpper(st.State))
	if st.Problem != "" {
		fmt.Fprintf(out, "status: %s\n", st.Problem)
	}
	if st.Action != "" {
		fmt.Fprintf(out, "action: %s\n", st.Action)
	}
	fmt.Fprintf(out, "  scan: %s\n", scrubText(&st.Scrub))
	if c := st.Convert; c.State != blockpool.ConvertNone {
		fmt.Fprintf(out, "  data: %s\n", convertText(&c))
	}
	if m := st.Move; m.Running && m.Kind != blockpool.MoveConvert {
		fmt.Fprintf(out, "  work: %s of %s since %s, %s of %s (%s)\n", m.Kind, m.Device, clock(m.Began), sizeText(m.Done), sizeText(m.Total), percent(m.Done, m.Total))
	}
	fmt.Fprint(out, "config:\n\n")
	errors := printDevices(out, st)
	fmt.Fprintln(out)
	printSpace(out, st)
	if errors == 0 {
		fmt.Fprintln(out, "errors: No known data errors")
	} else {
		fmt.Fprintf(out, "errors: %d since the server started; see: lamina pool events %s\n", errors, st.Name)
	}
	printUses(out, st)
	return nil
}

// printDevices shows the tree of devices and returns how many errors they had.
func printDevices(out io.Writer, st *poolserver.Status) (errors uint64) {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATE\tREAD\tWRITE\tCKSUM\tSIZE\tALLOC")
	var read, write, sum uint64
	var alloc int64
	for _, d := range st.Devices {
		read, write, sum = read+d.ReadErrors, write+d.WriteErrors, sum+d.ChecksumErrors
		alloc += d.Allocated
	}
	fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%s\n", st.Name, strings.ToUpper(st.State), read, write, sum, sizeText(st.Raw), sizeText(alloc))
	inset := "  "
	if st.DataProfile != "single" {
		fmt.Fprintf(w, "  %s\t%s\t\t\t\t\t\n", st.DataProfile, strings.ToUpper(st.State))
		inset = "    "
	}
	for _, d := range st.Devices {
		fmt.Fprintf(w, "%s%s\t%s\t%d\t%d\t%d\t%s\t%s%s\n", inset, d.Path, strings.ToUpper(d.State),
			d.ReadErrors, d.WriteErrors, d.ChecksumErrors, sizeText(d.Size), sizeText(d.Allocated), missed(d))
	}
	fmt.Fprintln(w, "  metadata\t\t\t\t\t\t")
	for _, r := range st.Replicas {
		note := ""
		if r.Problem != "" {
			note = "  " + r.Problem
		}
		fmt.Fprintf(w, "    %s\t%s\t\t\t\t%s\t%s%s\n", r.Path, strings.ToUpper(r.State), sizeText(r.Size), sizeText(r.Used), note)
	}
	w.Flush()
	for line := range strings.Lines(table.String()) {
		fmt.Fprint(out, "\t"+strings.TrimRight(line, " \n")+"\n")
	}
	return read + write + sum
}

// printSpace shows what is used as lvs does: Data% and Meta%.
func printSpace(out io.Writer, st *poolserver.Status) {
	fmt.Fprintf(out, " space: data %s used of %s, %s free (%s); metadata %s of %s (%s)\n",
		sizeText(st.Data.Used), sizeText(st.Data.Size), sizeText(st.Data.Free), percent(st.Data.Used, st.Data.Size),
		sizeText(st.Metadata.Used), sizeText(st.Metadata.Size), percent(st.Metadata.Used, st.Metadata.Size))
	if st.Usable != st.Data {
		fmt.Fprintf(out, "        parity aside: %s used of %s, %s free\n", sizeText(st.Usable.Used), sizeText(st.Usable.Size), sizeText(st.Usable.Free))
	}
	if st.Reserved > 0 || st.Freeing > 0 {
		fmt.Fprintf(out, "        %s reserved, %s on its way to be free\n", sizeText(st.Reserved), sizeText(st.Freeing))
	}
	if st.Low {
		fmt.Fprintf(out, "        less than %d%% is free; when it is full, writes %s\n", st.LowWater, map[string]string{"error": "fail", "queue": "wait"}[st.WhenFull])
	}
}

// clock is a time for people.
func clock(t time.Time) string { return t.Local().Format(time.DateTime) }

// missed tells what a device has not.
func missed(d blockpool.DeviceInfo) string {
	if d.Missed == 0 {
		return ""
	}
	return fmt.Sprintf("  has missed what was written since txg %d", d.Missed)
}

// printUses shows who uses the pool.
func printUses(out io.Writer, st *poolserver.Status) {
	fmt.Fprintf(out, "server: pid %d since %s; volumes: %d, snapshots: %d\n", st.Server.PID, clock(st.Server.Started), st.Volumes, st.Snapshots)
	for _, j := range st.Jobs {
		fmt.Fprintf(out, "  work: %s since %s, %s done\n", j.Name, clock(j.Started), percent(j.Progress.Done, j.Progress.Total))
	}
	for _, e := range st.Exports {
		fmt.Fprintf(out, "export: %s\n", exportText(e))
	}
	for _, l := range st.DeadLoops {
		fmt.Fprintf(out, "  dead: %s lost its server; take it away with: %s\n", l, l.Release())
	}
}

func newPoolEvents() *cobra.Command {
	var f poolFlags
	var a poolserver.Events
	cmd := &cobra.Command{
		Use:   "events [--follow] POOL",
		Short: "Show what has happened in a pool",
		Long: `Show the last events, also those of earlier servers: devices that failed or came
back, bytes that were wrong and mended, marks that were crossed. To have a program
told of each: lamina pool set POOL hook=PROGRAM.`,
		Example: `  lamina pool events tank
  lamina pool events --follow --json tank | jq .text`,
		Args: args(1, 1, "POOL"),
	}
	onPool(cmd, &f, func(ctx context.Context, c *poolserver.Client, _ []string) error {
		out := cmd.OutOrStdout()
		if a.Follow {
			c.Progress = func(p poolserver.Progress) { printEvent(out, p.Event, f.json) }
		}
		list, err := poolserver.PoolEvents.Call(ctx, c, a)
		switch {
		case a.Follow && ctx.Err() != nil:
			return nil // ^C is how it ends
		case err != nil:
			return err
		case f.json:
			return printJSON(out, list)
		}
		for _, e := range list {
			printEvent(out, e, false)
		}
		return nil
	})
	cmd.Flags().BoolVarP(&a.Follow, "follow", "F", false, "go on until interrupted; with --json one line per event")
	cmd.Flags().Uint64Var(&a.After, "after", 0, "only those after event `NUMBER`")
	return cmd
}

// printEvent shows an event as a line. One that was followed has come as whatever
// JSON makes of it.
func printEvent(out io.Writer, v any, asJSON bool) {
	raw, err := json.Marshal(v)
	if err != nil {
		return // it came as JSON
	}
	if asJSON {
		fmt.Fprintf(out, "%s\n", raw)
		return
	}
	var e blockpool.Event
	if json.Unmarshal(raw, &e) == nil {
		fmt.Fprintf(out, "%5d  %s  %-9s  %s\n", e.Number, e.Time.Local().Format(time.DateTime), e.Kind, strings.TrimSpace(e.Object+"  "+e.Text))
	}
}

// A setting is one of "pool set".
type setting struct {
	name, help string
	set        func(*poolserver.PoolChange, string) error
}

var settings = []setting{
	{"record_size", "records of new volumes: 4K to 128K", func(c *poolserver.PoolChange, v string) error { return setSize(&c.RecordSize, v) }},
	{"metadata_size", "what a replica of the metadata may grow to", func(c *poolserver.PoolChange, v string) error { return setSize(&c.MetadataSize, v) }},
	{"when_full", "error or queue", func(c *poolserver.PoolChange, v string) error { c.WhenFull = &v; return nil }},
	{"queue_timeout", "how long writes wait under queue, such as 60s", func(c *poolserver.PoolChange, v string) error {
		d, err := time.ParseDuration(v)
		c.QueueTimeout = &d
		return err
	}},
	{"low_water", "percent free below which an event tells", func(c *poolserver.PoolChange, v string) error { return setNumber(&c.LowWater, v) }},
	{"min_free", "percent free below which no new volume is made", func(c *poolserver.PoolChange, v string) error { return setNumber(&c.MinFree, v) }},
	{"hook", "absolute path of a program that is run for each event; empty: none", func(c *poolserver.PoolChange, v string) error { c.Hook = &v; return nil }},
	{"discard", "on or off: give space that becomes free back to files and devices", func(c *poolserver.PoolChange, v string) error {
		on := v == "on"
		if !on && v != "off" {
			return fmt.Errorf("%q is neither on nor off", v)
		}
		c.Discard = &on
		return nil
	}},
}

func setSize(to **int64, v string) error {
	var size byteSize
	err := size.Set(v)
	n := int64(size)
	*to = &n
	return err
}

func setNumber(to **int, v string) error {
	n, err := strconv.Atoi(strings.TrimSuffix(v, "%"))
	*to = &n
	return err
}

func newPoolSet() *cobra.Command {
	var f poolFlags
	var help strings.Builder
	for _, s := range settings {
		fmt.Fprintf(&help, "  %-14s %s\n", s.name, s.help)
	}
	cmd := &cobra.Command{
		Use:   "set POOL NAME=VALUE...",
		Short: "Change settings of a pool",
		Long: `Change settings of a pool:

` + strings.TrimSuffix(help.String(), "\n") + `

The hook finds the event in its environment, as LAMINA_POOL, LAMINA_EVENT (the
kind), LAMINA_EVENT_OBJECT and LAMINA_EVENT_TEXT, and as JSON on its stdin. It runs
once at a time and for 30 s at most. It must belong to root or to the user, and not
be writable by others.`,
		Example: `  lamina pool set tank low_water=20 when_full=queue
  lamina pool set tank hook=/usr/local/sbin/pool-event`,
		Args: args(2, -1, "POOL and at least one NAME=VALUE"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return f.completePool(cmd, args, typed)
			}
			var names []string
			for _, s := range settings {
				names = append(names, s.name+"=\t"+s.help)
			}
			return names, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
		},
	}
	var change poolserver.PoolChange
	cmd.PreRunE = func(_ *cobra.Command, args []string) error { return parseSettings(&change, args[1:]) }
	return onPool(cmd, &f, func(ctx context.Context, c *poolserver.Client, _ []string) error {
		return printed[poolserver.ConfigInfo](&f, cmd)(poolserver.PoolSet.Call(ctx, c, change))
	})
}

// parseSettings reads NAME=VALUE words.
func parseSettings(change *poolserver.PoolChange, words []string) error {
next:
	for _, word := range words {
		name, value, found := strings.Cut(word, "=")
		for _, s := range settings {
			if found && s.name == name {
				if err := s.set(change, value); err != nil {
					return usageError{fmt.Errorf("%s: %w", word, err)}
				}
				continue next
			}
		}
		return usageError{fmt.Errorf("%q is no setting; accepted: NAME=VALUE with a name of: %s", word, settingNames())}
	}
	return nil
}

func settingNames() string {
	var names []string
	for _, s := range settings {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}
