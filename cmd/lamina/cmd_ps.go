package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/fs/fusefs"
)

// mountRow is one served mount as "ps" shows it.
type mountRow struct {
	fusefs.Info
	Lowers   int             `json:"lowers"`
	Upper    string          `json:"upper,omitempty"`
	Counters fusefs.Counters `json:"counters"`
}

func newPs() *cobra.Command {
	var watch, asJSON bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List the unions that are served now, with counters",
		Long: `List the unions that servers of this user have mounted; root sees those of all
users. Unions of the kernel engine have no server: findmnt -t overlay lists them.

A warm union answers lookups and reads from the kernel's caches, so its request
counters stand still while it is used.`,
		Example: `  lamina ps
  lamina ps --watch --interval 1s
  lamina ps --json`,
		Args: args(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if !watch {
				return showMounts(out, asJSON)
			}
			return watchMounts(out, asJSON, interval)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again and again until interrupted")
	cmd.Flags().DurationVar(&interval, "interval", 2*time.Second, "`TIME` between two looks of --watch")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON; with --watch one line per look")
	return cmd
}

func showMounts(out io.Writer, asJSON bool) error {
	rows, err := mountRows()
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(out, rows)
	}
	if len(rows) == 0 {
		fmt.Fprintln(os.Stderr, "lamina: no union is served now")
		return nil
	}
	return printMounts(out, rows)
}

// watchMounts repaints the table on a terminal, and appends elsewhere.
func watchMounts(out io.Writer, asJSON bool, interval time.Duration) error {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	for {
		rows, err := mountRows()
		switch {
		case err != nil:
			return err
		case asJSON:
			err = json.NewEncoder(out).Encode(rows)
		default:
			if isTerminal(os.Stdout) {
				fmt.Fprint(out, "\x1b[H\x1b[2J")
			}
			err = printMounts(out, rows)
		}
		if err != nil {
			return err
		}
		select {
		case <-interrupted:
			return nil
		case <-time.After(interval):
		}
	}
}

// mountRows asks every live server. One that ends meanwhile is left out.
func mountRows() ([]mountRow, error) {
	clients, err := fusefs.Live()
	rows := []mountRow{} // an empty list in JSON, not null
	for _, c := range clients {
		if row, err := rowOf(c); err == nil {
			rows = append(rows, row)
		}
		c.Close()
	}
	if len(rows) == 0 {
		return rows, err
	}
	return rows, nil
}

func rowOf(c *fusefs.Client) (mountRow, error) {
	row := mountRow{Info: c.Info}
	layers, err := c.Layers()
	if err != nil {
		return row, err
	}
	for _, l := range layers {
		if l.Role == fusefs.RoleUpper {
			row.Upper = l.Path
		} else {
			row.Lowers++
		}
	}
	row.Counters, err = c.Counters()
	return row, err
}

func printMounts(out io.Writer, rows []mountRow) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "TARGET\tPID\tUP\tLOWERS\tUPPER\tREQUESTS\tERRORS\tREAD\tWRITTEN\tCOPY-UPS\tNODES")
	for _, r := range rows {
		c := r.Counters
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%s\t%d\t%d\t%s\t%s\t%d\t%d\n",
			r.Target, r.PID, age(time.Since(r.Started)), r.Lowers, dash(r.Upper),
			c.Total(), c.Errors, bytesText(c.BytesRead), bytesText(c.BytesWritten), c.CopyUps, c.Nodes)
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// age is a span of time in its largest unit that is not zero.
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", max(0, d/time.Second))
}

// bytesText is a number of bytes for people, in powers of 1024.
func bytesText(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d", n)
	}
	f, unit := float64(n)/1024, 0
	for f >= 1024 && unit < 4 {
		f /= 1024
		unit++
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + "KMGTP"[unit:unit+1]
}
