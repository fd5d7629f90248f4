package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/fs/fusefs"
)

// mountStat is all that a server tells of itself.
type mountStat struct {
	fusefs.Info
	Options  map[string]string  `json:"options"`
	Layers   []fusefs.LayerInfo `json:"layers"`
	Counters fusefs.Counters    `json:"counters"`
}

func newStat() *cobra.Command {
	var asJSON, prometheus bool
	var watch time.Duration
	cmd := &cobra.Command{
		Use:   "stat MNT",
		Short: "Show the layers, options and counters of a mounted union",
		Example: `  lamina stat /mnt/x
  lamina stat --json /mnt/x | jq .counters.requests
  lamina stat --watch 2s /mnt/x
  lamina stat --prometheus /mnt/x > /var/lib/node_exporter/lamina.prom`,
		Args:              args(1, 1, "MNT, where the union is mounted"),
		ValidArgsFunction: completeMounts,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case prometheus:
				return withServer(args[0], func(c *fusefs.Client) error {
					text, err := c.Metrics()
					if err == nil {
						_, err = io.WriteString(cmd.OutOrStdout(), text)
					}
					return err
				})
			case watch > 0:
				return withServer(args[0], func(c *fusefs.Client) error { return watchCounters(cmd.OutOrStdout(), c, watch) })
			}
			st, err := statMount(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), st)
			}
			st.print(cmd.OutOrStdout())
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&prometheus, "prometheus", false, "print the counters as Prometheus reads them")
	cmd.Flags().DurationVar(&watch, "watch", 0, "print what was counted since, every `TIME`, until ^C")
	cmd.MarkFlagsMutuallyExclusive("json", "prometheus", "watch")
	return cmd
}

// watchCounters prints, for each interval, the rates of what the server does.
func watchCounters(w io.Writer, c *fusefs.Client, every time.Duration) error {
	ctx, stop := interruptible()
	defer stop()
	tick := time.NewTicker(max(every, 100*time.Millisecond))
	defer tick.Stop()
	last, err := c.Counters()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%8s  %9s  %8s  %10s  %10s  %8s  %s\n", "TIME", "REQUESTS", "ERRORS", "READ", "WRITTEN", "COPY-UPS", "MOST")
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := c.Counters()
		if err != nil {
			return err
		}
		most, n := "", uint64(0)
		for _, op := range slices.Sorted(maps.Keys(now.Requests)) {
			if d := now.Requests[op] - last.Requests[op]; d > n {
				most, n = fmt.Sprintf("%s %d", op, d), d
			}
		}
		fmt.Fprintf(w, "%8s  %9d  %8d  %10s  %10s  %8d  %s\n", time.Now().Format("15:04:05"), now.Total()-last.Total(), now.Errors-last.Errors,
			bytesText(now.BytesRead-last.BytesRead), bytesText(now.BytesWritten-last.BytesWritten), now.CopyUps-last.CopyUps, most)
		last = now
	}
}

func statMount(target string) (*mountStat, error) {
	c, err := fusefs.Dial(target)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	st := &mountStat{Info: c.Info}
	if st.Options, err = c.Options(); err != nil {
		return nil, err
	}
	if st.Layers, err = c.Layers(); err != nil {
		return nil, err
	}
	st.Counters, err = c.Counters()
	return st, err
}

func (st *mountStat) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n  source %s, type %s, device %s, mounted by %s\n  pid %d of uid %d, version %s, since %s\n",
		st.Target, st.Source, st.Type, st.Dev, st.Via, st.PID, st.UID, st.Version, st.Started.Local().Format(time.DateTime))
	fmt.Fprintln(w, "layers, the top first")
	printLayers(w, st.Layers)
	fmt.Fprintln(w, "options")
	for _, name := range slices.Sorted(maps.Keys(st.Options)) {
		if !slices.Contains([]string{"lowerdir", "upperdir"}, name) { // shown as layers
			fmt.Fprintf(w, "  %-20s %s\n", name, st.Options[name])
		}
	}
	fmt.Fprintf(w, "counters\n")
	fmt.Fprint(w, indent(st.Counters.String()))
}
