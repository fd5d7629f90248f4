package main

import (
	"context"
	"fmt"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

func newPoolReplica() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replica",
		Short: "Add and remove replicas of a pool's metadata",
		Long: `The metadata of a pool says what lies where, and is kept whole in each of one to
three replicas: files that best lie on different disks. A pool opens with whichever
of them has the newest state, and writes the others anew.`,
		Example: `  lamina pool replica add tank /mnt/other/tank-meta.db
  lamina pool replica remove tank /mnt/other/tank-meta.db`,
		Args: unknownVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPoolReplicaAdd(), newPoolReplicaRemove(), newPoolReplicaRecopy())
	return cmd
}

// replicaOp is what the commands about replicas ask the server for.
type replicaOp = poolserver.Op[poolserver.Replica, []blockpool.ReplicaStatus]

// onReplica completes a command about the replica that its second argument names.
func onReplica(cmd *cobra.Command, op replicaOp) *cobra.Command {
	var f poolFlags
	return onPool(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		a := poolserver.Replica{}
		if len(args) > 0 {
			var err error
			if a.Path, err = filepath.Abs(args[0]); err != nil {
				return err
			}
		}
		replicas, err := op.Call(ctx, c, a)
		if err != nil || f.json {
			return printed[[]blockpool.ReplicaStatus](&f, cmd)(replicas, err)
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
		for _, r := range replicas {
			fmt.Fprintf(w, "%s\t%s\t%s\n", r.Path, r.State, sizeText(r.Size))
		}
		return w.Flush()
	})
}

func newPoolReplicaAdd() *cobra.Command {
	return onReplica(&cobra.Command{
		Use:   "add POOL [FILE]",
		Short: "Make another replica of the metadata",
		Long: `Make another replica of the metadata in FILE, which is not there yet, or in the
pool's directory. It protects from the loss of a disk if it lies on another one. The
pool may be in use; its commits wait while the replica is written.`,
		Example: `  lamina pool replica add tank /mnt/other/tank-meta.db`,
		Args:    args(1, 2, "POOL and, if the replica is to lie elsewhere, FILE"),
	}, poolserver.PoolReplicaAdd)
}

func newPoolReplicaRemove() *cobra.Command {
	return onReplica(&cobra.Command{
		Use:   "remove POOL FILE",
		Short: "Let a replica of the metadata go",
		Long:  `Let a replica of the metadata go and remove its FILE. The last one that works stays.`,
		Example: `  lamina pool status tank     # shows where they are
  lamina pool replica remove tank /mnt/other/tank-meta.db`,
		Args: args(2, 2, "POOL and FILE"),
	}, poolserver.PoolReplicaRemove)
}

func newPoolReplicaRecopy() *cobra.Command {
	return onReplica(&cobra.Command{
		Use:   "recopy POOL FILE",
		Short: "Write a replica of the metadata anew from the others",
		Long: `Write a replica of the metadata anew from the others: one that has failed, once its
disk is well again, or one whose file is to become smaller.`,
		Example: `  lamina pool replica recopy tank /mnt/other/tank-meta.db`,
		Args:    args(2, 2, "POOL and FILE"),
	}, poolserver.PoolReplicaRecopy)
}
