package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the manual pages into a directory",
		Example: `  lamina man /usr/local/share/man/man1 && man lamina-mount`,
		Args:    args(1, 1, "DIR, where the pages go"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return writeManual(cmd.Root(), args[0])
		},
	}
}

// writeManual writes one page per command.
func writeManual(cmd *cobra.Command, dir string) error {
	path := filepath.Join(dir, manName(cmd)+".1")
	if err := os.WriteFile(path, manPage(cmd), 0o644); err != nil {
		return fmt.Errorf("write the manual: %w", err)
	}
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() {
			continue
		}
		if err := writeManual(sub, dir); err != nil {
			return err
		}
	}
	return nil
}
