package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/store"
)

// layerSpace is a layer with what it takes.
type layerSpace struct {
	Name string     `json:"name"`
	Kind store.Kind `json:"kind"`
	driver.Usage
	Images int `json:"images"` // that have it
}

func newDf() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:   "df",
		Short: "Show what layers take, in bytes and in inodes",
		Long: `Show what each layer takes by itself, and how many images have it. LINKS are names of
files that other layers have too: the price of the driver overlay, in entries of
directories.`,
		Example: "  lamina df", Args: args(0, 0, "no arguments"),
	}
	return onStore(cmd, &f, func(ctx context.Context, s *store.Store, _ []string) error {
		layers, err := s.Layers()
		if err != nil {
			return err
		}
		images, err := s.Images()
		if err != nil {
			return err
		}
		of := map[string]int{}
		for _, i := range images {
			for _, name := range i.Layers {
				of[name]++
			}
		}
		list := []layerSpace{}
		var total driver.Usage
		for i := range layers {
			u, err := s.Usage(ctx, &layers[i])
			if err != nil {
				return err
			}
			list = append(list, layerSpace{layers[i].Name, layers[i].Kind, u, of[layers[i].Name]})
			total.Bytes, total.Inodes, total.Links = total.Bytes+u.Bytes, total.Inodes+u.Inodes, total.Links+u.Links
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), struct {
				Layers []layerSpace `json:"layers"`
				Total  driver.Usage `json:"total"`
			}{list, total})
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "LAYER\tKIND\tIMAGES\tSIZE\tINODES\tLINKS")
		for _, l := range list {
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%d\n", label(l.Name), l.Kind, l.Images, bytesText(uint64(l.Bytes)), l.Usage.Inodes, l.Links)
		}
		fmt.Fprintf(w, "total\t\t%d\t%s\t%d\t%d\n", len(images), bytesText(uint64(total.Bytes)), total.Inodes, total.Links)
		return w.Flush()
	})
}
