package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/inspect/safename"
)

// differs is the exit status of a diff that found something, as of diff(1).
const (
	exitDiffers     = 1
	exitDiffTrouble = 2
)

type diffFlags struct {
	inspect.DiffOptions
	content bool
	tar     string
	asJSON  bool
}

func newInspectDiff() *cobra.Command {
	var f diffFlags
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Show what differs between two stacks, layers or archives",
		Long: `Show what was added (A), removed (D), changed (M, and what) and moved (R) from A to
B, as users see them. Like diff(1) it exits with 0 when nothing differs, 1 when
something does, and 2 when it failed.

A and B are stacks. ` + stackHelp,
		Example: `  lamina inspect diff image.tar#3 image.tar#4
  lamina inspect diff --content lowerdir=base lowerdir=base,upperdir=changes
  lamina inspect diff --tar layer.tar old.tar new.tar`,
		Args: args(2, 2, "A and B"),
		RunE: func(cmd *cobra.Command, args []string) error {
			differ, err := runDiff(cmd, &f, args[0], args[1])
			switch {
			case err != nil:
				var quiet exitStatus
				if !errors.As(err, &quiet) {
					complain("lamina", errShown(err))
				}
				return exitStatus(exitDiffTrouble)
			case differ:
				return exitStatus(exitDiffers)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.content, "content", false, "show the differences of text files")
	flags.StringVar(&f.tar, "tar", "", "write the changes to `FILE` as an OCI layer, - for stdout")
	flags.BoolVar(&f.Quick, "quick", false, "take files of the same size and time for equal")
	flags.BoolVar(&f.Times, "times", false, "show what changed in its times alone")
	flags.StringVar(&f.Path, "path", "", "compare what is at and below `PATH`")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

func runDiff(cmd *cobra.Command, f *diffFlags, a, b string) (differ bool, err error) {
	old, err := openStack(a)
	if err != nil {
		return false, err
	}
	defer old.Close()
	new, err := openStack(b)
	if err != nil {
		return false, err
	}
	defer new.Close()
	ctx, stop := interruptible()
	defer stop()
	var t troubles
	stdout := bufio.NewWriter(cmd.OutOrStdout())
	out := newLines(stdout)
	show := func(c *inspect.Change) error { return f.show(out, c) }
	if f.tar != "" {
		file, w := stdout, (*inspect.TarWriter)(nil)
		if f.tar != "-" {
			target, err := createFile(f.tar)
			if err != nil {
				return false, err
			}
			defer target.Close()
			file = bufio.NewWriter(target)
		}
		w = inspect.NewTarWriter(file)
		f.Times = true // a layer has them
		show = w.Write
		defer func() {
			err = errors.Join(err, w.Close(), file.Flush())
			if w.Skipped > 0 {
				fmt.Fprintf(os.Stderr, "lamina: %d sockets left out, which no layer can hold\n", w.Skipped)
			}
		}()
	}
	p := newMeter("compare")
	defer p.end()
	n := 0
	err = inspect.Diff(ctx, old, new, f.DiffOptions, t.tell, func(c *inspect.Change) error {
		differ = true
		n++
		p.show(func() string { return fmt.Sprintf("compare  %d differences, at %.60s", n, shownPath(c.Path)) })
		return show(c)
	})
	if err == nil {
		err = t.err()
	}
	return differ, errors.Join(err, out.err, stdout.Flush())
}

func (f *diffFlags) show(out *lineWriter, c *inspect.Change) error {
	if f.asJSON {
		out.json(jsonOf(c))
		return out.err
	}
	if c.Kind == inspect.Removed && c.Within {
		return nil // the directory around it stands for it
	}
	out.text("%s\n", changeText(c))
	if f.content && (c.What&inspect.Content != 0 || c.Kind != inspect.Changed) && anyFile(c) {
		text, err := inspect.TextDiff(fileOf(c.Old), fileOf(c.New))
		if err != nil {
			return fmt.Errorf("/%s: %w", c.Path, err)
		}
		out.text("%s", safeText(text))
	}
	return out.err
}

func anyFile(c *inspect.Change) bool { return fileOf(c.Old) != nil || fileOf(c.New) != nil }

func fileOf(e *inspect.Entry) *inspect.Entry {
	if e == nil || e.Data() == nil {
		return nil
	}
	return e
}

// safeText makes lines of a file safe for a terminal; to a file or program they
// go as they are.
func safeText(text string) string {
	if !isTerminal(os.Stdout) {
		return text
	}
	lines := strings.SplitAfter(text, "\n")
	for i, l := range lines {
		body := strings.TrimSuffix(l, "\n")
		parts := strings.Split(body, "\t")
		for k := range parts {
			if safename.Text(parts[k]) != strings.ReplaceAll(parts[k], `\`, `\\`) {
				parts[k] = safename.Text(parts[k])
			}
		}
		lines[i] = strings.Join(parts, "\t") + l[len(body):]
	}
	return strings.Join(lines, "")
}
