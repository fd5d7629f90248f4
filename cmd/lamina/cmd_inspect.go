package main

import (
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newInspect() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect",
		Short: "Look inside of layers: what came from where, what changed, what is wasted",
		Long:  "Look inside of layers and stacks of them.\n\n" + stackHelp,
		Example: `  lamina inspect which /mnt/x /etc/passwd
  lamina inspect blame --lower base --lower app --upper changes /etc
  lamina inspect log image.tar /usr/bin
  lamina inspect diff image.tar#3 image.tar#4
  lamina inspect waste --min-efficiency 0.9 image.tar
  lamina inspect cat image.tar /etc/os-release`,
		Args: unknownVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newInspectWhich(), newInspectBlame(), newInspectLog(), newInspectTree(), newInspectFind(),
		newInspectCat(), newInspectStat(), newInspectDiff(), newInspectWaste(),
		newInspectReport(), newInspectCheck(), newInspectConvert())
	for _, c := range cmd.Commands() {
		run := c.RunE
		c.RunE = func(cmd *cobra.Command, args []string) error {
			collectSeldom()
			return run(cmd, args)
		}
	}
	return cmd
}

// collectSeldom spares the collector work: little lives long here, so that it would
// run for each few thousand files.
func collectSeldom() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}
