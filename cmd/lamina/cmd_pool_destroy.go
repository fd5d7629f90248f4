package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
)

func newPoolDestroy() *cobra.Command {
	var f poolFlags
	var force bool
	cmd := &cobra.Command{
		Use:   "destroy [--force] POOL",
		Short: "Remove a pool and all that is in it",
		Long: `Remove a pool: its metadata, its data files in its directory, and its labels on
other devices, which are free for other use then. Other files are left alone.

A pool that has volumes, or that is damaged so that it cannot be asked for them, is
removed with --force only.`,
		Example: `  lamina pool destroy tank
  lamina pool destroy --force old`,
		Args:              args(1, 1, "POOL"),
		ValidArgsFunction: f.completePool,
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			p, err := f.locate(args[0])
			if err != nil {
				return err
			}
			if !force {
				if err := isEmpty(ctx, p); err != nil {
					return err
				}
			}
			if err := p.Stopped(ctx, force); err != nil {
				return err
			}
			return p.Destroy(force)
		},
	}
	f.add(cmd)
	cmd.Flags().MarkHidden("json")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also when it has volumes, is in use or cannot be opened")
	return cmd
}

// isEmpty refuses a pool that has something to lose.
func isEmpty(ctx context.Context, p poolserver.Place) error {
	c, err := p.Connect(ctx, serveCommand(p))
	if err != nil {
		return fmt.Errorf("%w; to destroy a pool that cannot be opened use --force", err)
	}
	defer c.Close()
	volumes, err := poolserver.VolumeList.Call(ctx, c, poolserver.None{})
	switch {
	case err != nil:
		return err
	case len(volumes) > 0:
		return fmt.Errorf("pool %s has %d volumes and snapshots, which would be lost: use --force", p.Name(), len(volumes))
	}
	return nil
}
