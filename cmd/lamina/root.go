package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/mountopt"
)

// newRoot returns the command with all its verbs.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "lamina",
		Short: "Mount stacks of layers, and keep pools of thin volumes",
		Long: `Lamina mounts a stack of directories as one tree. The lower layers stay as
they are; all changes go to the upper layer. It also keeps pools of volumes that
take space when they are written and share what their snapshots have. Ordinary
users can do both.

Called as fuse-overlayfs, or with -o and no verb, it takes the command line of
fuse-overlayfs.

It exits with 0 when all is done, 1 when it failed, 2 when the command line was
wrong, and 3 when doctor finds no way to mount.`,
		Example: `  lamina mount --lower base --lower app --upper changes --work .work /mnt/x
  lamina -o lowerdir=app:base,upperdir=changes,workdir=.work /mnt/x
  lamina umount /mnt/x
  lamina pool create --size 10G tank && lamina volume create --size 100G tank data`,
		SilenceErrors: true,

		SuggestionsMinimumDistance: 2,
		SilenceUsage:               true,
		Args:                       unknownVerb,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Version:                    version(),
	}
	root.SetVersionTemplate("lamina version {{.Version}}\n")
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see: %s --help", err, cmd.CommandPath())}
	})
	root.AddCommand(
		newMount(), newUmount(), newPs(), newStat(), newBranch(),
		newImage(), newLayer(), newInfo(), newDf(), newBench(), newGC(), newCheck(),
		newInspect(), newExplore(), newTrace(),
		newPool(), newVolume(), newDataset(), newSubvolume(),
		newDoctor(), newVersion(), newCompletion(), newMan(), newOptions(),
	)
	return root
}

// execute runs the command line and returns the exit status.
func execute(root *cobra.Command) int {
	err := root.Execute()
	if err == nil {
		return exitOK
	}
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	complain("lamina", err)
	return statusOf(err)
}

// statusOf tells a wrong command line from a failure.
func statusOf(err error) int {
	var usage usageError
	var option *mountopt.Error
	if errors.As(err, &usage) || errors.As(err, &option) {
		return exitUsage
	}
	return exitFailure
}

// A usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// An exitStatus ends the program without a message: what there was to say has
// been printed.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// unknownVerb refuses what follows the program's name and is no verb.
func unknownVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	near := ""
	if words := cmd.SuggestionsFor(args[0]); len(words) > 0 {
		near = "; did you mean " + strings.Join(words, " or ") + "?"
	}
	return usageError{fmt.Errorf("no such command: %s%s; see: %s --help", args[0], near, cmd.CommandPath())}
}

// args makes a check of the number of arguments that names what is missing.
func args(least, most int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usageError{fmt.Errorf("%s needs %s; see: %s --help", cmd.Name(), names, cmd.CommandPath())}
		case most >= 0 && len(args) > most:
			return usageError{fmt.Errorf("%s takes %s and nothing after it, got %q; see: %s --help", cmd.Name(), names, args[most:], cmd.CommandPath())}
		}
		return nil
	}
}

// printJSON writes one indented value.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// isTerminal reports whether a person watches f.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// completeMounts offers the mounts that are served now as first argument.
func completeMounts(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	clients, _ := fusefs.Live() // a completion has nowhere to report to
	var targets []string
	for _, c := range clients {
		targets = append(targets, c.Info.Target)
		c.Close()
	}
	return slices.Compact(targets), cobra.ShellCompDirectiveNoFileComp
}
