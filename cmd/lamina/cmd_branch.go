package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/fs/fusefs"
)

func newBranch() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "branch",
		Short: "Change the layers of a union while it is mounted",
		Long: `Add lower layers to a mounted union, take them out, or switch it between
read-only and writable. Files that are open keep what they had.`,
		Example: `  lamina branch list /mnt/x
  lamina branch add /mnt/x hotfix
  lamina branch del /mnt/x hotfix
  lamina branch mod /mnt/x ro`,
		Args: unknownVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBranchAdd(), newBranchDel(), newBranchList(), newBranchMod())
	return cmd
}

func newBranchAdd() *cobra.Command {
	var index int
	cmd := &cobra.Command{
		Use:   "add [--index N] MNT DIR",
		Short: "Add a lower layer",
		Example: `  lamina branch add /mnt/x hotfix             # on top of the other lowers
  lamina branch add --index -1 /mnt/x base   # below them`,
		Args:              args(2, 2, "MNT, where the union is mounted, and DIR, the layer to add"),
		ValidArgsFunction: completeMounts,
		RunE: func(_ *cobra.Command, args []string) error {
			return withServer(args[0], func(c *fusefs.Client) error { return c.AddLower(index, args[1]) })
		},
	}
	cmd.Flags().IntVar(&index, "index", 0, "place `N` among the lowers: 0 is the top, -1 the bottom")
	return cmd
}

func newBranchDel() *cobra.Command {
	return &cobra.Command{
		Use:               "del MNT DIR",
		Aliases:           []string{"rm"},
		Short:             "Take a lower layer out",
		Example:           `  lamina branch del /mnt/x hotfix`,
		Args:              args(2, 2, "MNT, where the union is mounted, and DIR, the layer to take out"),
		ValidArgsFunction: completeMounts,
		RunE: func(_ *cobra.Command, args []string) error {
			return withServer(args[0], func(c *fusefs.Client) error { return c.DelLower(args[1]) })
		},
	}
}

func newBranchList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "list MNT",
		Aliases:           []string{"ls"},
		Short:             "List the layers from the top",
		Example:           `  lamina branch list --json /mnt/x`,
		Args:              args(1, 1, "MNT, where the union is mounted"),
		ValidArgsFunction: completeMounts,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withServer(args[0], func(c *fusefs.Client) error {
				layers, err := c.Layers()
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(cmd.OutOrStdout(), layers)
				}
				printLayers(cmd.OutOrStdout(), layers)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newBranchMod() *cobra.Command {
	return &cobra.Command{
		Use:               "mod MNT ro|rw",
		Short:             "Make a union read-only or writable",
		Example:           `  lamina branch mod /mnt/x ro`,
		Args:              args(2, 2, "MNT, where the union is mounted, and ro or rw"),
		ValidArgsFunction: completeMounts,
		RunE: func(_ *cobra.Command, args []string) error {
			if args[1] != "ro" && args[1] != "rw" {
				return usageError{fmt.Errorf("%q is no state of a union; accepted: ro, rw", args[1])}
			}
			return withServer(args[0], func(c *fusefs.Client) error { return setReadOnly(c, args[1] == "ro") })
		},
	}
}

func withServer(target string, do func(*fusefs.Client) error) error {
	c, err := fusefs.Dial(target)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

func printLayers(w io.Writer, layers []fusefs.LayerInfo) {
	for _, l := range layers {
		place := l.Role
		if l.Role != fusefs.RoleUpper {
			place = fmt.Sprintf("%s %d", l.Role, l.Index)
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  %-12s %-14s %s", place, l.Format, l.Path), " "))
	}
}

// indent moves every line two places to the right.
func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
}
