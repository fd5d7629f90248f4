package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
)

// splitDataset cuts POOL/NAME@SNAPSHOT behind the pool; name is empty when only the
// pool is named.
func splitDataset(full string) (pool, name string, err error) {
	pool, name, _ = strings.Cut(full, "/")
	if p, snap, at := strings.Cut(pool, "@"); at && name == "" {
		return "", "", usageError{fmt.Errorf("%s: a pool has no snapshots: name a dataset of it, such as %s/home@%s", full, p, snap)}
	}
	if pool == "" || pool == "." || pool == ".." || pool == "~" {
		return "", "", usageError{fmt.Errorf("%q is a path: a dataset is called POOL/NAME; of a pool that lies elsewhere give the directory above it as --root", full)}
	}
	return pool, name, nil
}

// joinDataset is the inverse of splitDataset.
func joinDataset(pool, name string) string {
	if name == "" {
		return pool
	}
	return pool + "/" + name
}

// A datasetRun does what a command is for with datasets of one pool, whose names are
// without the pool's.
type datasetRun func(ctx context.Context, c *poolserver.Client, pool string, names []string) error

// onPoolOf runs something with the pool that names have in common.
func (f *poolFlags) onPoolOf(cmd *cobra.Command, full []string, run datasetRun) error {
	pool, names := "", []string(nil)
	for _, n := range full {
		p, name, err := splitDataset(n)
		switch {
		case err != nil:
			return err
		case pool != "" && p != pool:
			return usageError{fmt.Errorf("%s and %s are in two pools: do one after the other", full[0], n)}
		}
		pool, names = p, append(names, name)
	}
	ctx, stop := interruptible()
	defer stop()
	c, err := f.connect(ctx, pool)
	if errors.Is(err, poolserver.ErrNoPool) {
		return fmt.Errorf("%w; make one with: lamina pool create --size 10G %s", err, pool)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	tell, end := newProgressBar(cmd.Name())
	defer end()
	c.Progress = tell
	return run(ctx, c, pool, names)
}

// onDataset completes a command whose arguments are datasets of one pool, from number
// skip on: it gets the common flags and the completion of names.
func onDataset(cmd *cobra.Command, f *poolFlags, skip int, run func(ctx context.Context, c *poolserver.Client, pool string, names, skipped []string) error) *cobra.Command {
	f.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return f.onPoolOf(cmd, args[skip:], func(ctx context.Context, c *poolserver.Client, pool string, names []string) error {
			return run(ctx, c, pool, names, args[:skip])
		})
	}
	if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) < skip {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return f.completeDataset(cmd, args, typed)
		}
	}
	return cmd
}

// completeDataset offers the pools, and the datasets of one that has a server: to press
// a key should not start any.
func (f *poolFlags) completeDataset(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	const noSpace = cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	root, err := f.dir()
	if err != nil {
		return nil, noSpace
	}
	pool, _, named := strings.Cut(typed, "/")
	if !named {
		places, _ := poolserver.List(root) // a completion has nowhere to report to
		var names []string
		for _, p := range places {
			names = append(names, p.Name()+"/")
		}
		return names, noSpace
	}
	p, err := f.locate(pool)
	if err != nil {
		return nil, noSpace
	}
	c, err := p.Dial()
	if err != nil {
		return nil, noSpace
	}
	defer c.Close()
	list, _ := poolserver.DatasetGet.Call(context.Background(), c, poolserver.GetDatasets{Properties: []string{"type"}})
	var names []string
	for _, d := range list {
		if d.Name != "" {
			names = append(names, joinDataset(pool, d.Name))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// properties are NAME=VALUE flags.
type properties map[string]string

// Set implements pflag.Value.
func (p *properties) Set(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return fmt.Errorf("%q is no PROPERTY=VALUE", text)
	}
	if *p == nil {
		*p = properties{}
	}
	if _, twice := (*p)[name]; twice {
		return fmt.Errorf("property %s is given twice", name)
	}
	(*p)[name] = value
	return nil
}

func (p *properties) String() string { return "" }

// Type names the value in help texts.
func (p *properties) Type() string { return "PROPERTY=VALUE" }
