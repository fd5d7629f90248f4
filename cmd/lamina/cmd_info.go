package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/store"
)

func newInfo() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:     "info",
		Short:   "Show which driver and engine keep the layers, and why",
		Long:    "Show which driver and engine keep the layers, and why that engine.\n" + storeHelp,
		Example: "  lamina info\n  lamina info --driver vfs --json",
		Args:    args(0, 0, "no arguments"),
	}
	return onStore(cmd, &f, func(ctx context.Context, s *store.Store, _ []string) error {
		status, err := s.Driver.Status(ctx)
		if err != nil {
			return err
		}
		layers, err := s.Layers()
		if err != nil {
			return err
		}
		images, err := s.Images()
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), struct {
				Root         string              `json:"root"`
				Driver       string              `json:"driver"`
				Engine       driver.Choice       `json:"engine"`
				Capabilities driver.Capabilities `json:"capabilities"`
				Status       []driver.Field      `json:"status"`
				Images       int                 `json:"images"`
				Layers       int                 `json:"layers"`
				Additional   []string            `json:"additional,omitempty"`
			}{s.Root(), s.Driver.Name(), s.Driver.Engine(), s.Driver.Capabilities(), status, len(images), len(layers), s.Additional()})
		}
		out := cmd.OutOrStdout()
		fmt.Fprintf(out, "Store: %s\nImages: %d\nLayers: %d\nStorage Driver: %s\n", s.Root(), len(images), len(layers), s.Driver.Name())
		for _, root := range s.Additional() {
			fmt.Fprintf(out, "Additional Store: %s\n", root)
		}
		for _, field := range status {
			fmt.Fprintf(out, "  %s: %s\n", field.Name, field.Value)
		}
		return nil
	})
}
