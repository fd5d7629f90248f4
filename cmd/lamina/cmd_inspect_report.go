package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/fs/inspect"
)

func newInspectReport() *cobra.Command {
	var f wasteFlags
	var out string
	f.from = 16 << 10
	cmd := &cobra.Command{
		Use:   "report [STACK] -o FILE",
		Short: "Write a page about a stack: layers, sizes, waste",
		Long: `Write one HTML file that needs no network: the layers as a bar, what takes the space
as a map, hidden and duplicate files, and what each layer did. Here -o is the page;
mount options that name layers are STACK, or --options.

` + stackHelp,
		Example: `  lamina inspect report image.tar -o report.html`,
		Args:    args(0, 1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, rest, err := f.open(cmd, args)
			if err != nil {
				return errShown(err)
			}
			defer s.Close()
			if len(rest) > 0 {
				return usageError{fmt.Errorf("report takes one stack, got %q", rest)}
			}
			r := inspect.NewReport(s)
			w, t, err := countWaste(cmd, s, inspect.WasteOptions{Largest: 50, DuplicatesFrom: f.duplicatesFrom(), Visit: r.Visit})
			if err != nil {
				return errShown(err)
			}
			if err := writeReport(out, r, w); err != nil {
				return err
			}
			return t.err()
		},
	}
	f.stackFlags.addWith(cmd, "") // -o is the page
	cmd.Flags().StringVarP(&out, "output", "o", "", "write the page to `FILE`, - for stdout")
	cmd.Flags().Var(&f.from, "duplicates-from", "compare the contents of files from `SIZE` on")
	cmd.Flags().BoolVar(&f.noDuplicates, "no-duplicates", false, "compare no contents")
	cmd.MarkFlagRequired("output")
	cmd.MarkFlagFilename("output", "html")
	return cmd
}

func writeReport(path string, r *inspect.Report, w *inspect.Waste) error {
	file := os.Stdout
	if path != "-" {
		var err error
		if file, err = createFile(path); err != nil {
			return err
		}
		defer file.Close()
	}
	b := bufio.NewWriter(file)
	err := errors.Join(r.Write(b, w, version()), b.Flush())
	if path != "-" {
		err = errors.Join(err, file.Close())
	}
	return err
}
