package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/inspect/safename"
)

// exitRule is the exit status of inspect waste when a rule is broken.
const exitRule = 4

type wasteFlags struct {
	stackFlags
	minEfficiency float64
	maxWaste      byteSize
	from          byteSize
	noDuplicates  bool
	top           int
	asJSON        bool
}

func newInspectWaste() *cobra.Command {
	f := wasteFlags{from: 16 << 10, maxWaste: -1}
	cmd := &cobra.Command{
		Use:   "waste [STACK]",
		Short: "Count the bytes that layers hold and nobody sees, and duplicates",
		Long: `Count, for each layer and all of them, the bytes of files that upper layers hide,
and of files whose content is there more than once. The efficiency is the part
of all bytes that is not wasted.

With --min-efficiency or --max-waste it exits with 4 when the rule is broken.

` + stackHelp,
		Example: `  lamina inspect waste image.tar
  lamina inspect waste --min-efficiency 0.95 --max-waste 20M image.tar`,
		Args: args(0, 1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, rest, err := f.open(cmd, args)
			if err != nil {
				return errShown(err)
			}
			defer s.Close()
			if len(rest) > 0 {
				return usageError{fmt.Errorf("waste takes one stack, got %q", rest)}
			}
			return f.run(cmd, s)
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.Float64Var(&f.minEfficiency, "min-efficiency", 0, "fail below efficiency `E`, from 0 to 1")
	flags.Var(&f.maxWaste, "max-waste", "fail when more than `SIZE` is wasted")
	flags.Lookup("max-waste").DefValue = ""
	flags.Var(&f.from, "duplicates-from", "compare the contents of files from `SIZE` on")
	flags.BoolVar(&f.noDuplicates, "no-duplicates", false, "compare no contents")
	flags.IntVarP(&f.top, "top", "n", 10, "list the `N` largest files that are hidden or duplicates")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	return cmd
}

func (f *wasteFlags) run(cmd *cobra.Command, s *inspect.Stack) error {
	w, t, err := countWaste(cmd, s, inspect.WasteOptions{Largest: max(f.top, 1), DuplicatesFrom: f.duplicatesFrom()})
	if err != nil {
		return errShown(err)
	}
	if f.asJSON {
		err = printJSON(cmd.OutOrStdout(), w)
	} else {
		printWaste(cmd.OutOrStdout(), s, w, f.top)
	}
	if err == nil {
		err = t.err()
	}
	if err != nil {
		return err
	}
	return f.rules(w)
}

func (f *wasteFlags) duplicatesFrom() int64 {
	if f.noDuplicates {
		return -1
	}
	return int64(f.from)
}

// rules tells whether the numbers are good enough for who runs it in CI.
func (f *wasteFlags) rules(w *inspect.Waste) error {
	broken := false
	if w.Efficiency < f.minEfficiency {
		complain("lamina", fmt.Errorf("efficiency %.4f is below %v", w.Efficiency, f.minEfficiency))
		broken = true
	}
	if f.maxWaste >= 0 && w.Wasted > int64(f.maxWaste) {
		complain("lamina", fmt.Errorf("%d bytes are wasted, more than %d", w.Wasted, int64(f.maxWaste)))
		broken = true
	}
	if broken {
		return exitStatus(exitRule)
	}
	return nil
}

// countWaste counts with progress on the terminal.
func countWaste(cmd *cobra.Command, s *inspect.Stack, o inspect.WasteOptions) (*inspect.Waste, *troubles, error) {
	ctx, stop := interruptible()
	defer stop()
	p := newMeter("count")
	defer p.end()
	o.Progress = func(entries, hashed, total int64) {
		p.show(func() string {
			if total > 0 {
				return fmt.Sprintf("compare contents  %d%%  %s of %s", hashed*100/total, bytesText(uint64(hashed)), bytesText(uint64(total)))
			}
			return fmt.Sprintf("count  %d entries", entries)
		})
	}
	t := &troubles{}
	w, err := s.Waste(ctx, o, t.tell)
	return w, t, err
}

func printWaste(w io.Writer, s *inspect.Stack, r *inspect.Waste, top int) {
	fmt.Fprintf(w, "%10s  %10s  %10s  %9s  %9s  %s\n", "BYTES", "HIDDEN", "DUPLICATE", "FILES", "WHITEOUTS", "LAYER")
	for i, u := range r.Layers {
		fmt.Fprintf(w, "%10s  %10s  %10s  %9d  %9d  %s\n", bytesText(uint64(u.Bytes)), bytesText(uint64(u.Hidden)),
			bytesText(uint64(u.Duplicate)), u.Files, u.Whiteouts, layerLabel(s, i))
	}
	fmt.Fprintf(w, "\n%s in %d layers; %s wasted: %s hidden, %s duplicates\nefficiency %.4f\n",
		bytesText(uint64(r.Bytes)), len(r.Layers), bytesText(uint64(r.Wasted)), bytesText(uint64(r.Hidden)), bytesText(uint64(r.Dup)), r.Efficiency)
	if top > 0 && len(r.Largest) > 0 {
		fmt.Fprintln(w, "\nlargest hidden files")
		for _, f := range r.Largest {
			fmt.Fprintf(w, "%10s  layer %d, %s by layer %d  %s\n", bytesText(uint64(f.Size)), f.Layer, f.Why, f.By, safename.Terminal(string(f.Path)))
		}
	}
	if top > 0 && len(r.Duplicates) > 0 {
		fmt.Fprintln(w, "\nduplicates")
		for _, d := range r.Duplicates {
			fmt.Fprintf(w, "%10s  wasted by %d copies of %s\n", bytesText(uint64(d.Wasted)), len(d.Copies)+d.More, bytesText(uint64(d.Size)))
			for _, c := range d.Copies {
				fmt.Fprintf(w, "%12slayer %d  %s\n", "", c.Layer, safename.Terminal(string(c.Path)))
			}
		}
	}
}
