package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/store"
)

func newCheck() *cobra.Command {
	var f storeFlags
	var repair bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Compare the layer store with what its driver has",
		Long: `Compare the store with its driver: layers that the driver has lost, layers of the driver
without a name, images that lack a layer, parents and states that differ. With
--repair they are made to fit, as each line says. It exits with 1 when something
is left that does not fit.`,
		Example: "  lamina check\n  lamina check --repair", Args: args(0, 0, "no arguments"),
	}
	onStore(cmd, &f, func(ctx context.Context, s *store.Store, _ []string) error {
		problems, err := s.Check(ctx, repair)
		if err != nil {
			return err
		}
		left := 0
		for _, p := range problems {
			if !p.Repaired {
				left++
			}
			if f.json {
				continue
			}
			did := "to repair: "
			if p.Repaired {
				did = "repaired: "
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s (%s%s)\n", p.Object, p.Problem, did, p.Repair)
		}
		if f.json {
			err = printJSON(cmd.OutOrStdout(), append([]store.Problem{}, problems...))
		} else if len(problems) == 0 {
			fmt.Fprintln(cmd.OutOrStdout(), "no problems found")
		}
		if err == nil && left > 0 {
			err = exitStatus(exitFailure)
		}
		return err
	})
	cmd.Flags().BoolVar(&repair, "repair", false, "make them fit")
	return cmd
}
