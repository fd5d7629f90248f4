package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/store"
)

func newLayerMount() *cobra.Command {
	var f storeFlags
	var o driver.MountOptions
	cmd := &cobra.Command{
		Use:   "mount LAYER [TARGET]",
		Short: "Mount a layer and print where",
		Long: `Mount a layer on the directory TARGET, or on the driver's own place, and print where
it is. An active layer can be written to, and is mounted once at a time; committed ones
are read-only.

Outside of a user namespace an ordinary user sees all files as owned by himself, and
what he makes is root's in the layer; in one (unshare -Ur) owners are what they are.`,
		Example: `  cd "$(lamina layer mount work)"
  lamina layer mount --read-only -o noatime work /mnt/work`,
		Args: args(1, 2, "LAYER and at most a TARGET"),
	}
	onStore(cmd, &f, func(ctx context.Context, s *store.Store, args []string) error {
		l, err := s.Layer(args[0])
		if err != nil {
			return err
		}
		o.Target = arg(args, 1)
		return mountLayer(ctx, cmd, &f, s, l, o)
	})
	cmd.Flags().BoolVar(&o.ReadOnly, "read-only", false, "mount an active layer read-only")
	cmd.Flags().StringArrayVarP(&o.Options, "options", "o", nil, "further mount `OPTIONS` joined by commas; see: lamina help options")
	return cmd
}

// mountLayer mounts and prints where.
func mountLayer(ctx context.Context, cmd *cobra.Command, f *storeFlags, s *store.Store, l store.Layer, o driver.MountOptions) error {
	path, err := s.Driver.Mount(ctx, l.ID, o)
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), struct {
			Layer  string        `json:"layer"`
			Path   string        `json:"path"`
			Driver string        `json:"driver"`
			Engine driver.Choice `json:"engine"`
		}{l.Name, path, s.Driver.Name(), s.Driver.Engine()})
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), path)
	return err
}

func newLayerUmount() *cobra.Command {
	var f storeFlags
	var lazy bool
	cmd := &cobra.Command{
		Use: "umount LAYER [TARGET]", Aliases: []string{"unmount"}, Short: "Unmount a layer from TARGET, or from everywhere",
		Example: "  lamina layer umount work", Args: args(1, 2, "LAYER and at most a TARGET"),
	}
	onStore(cmd, &f, func(ctx context.Context, s *store.Store, args []string) error {
		l, err := s.Layer(args[0])
		if err != nil {
			return err
		}
		return s.Driver.Unmount(ctx, l.ID, arg(args, 1), lazy)
	})
	cmd.Flags().BoolVarP(&lazy, "lazy", "l", false, "also when it is busy")
	return cmd
}
