package main

import (
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
	return cmd
}
