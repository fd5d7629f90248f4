package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/blockpool"
)

// repairRun is what a repair is asked for, and what came of it.
type repairRun struct {
	Plan   *blockpool.RepairPlan `json:"plan"`
	Report *blockpool.Report     `json:"report,omitempty"` // of the new metadata
}

func newPoolRepair() *cobra.Command {
	var f poolFlags
	var o blockpool.RepairOptions
	var source string
	var dry bool
	cmd := &cobra.Command{
		Use:   "repair [--dry-run] [--force] POOL",
		Short: "Make the metadata of a damaged pool anew from what is left of it",
		Long: `Find out what of a pool's metadata makes sense: in its replicas, in the state before
the last that they keep, or in single pages of them; and make the metadata anew from
that. What is lost is told first; --dry-run tells it and does no more. The old files
are kept under other names.

A pool whose intent log is gone with its device, or cannot be read, has all that its
transaction groups hold. What was flushed after the last of them is lost when a new
log is made, so that needs to be said: --new-log. The plan tells how much it may be.

It is for pools whose check finds damage, or that cannot be opened. A crash needs no
repair, and leaks are freed by "lamina pool check --free-leaks". The pool's server
must not run; it is stopped.`,
		Example: `  lamina pool repair --dry-run tank
  lamina pool repair tank
  lamina pool repair --new-log tank`,
		Args:              args(1, 1, "POOL"),
		ValidArgsFunction: f.completePool,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			place, err := f.locate(args[0])
			if err != nil {
				return err
			}
			if err := place.Stopped(ctx, false); err != nil {
				return err
			}
			o.Source, o.SearchDevices = blockpool.RepairSource(source), place.Files()
			return f.repair(ctx, cmd, place.Dir, o, dry)
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.BoolVarP(&dry, "dry-run", "n", false, "tell what would be done, and do nothing")
	flags.BoolVarP(&o.Force, "force", "f", false, "go back to a state that is known to be old: what came after it is lost")
	flags.BoolVarP(&o.NewLog, "new-log", "m", false, "make a new intent log in the place of one that cannot be read: what only that one held is lost")
	flags.BoolVar(&o.Data, "data", false, "read every record; one that is damaged becomes a hole")
	flags.StringVar(&source, "from", "", "`SOURCE` is newest, older or pages; the one by which least is lost")
	cmd.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]string{"newest", "older", "pages"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// repair tells what is to be done and, unless dry, does it.
func (f *poolFlags) repair(ctx context.Context, cmd *cobra.Command, dir string, o blockpool.RepairOptions, dry bool) error {
	out := cmd.OutOrStdout()
	plan, err := blockpool.PlanRepair(ctx, dir, o)
	if err != nil {
		return err
	}
	done := repairRun{Plan: plan}
	if !f.json {
		if err := plan.WriteText(out); err != nil {
			return err
		}
	}
	switch {
	case !plan.Needed || dry:
	case plan.Force && !o.Force:
		return errors.New("the repair goes back to an old state: what came after it is lost; use --force")
	case plan.NewLog && !o.NewLog:
		return errors.New("the intent log cannot be read: find its device, or give up what it holds with --new-log")
	default:
		if done.Report, err = plan.Do(ctx); err != nil {
			return err
		}
		if !f.json {
			fmt.Fprintln(out, "repaired")
			if err := done.Report.WriteText(out); err != nil {
				return err
			}
		}
	}
	if f.json {
		err = printJSON(out, done)
	}
	if err == nil && done.Report != nil && done.Report.Damaged() {
		return exitStatus(done.Report.Class.ExitCode())
	}
	return err
}
