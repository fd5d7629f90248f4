package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/fs/mountopt"
)

// newOptions is a topic of "lamina help", not a command: it does nothing.
func newOptions() *cobra.Command {
	return &cobra.Command{
		Use:   "options",
		Short: "The mount options, for -o and fstab",
		Long: `Mount options are joined by commas. A backslash takes the meaning from a comma or
colon that follows it. Of an option that is repeated, the last one counts.
Options that only other programs read (noauto, x-systemd.automount, _netdev, …)
are skipped.

` + optionList(true),
	}
}

// optionList lists the mount options for people, with what they accept if full.
func optionList(full bool) string {
	var b strings.Builder
	for _, d := range mountopt.Docs() {
		word := d.Name
		if d.Accepts != "" {
			word += "=…"
		}
		fmt.Fprintf(&b, "    %-22s %s\n", word, d.Help)
		if full && d.Accepts != "" {
			fmt.Fprintf(&b, "    %-22s   %s\n", "", d.Accepts)
		}
	}
	return b.String()
}
