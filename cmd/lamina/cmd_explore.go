package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/cmd/lamina/internal/explore"
)

func newExplore() *cobra.Command {
	var f stackFlags
	cmd := &cobra.Command{
		Use:   "explore [STACK]",
		Short: "Browse the layers of a stack on the terminal",
		Long: `Browse a stack: its layers on the left, on the right the tree with the chosen layer
on top, and what that layer added (A), changed (M) and removed (D). The last line
shows the keys. It needs 80 by 24 characters, and no colours: NO_COLOR is heeded.

` + stackHelp,
		Example: `  lamina explore image.tar
  lamina explore /mnt/x
  lamina explore --lower base --upper changes`,
		Args: args(0, 1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, rest, err := f.open(cmd, args)
			if err != nil {
				return errShown(err)
			}
			defer s.Close()
			if len(rest) > 0 {
				return usageError{fmt.Errorf("explore takes one stack, got %q", rest)}
			}
			if !isTerminal(os.Stdout) || !isTerminal(os.Stdin) {
				return usageError{fmt.Errorf("explore needs a terminal; for text there are: lamina inspect tree, log, blame")}
			}
			ctx, stop := interruptible()
			defer stop()
			return errShown(explore.Run(ctx, s))
		},
	}
	f.add(cmd)
	return cmd
}
