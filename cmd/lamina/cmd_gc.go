package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/backends/store"
)

func newGC() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove layers of images that nothing needs, and leftovers of crashes",
		Long: `Remove the layers of images that no image, no other layer, no lease and no mount needs any
more, and what crashes have left in the driver's directory. Layers that were made by
lamina layer create stay until they are removed.`,
		Example: "  lamina gc", Args: args(0, 0, "no arguments"),
	}
	return onStore(cmd, &f, func(ctx context.Context, s *store.Store, _ []string) error {
		bar, end := newProgressBar("gc")
		done := int64(0)
		c, err := s.GC(ctx, func(layer string) {
			if done++; bar != nil {
				bar(poolserver.Progress{Text: label(layer), Done: done})
			}
		})
		end()
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), c)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d layers removed, %s; %d leftovers swept\n", len(c.Layers), bytesText(uint64(c.Bytes)), len(c.Swept))
		return nil
	})
}
