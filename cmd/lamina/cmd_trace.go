package main

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/inspect/safename"
)

type traceFlags struct {
	ops    []string
	slower time.Duration
	failed bool
	count  int
	asJSON bool
}

func newTrace() *cobra.Command {
	var f traceFlags
	cmd := &cobra.Command{
		Use:   "trace MNT",
		Short: "Show the operations of a mounted union or dataset as they happen",
		Long: `Show each request that the kernel makes of a mounted union or dataset, how long it
took, and the layer that has the object: of a dataset, itself or the snapshot or
subvolume that was entered. What the kernel answers from its caches makes no
request. Tracing ends with the command; a mount that is not traced pays nothing.`,
		Example: `  lamina trace /mnt/x
  lamina trace --op lookup --slower 1ms /mnt/x`,
		Args:              args(1, 1, "MNT, where it is mounted"),
		ValidArgsFunction: completeMounts,
		RunE: func(cmd *cobra.Command, args []string) error {
			for i := range f.ops {
				f.ops[i] = strings.ToUpper(f.ops[i])
			}
			return withServer(args[0], func(c *fusefs.Client) error { return f.run(cmd, c) })
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.ops, "op", nil, "only these `OPERATIONS`, such as lookup,read")
	flags.DurationVar(&f.slower, "slower", 0, "only what took longer than `TIME`")
	flags.BoolVar(&f.failed, "failed", false, "only what failed")
	flags.IntVarP(&f.count, "count", "n", 0, "end after `N` operations")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

func (f *traceFlags) run(cmd *cobra.Command, c *fusefs.Client) error {
	ctx, stop := interruptible()
	defer stop()
	w := bufio.NewWriter(cmd.OutOrStdout())
	out := newLines(w)
	var last uint64
	shown := 0
	for first := true; ctx.Err() == nil; first = false {
		if first {
			fmt.Fprintf(cmd.ErrOrStderr(), "lamina: tracing %s, ^C ends\n", safename.Terminal(c.Info.Target))
		}
		events, err := c.Trace(last)
		if err != nil {
			return err
		}
		for i := range events {
			e := &events[i]
			if last > 0 && e.Seq > last+1 {
				fmt.Fprintf(cmd.ErrOrStderr(), "lamina: %d operations were too fast to be shown\n", e.Seq-last-1)
			}
			last = e.Seq
			if !f.wants(e) {
				continue
			}
			f.print(out, e)
			if shown++; shown == f.count {
				return w.Flush()
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (f *traceFlags) wants(e *fusefs.TraceEvent) bool {
	return (len(f.ops) == 0 || slices.Contains(f.ops, e.Op)) && e.Took >= f.slower && (!f.failed || e.Errno != 0)
}

func (f *traceFlags) print(out *lineWriter, e *fusefs.TraceEvent) {
	failure := ""
	if e.Errno != 0 {
		failure = e.Errno.Error()
	}
	if f.asJSON {
		out.json(struct {
			Time   time.Time     `json:"time"`
			Op     string        `json:"op"`
			PID    uint32        `json:"pid"`
			UID    uint32        `json:"uid"`
			Path   safename.JSON `json:"path"`
			Layer  safename.JSON `json:"layer"`
			Offset uint64        `json:"offset"`
			Size   uint32        `json:"size"`
			Micros float64       `json:"micros"`
			Error  string        `json:"error,omitempty"`
		}{e.Time, e.Op, e.PID, e.UID, safename.JSON(e.Path), safename.JSON(e.Layer), e.Offset, e.Size, float64(e.Took.Nanoseconds()) / 1000, failure})
		return
	}
	what := ""
	if e.Size > 0 {
		what = fmt.Sprintf("  %d at %d", e.Size, e.Offset)
	}
	layer := "-"
	if len(e.Layer) > 0 {
		layer = safename.Terminal(string(e.Layer))
	}
	if failure != "" {
		failure = "  " + failure
	}
	out.text("%s  %9.1fµs  %-11s  %7d  %s  [%s]%s%s\n", e.Time.Format("15:04:05.000"), float64(e.Took.Nanoseconds())/1000,
		e.Op, e.PID, safename.Terminal(string(e.Path)), layer, what, failure)
}
