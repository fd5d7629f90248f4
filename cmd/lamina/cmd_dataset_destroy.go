package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
)

func newDatasetDestroy() *cobra.Command {
	var f poolFlags
	var a poolserver.DestroyDatasets
	var verbose bool
	cmd := &cobra.Command{
		Use:     "destroy [-r] [-f] [-n] [-v] POOL/DATASET[@SNAPSHOT[%SNAPSHOT][,...]]...",
		Aliases: []string{"rm"},
		Short:   "Remove datasets and snapshots",
		Long: `Remove datasets and snapshots, all that are named in one step. A dataset that has
snapshots, or others below it, is refused with their names; -r removes those too.
Clones stay: in this pool they depend on nothing, so zfs's -R is not needed. What is
mounted is unmounted first; -f also what is in use.

Several snapshots of a dataset may be named behind one @, and A%B is A and B and those
made between the two; either may be left out.

The space comes back in the background. -n only tells what would be removed, and with
-v how much space would come back.`,
		Example: `  lamina dataset destroy tank/home@monday,tuesday
  lamina dataset destroy tank/home@%monday
  lamina dataset destroy -rnv tank/home
  lamina dataset destroy -r tank/home`,
		Args: args(1, -1, "at least one POOL/DATASET or POOL/DATASET@SNAPSHOT"),
	}
	onDataset(cmd, &f, 0, func(ctx context.Context, c *poolserver.Client, pool string, names, _ []string) error {
		for _, name := range names {
			if name == "" {
				return usageError{fmt.Errorf("%s is a pool: see lamina pool destroy", pool)}
			}
			expanded, err := expandSnapshots(ctx, c, pool, name)
			if err != nil {
				return err
			}
			a.Names = append(a.Names, expanded...)
		}
		d, err := poolserver.DatasetDestroy.Call(ctx, c, a)
		if err != nil {
			return inPool(pool, err)
		}
		for i := range d.Names {
			d.Names[i] = joinDataset(pool, d.Names[i])
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), d)
		}
		if verbose || a.DryRun {
			word := "destroyed"
			if a.DryRun {
				word = "would destroy"
			}
			for _, n := range d.Names {
				fmt.Fprintln(cmd.OutOrStdout(), word, n)
			}
		}
		if verbose {
			fmt.Fprintf(cmd.OutOrStdout(), "%s comes back\n", sizeText(d.Freed.Bytes))
		}
		return nil
	})
	cmd.Flags().BoolVarP(&a.Recursive, "recursive", "r", false, "also snapshots, and all below")
	cmd.Flags().BoolVarP(&a.DryRun, "dry-run", "n", false, "only tell what would be removed")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "tell what is removed")
	cmd.Flags().BoolVarP(&a.Force, "force", "f", false, "also what is mounted and in use")
	return cmd
}

// expandSnapshots returns what a name with several snapshots, or a range of them,
// stands for.
func expandSnapshots(ctx context.Context, c *poolserver.Client, pool, name string) ([]string, error) {
	of, snaps, found := strings.Cut(name, "@")
	if !found || !strings.ContainsAny(snaps, ",%") {
		return []string{name}, nil
	}
	var made []string // in their order
	list, err := poolserver.DatasetGet.Call(ctx, c, poolserver.GetDatasets{Names: []string{of}, Depth: 1, Types: []string{"snapshot"}, Properties: []string{"createtxg", "guid"}})
	if err != nil {
		return nil, inPool(pool, err)
	}
	all := make([]datasetOf, 0, len(list))
	for _, d := range list {
		if strings.HasPrefix(d.Name, of+"@") {
			all = append(all, datasetOf{pool, d})
		}
	}
	order := listOrder{keys: []orderKey{{"createtxg", false}}}
	order.sort(all)
	for _, d := range all {
		made = append(made, strings.TrimPrefix(d.Name, of+"@"))
	}
	var names []string
	for part := range strings.SplitSeq(snaps, ",") {
		first, last, isRange := strings.Cut(part, "%")
		if !isRange {
			names = append(names, of+"@"+part)
			continue
		}
		from, to := 0, len(made)-1
		for i, s := range made {
			if s == first {
				from = i
			}
			if s == last {
				to = i
			}
		}
		for _, end := range []string{first, last} {
			if end != "" && (len(made) == 0 || made[from] != end && made[to] != end) {
				return nil, fmt.Errorf("there is no snapshot %s@%s; see: lamina dataset list -t snapshot %s", joinDataset(pool, of), end, joinDataset(pool, of))
			}
		}
		if from > to {
			return nil, fmt.Errorf("%s was made after %s: a range begins with the older one", first, last)
		}
		for _, s := range made[from : to+1] {
			names = append(names, of+"@"+s)
		}
	}
	return names, nil
}

func newDatasetRollback() *cobra.Command {
	var f poolFlags
	var a poolserver.RollbackDataset
	cmd := &cobra.Command{
		Use:   "rollback [-r] POOL/DATASET@SNAPSHOT",
		Short: "Make a dataset what its snapshot is",
		Long: `Make a dataset what its snapshot is. What was written since is lost. Newer snapshots
stay, so one can go forth again; with -r they are destroyed, as zfs does. A mounted
dataset is unmounted meanwhile and mounted again; it is refused while files in it are
open. Datasets below it are left alone.`,
		Example: `  lamina dataset rollback tank/home@monday
  lamina dataset rollback -r tank/home@monday`,
		Args: args(1, 1, "POOL/DATASET@SNAPSHOT"),
	}
	onDataset(cmd, &f, 0, func(ctx context.Context, c *poolserver.Client, pool string, names, _ []string) error {
		a.Snapshot = names[0]
		gone, err := poolserver.DatasetRollback.Call(ctx, c, a)
		if err != nil {
			return inPool(pool, err)
		}
		for i := range gone {
			gone[i] = joinDataset(pool, gone[i])
		}
		return f.print(cmd, struct {
			Destroyed []string `json:"destroyed"`
		}{gone})
	})
	cmd.Flags().BoolVarP(&a.DestroyNewer, "recursive", "r", false, "destroy newer snapshots")
	return cmd
}
