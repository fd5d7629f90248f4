package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/fs/fusefs"
)

func newDoctor() *cobra.Command {
	var asJSON, probe bool
	cmd := &cobra.Command{
		Use:   "doctor [DIR]",
		Short: "Tell what this machine and this user can do, and what mends the rest",
		Long: `Look at what mounting unions needs, and try it out where that leaves no trace:
the FUSE device and its helper, user namespaces, subordinate ids, kernel
overlayfs, limits, and what the filesystem of DIR (default: the working
directory), where layers are to lie, can keep.

Each line that is not "ok" comes with the command that mends it. The exit status
is 0 when this user can mount in one way at least and 3 when not.`,
		Example: `  lamina doctor
  lamina doctor ~/.local/share/containers --json`,
		Args: args(0, 1, "at most one DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if probe {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(fusefs.ProbeNamespace())
			}
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			return runDoctor(cmd.OutOrStdout(), dir, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	// How the command looks from inside of a new namespace: it starts itself.
	cmd.Flags().BoolVar(&probe, "probe-namespace", false, "")
	cmd.Flags().MarkHidden("probe-namespace")
	return cmd
}

func runDoctor(out io.Writer, dir string, asJSON bool) error {
	report := fusefs.Examine(dir, "doctor", "--probe-namespace")
	if asJSON {
		if err := printJSON(out, report); err != nil {
			return err
		}
	} else {
		printReport(out, report)
	}
	if !report.CanMount {
		return exitStatus(exitMissing)
	}
	return nil
}

func printReport(out io.Writer, r fusefs.Report) {
	width := 0
	for _, f := range r.Findings {
		width = max(width, len(f.Name))
	}
	for _, f := range r.Findings {
		fmt.Fprintf(out, "%-8s %-*s  %s\n", "["+f.Status+"]", width, f.Name, f.Detail)
		if f.Fix != "" {
			fmt.Fprintf(out, "%s run: %s\n", strings.Repeat(" ", 8+1+width+1), f.Fix)
		}
	}
	if r.CanMount {
		fmt.Fprintf(out, "\nThis user can mount: %s.\n", strings.Join(r.Ways, ", "))
		return
	}
	fmt.Fprintf(out, "\nThis user cannot mount. Any of the commands above marked for %q opens a way.\n", fusefs.StatusMissing)
	fmt.Fprintln(os.Stderr, "lamina: no way to mount was found")
}
