package main

import (
	"github.com/spf13/cobra"
)

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print the completion script for a shell",
		Long: `Print a script that makes a shell complete lamina's verbs, flags, mount options
and mounts.`,
		Example: `  lamina completion bash > /etc/bash_completion.d/lamina
  lamina completion zsh > "${fpath[1]}/_lamina"
  lamina completion fish > ~/.config/fish/completions/lamina.fish`,
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      cobra.MatchAll(args(1, 1, "the name of a shell: bash, zsh or fish"), oneOfShells),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			default:
				return root.GenFishCompletion(out, true)
			}
		},
	}
}

func oneOfShells(cmd *cobra.Command, args []string) error {
	if err := cobra.OnlyValidArgs(cmd, args); err != nil {
		return usageError{err}
	}
	return nil
}
