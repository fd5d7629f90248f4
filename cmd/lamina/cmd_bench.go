package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/views"
	"github.com/laminafs/lamina/backends/driverbench"
	"github.com/laminafs/lamina/backends/drivers"
)

func newBench() *cobra.Command {
	return group("bench", "Measure what this machine is fast at", "Measure what this machine is fast at.", "  lamina bench drivers --html drivers.html", newBenchDrivers())
}

func newBenchDrivers() *cobra.Command {
	var names, engines, options []string
	var dir, page string
	var quick, asJSON bool
	var big byteSize
	rounds := 3
	cmd := &cobra.Command{
		Use:   "drivers",
		Short: "Compare the storage drivers on this machine, and say which suits which use",
		Long: `Compare the storage drivers: all that can be had here, with each of their engines, do
the same work in turn, round after round. Images and containers are made in a
directory of their own below --dir, on the filesystem that is to be measured, and
removed again. The whole takes some minutes for each driver, and about 2 GB for each;
--quick shows in seconds that all of them work.

Root measures what others cannot: caches that are empty, and kernel engines. btrfs gets
a filesystem in a file when --dir is not on one.`,
		Example: `  lamina bench drivers
  sudo lamina bench drivers --drivers overlay2,btrfs --rounds 5 --html drivers.html
  lamina bench drivers --quick --json | jq '.rows[0]'`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible()
			defer stop()
			cfg := driverbench.Config{
				Dir: dir, Drivers: names, Options: options, Rounds: rounds, Sizes: driverbench.FullSizes,
				Servers: views.Background(serveView), PoolServer: poolCommand,
			}
			for _, e := range engines {
				cfg.Engines = append(cfg.Engines, driver.Engine(e))
			}
			if quick {
				cfg.Sizes = driverbench.QuickSizes
			}
			if big > 0 {
				cfg.Sizes.Big = int64(big)
			}
			return runBench(ctx, cmd, cfg, page, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&names, "drivers", nil, "compare these `DRIVERS` (default all)")
	flags.StringSliceVar(&engines, "engines", nil, "compare these `ENGINES`: native, userspace (default both)")
	flags.StringArrayVar(&options, "driver-option", nil, "`DRIVER.NAME=VALUE` is an option of a driver; repeat it for more")
	flags.StringVar(&dir, "dir", "/var/tmp", "make images and containers below `DIR`")
	flags.StringVar(&page, "html", "", "write a page with charts to `FILE` too")
	flags.IntVar(&rounds, "rounds", rounds, "do everything `N` times")
	flags.BoolVar(&quick, "quick", false, "small files and few layers")
	flags.Var(&big, "big", "the largest file of the image has `SIZE` (default 1G)")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.MarkFlagDirname("dir")
	cmd.MarkFlagFilename("html", "html")
	cmd.RegisterFlagCompletionFunc("drivers", cobra.FixedCompletions(drivers.Names(), cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("engines", cobra.FixedCompletions([]string{"native", "userspace"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func runBench(ctx context.Context, cmd *cobra.Command, cfg driverbench.Config, page string, asJSON bool) error {
	if cfg.Rounds < 1 {
		return usageError{fmt.Errorf("--rounds %d: at least 1", cfg.Rounds)}
	}
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return err
	}
	bar := &progressBar{out: os.Stderr, what: "bench", started: time.Now()}
	if isTerminal(os.Stderr) {
		cfg.Tell = func(what string) { bar.show("bench: " + what) }
	}
	report, err := driverbench.Run(ctx, cfg)
	bar.clear()
	if report == nil || len(report.Rows) == 0 {
		return err
	}
	if page != "" {
		err = errors.Join(err, toFile(page, func(f *os.File) error { return report.HTML(f) }))
	}
	if asJSON {
		err = errors.Join(err, printJSON(cmd.OutOrStdout(), report))
	} else {
		fmt.Fprint(cmd.OutOrStdout(), report.Text())
	}
	if err == nil && len(report.Problems) > 0 {
		err = fmt.Errorf("%d measurements failed", len(report.Problems))
	}
	return err
}
