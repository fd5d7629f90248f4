package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
)

func newDataset() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "dataset",
		Aliases: []string{"ds"},
		Short:   "Make, mount and snapshot the filesystems of a pool",
		Long: `A dataset is a filesystem in a pool, called POOL/NAME. It takes space where it is
written, and shares what it has with its snapshots, POOL/NAME@SNAPSHOT, and clones.
None depends on another: they can be removed in any order. Datasets below a dataset
inherit its properties and count for its quota, as in zfs.

POOL is a name below --root; lamina pool create --size SIZE POOL makes one. What can
be set tells: lamina dataset get --help.`,
		Example: `  lamina dataset create tank/home --mount ~/x
  lamina dataset set compression=zstd tank/home
  lamina dataset snapshot tank/home@monday && ls ~/x/.lamina/snapshot/monday
  lamina dataset diff tank/home@monday tank/home`,
		Args: unknownVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newDatasetCreate(), newDatasetList(), newDatasetSnapshot(), newDatasetClone(), newDatasetPromote(),
		newDatasetRollback(), newDatasetDestroy(), newDatasetRename(), newDatasetGet(), newDatasetSet(),
		newDatasetInherit(), newDatasetMount(), newDatasetUmount(), newDatasetDiff(), newDatasetSend(), newDatasetReceive(),
	)
	return cmd
}

// addProperties gives a command the flag -o PROPERTY=VALUE.
func addProperties(cmd *cobra.Command, p *properties, what string) {
	cmd.Flags().VarP(p, "option", "o", what)
	cmd.RegisterFlagCompletionFunc("option", completeAssignment)
}

func newDatasetCreate() *cobra.Command {
	var f poolFlags
	var a poolserver.CreateDataset
	var set properties
	var target string
	var poolSize byteSize
	cmd := &cobra.Command{
		Use:   "create [-p] [-o PROPERTY=VALUE]... [--mount DIR] POOL/DATASET",
		Short: "Make a dataset",
		Long: `Make an empty dataset. The one above it must be there; -p makes it, and is content
when the dataset itself is there already.

--mount mounts it at once on DIR, which is made if need be, and keeps DIR as its
mountpoint. Without it, it is mounted where the property mountpoint says, if it says
anything. With --pool-size the pool is made too, of one file, if there is none.`,
		Example: `  lamina dataset create tank/home --mount ~/x
  lamina dataset create -o compression=zstd -o quota=10G tank/home/ann
  lamina dataset create -p tank/a/b/c
  lamina dataset create --pool-size 20G tank/home --mount ~/x`,
		Args: args(1, 1, "POOL/DATASET"),
	}
	onDataset(cmd, &f, 0, func(ctx context.Context, c *poolserver.Client, pool string, names, _ []string) error {
		a.Name, a.Properties = names[0], set
		d, err := poolserver.DatasetCreate.Call(ctx, c, a)
		if err != nil {
			return inPool(pool, err)
		}
		m, err := mountNew(ctx, c, d)
		if err != nil {
			return fmt.Errorf("%s is made, but not mounted: %w", joinDataset(pool, names[0]), err)
		}
		if !f.json {
			return nil
		}
		out := datasetJSON(pool, d)
		out.Target = m.Target
		return printJSON(cmd.OutOrStdout(), out)
	})
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if pool, name, err := splitDataset(args[0]); err == nil && (name == "" || strings.Contains(name, "@")) {
			return usageError{fmt.Errorf("%s is no name of a dataset: take %s/NAME", args[0], pool)}
		}
		if target != "" {
			dir, err := filepath.Abs(target)
			if err == nil {
				err = set.Set("mountpoint=" + dir)
			}
			if err != nil {
				return usageError{err}
			}
		}
		if poolSize > 0 {
			if err := f.makePool(cmd, args[0], poolSize); err != nil {
				return err
			}
		}
		return run(cmd, args)
	}
	addProperties(cmd, &set, "begin with `PROPERTY=VALUE`; may be repeated")
	cmd.Flags().StringVarP(&target, "mount", "m", "", "mount it on `DIR`, now and later")
	cmd.Flags().BoolVarP(&a.Parents, "parents", "p", false, "make those above it too")
	cmd.Flags().Var(&poolSize, "pool-size", "make the pool, of one file of `SIZE`, if there is none")
	cmd.MarkFlagDirname("mount")
	return cmd
}

// makePool makes the pool of a dataset unless there is one.
func (f *poolFlags) makePool(cmd *cobra.Command, full string, size byteSize) error {
	pool, _, err := splitDataset(full)
	if err != nil {
		return err
	}
	if _, err := f.locate(pool); err == nil {
		return nil
	}
	create := createFlags{poolFlags: poolFlags{root: f.root}, size: size, profile: "single"}
	return create.run(cmd, pool, nil)
}

// inPool says in which pool something went wrong: the pool's own words are without it.
func inPool(pool string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pool %s: %w", pool, err)
}

func newDatasetSnapshot() *cobra.Command {
	var f poolFlags
	var a poolserver.SnapshotDatasets
	var set properties
	cmd := &cobra.Command{
		Use:     "snapshot [-r] [-o PROPERTY=VALUE]... POOL/DATASET@NAME...",
		Aliases: []string{"snap"},
		Short:   "Keep datasets as they are now",
		Long: `Keep what datasets have now as snapshots: all that are named, and with -r all below
them, of one and the same moment. What programs have written into a mounted dataset
is in it, also what the kernel has not handed over yet.

A snapshot of a mounted dataset is to be seen at .lamina/snapshot/NAME in it.`,
		Example: `  lamina dataset snapshot tank/home@monday
  lamina dataset snapshot -r tank/home@monday
  lamina dataset snapshot -o com.example:why=release tank/db@1.2 tank/www@1.2`,
		Args: args(1, -1, "at least one POOL/DATASET@NAME"),
	}
	onDataset(cmd, &f, 0, func(ctx context.Context, c *poolserver.Client, pool string, names, _ []string) error {
		a.Names, a.Properties = names, set
		if err := syncMounts(ctx, c, a.Names, a.Recursive); err != nil {
			return err
		}
		made, err := poolserver.DatasetSnapshot.Call(ctx, c, a)
		if err != nil || !f.json {
			return inPool(pool, err)
		}
		for i := range made {
			made[i] = joinDataset(pool, made[i])
		}
		return printJSON(cmd.OutOrStdout(), made)
	})
	cmd.Flags().BoolVarP(&a.Recursive, "recursive", "r", false, "also of all below")
	addProperties(cmd, &set, "give the snapshots `PROPERTY=VALUE`; may be repeated")
	return cmd
}

func newDatasetClone() *cobra.Command {
	var f poolFlags
	var a poolserver.CloneDataset
	var set properties
	cmd := &cobra.Command{
		Use:   "clone [-p] [-o PROPERTY=VALUE]... POOL/FROM[@SNAPSHOT] POOL/DATASET",
		Short: "Make a dataset with what a snapshot or another dataset has",
		Long: `Make a dataset with what a snapshot, or another dataset as it is now, has. The two
share what neither changes and depend on each other in nothing.`,
		Example: `  lamina dataset clone tank/base@clean tank/work
  lamina dataset clone -o mountpoint=/srv/work tank/base@clean tank/work`,
		Args: args(2, 2, "POOL/FROM, a snapshot or dataset, and POOL/DATASET, the new one"),
	}
	onDataset(cmd, &f, 0, func(ctx context.Context, c *poolserver.Client, pool string, names, _ []string) error {
		a.From, a.To, a.Properties = names[0], names[1], set
		if !strings.Contains(a.From, "@") {
			if err := syncMounts(ctx, c, names[:1], false); err != nil {
				return err
			}
		}
		d, err := poolserver.DatasetClone.Call(ctx, c, a)
		if err != nil {
			return inPool(pool, err)
		}
		if _, err := mountNew(ctx, c, d); err != nil {
			return fmt.Errorf("%s is made, but not mounted: %w", joinDataset(pool, names[1]), err)
		}
		return f.print(cmd, datasetJSON(pool, d))
	})
	cmd.Flags().BoolVarP(&a.Parents, "parents", "p", false, "make those above it too")
	addProperties(cmd, &set, "begin with `PROPERTY=VALUE`; may be repeated")
	return cmd
}

func newDatasetPromote() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:   "promote POOL/DATASET",
		Short: "Make a clone what its origin was",
		Long: `Give a clone the snapshots of the dataset that it comes from, up to the one that it
was cloned from. Only names change: in this pool a clone does not depend on its
origin, so it is not needed before the origin is destroyed.`,
		Example: `  lamina dataset promote tank/work`,
		Args:    args(1, 1, "POOL/DATASET"),
	}
	return onDataset(cmd, &f, 0, func(ctx context.Context, c *poolserver.Client, pool string, names, _ []string) error {
		_, err := poolserver.VolumePromote.Call(ctx, c, poolserver.Name{Name: names[0]})
		return inPool(pool, err)
	})
}

func newDatasetRename() *cobra.Command {
	var f poolFlags
	var a poolserver.RenameDataset
	cmd := &cobra.Command{
		Use:     "rename [-p] [-r] POOL/OLD POOL/NEW",
		Aliases: []string{"mv"},
		Short:   "Give a dataset or snapshot another name",
		Long: `Give a dataset another name; its snapshots and all that lies below it move along. Or
give a snapshot another one: the new name may be @NAME alone, and with -r snapshots
of that name of all below the dataset are renamed too.`,
		Example: `  lamina dataset rename tank/home/ann tank/home/anna
  lamina dataset rename -r tank/home@yesterday @monday`,
		Args: args(2, 2, "POOL/OLD and POOL/NEW"),
	}
	onDataset(cmd, &f, 0, func(ctx context.Context, c *poolserver.Client, pool string, names, _ []string) error {
		a.From, a.To = names[0], names[1]
		_, err := poolserver.DatasetRename.Call(ctx, c, a)
		return inPool(pool, err)
	})
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if strings.HasPrefix(args[1], "@") {
			args[1] = volumeOf(args[0]) + args[1]
		}
		return run(cmd, args)
	}
	cmd.Flags().BoolVarP(&a.Parents, "parents", "p", false, "make those above the new name")
	cmd.Flags().BoolVarP(&a.Recursive, "recursive", "r", false, "snapshots of all below, too")
	return cmd
}

// makeTarget makes the directory that something is to be mounted on.
func makeTarget(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the mountpoint: %w; mount it elsewhere: lamina dataset set mountpoint=DIR, or lamina dataset mount DATASET DIR", err)
	}
	return nil
}
