package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/inspect/safename"
)

func newInspectBlame() *cobra.Command {
	var f stackFlags
	var asJSON, recursive bool
	cmd := &cobra.Command{
		Use:   "blame [STACK] DIR",
		Short: "List a directory with the layer that each entry comes from",
		Long:  "List a directory as users see it, each entry with the layer that provides it.\n\n" + stackHelp,
		Example: `  lamina inspect blame /mnt/x /etc
  lamina inspect blame -r image.tar /usr/local`,
		Args: args(0, 2, "STACK and DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, path, err := f.openPath(cmd, args)
			if err != nil {
				return err
			}
			defer s.Close()
			return blame(cmd, s, path, recursive, asJSON)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "go into directories")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

// openPath opens the stack and returns the one path behind it, "" for none.
func (f *stackFlags) openPath(cmd *cobra.Command, args []string) (*inspect.Stack, string, error) {
	s, rest, err := f.open(cmd, args)
	if err != nil {
		return nil, "", errShown(err)
	}
	switch {
	case len(rest) > 1:
		s.Close()
		return nil, "", usageError{fmt.Errorf("%s takes one path, got %q; see: %s --help", cmd.Name(), rest, cmd.CommandPath())}
	case len(rest) == 1:
		return s, rest[0], nil
	}
	return s, "", nil
}

func blame(cmd *cobra.Command, s *inspect.Stack, path string, recursive, asJSON bool) error {
	ctx, stop := interruptible()
	defer stop()
	var t troubles
	out := newLines(cmd.OutOrStdout())
	first := true
	err := s.Walk(ctx, path, t.tell, func(e *inspect.Entry) error {
		if first {
			if first = false; e.HasDir() {
				return nil // the directory itself
			}
		}
		top := e.Top()
		if top == nil {
			return inspect.SkipDir
		}
		if asJSON {
			out.json(blameLine{safename.JSON("/" + e.Path), s.Number(top.Layer), safename.JSON(s.Layers[top.Layer].Name), parts(e), top.Object()})
		} else {
			merged := ""
			if n := parts(e); n > 1 {
				merged = fmt.Sprintf("  (merged of %d layers)", n)
			}
			out.text("%-24s  %s  %s%s\n", layerLabel(s, top.Layer), objectText(top), shownPath(e.Path), merged)
		}
		if !recursive {
			return inspect.SkipDir
		}
		return out.err
	})
	if err != nil {
		return errShown(err)
	}
	if out.err != nil {
		return out.err
	}
	return t.err()
}

type blameLine struct {
	Path   safename.JSON       `json:"path"`
	Layer  int                 `json:"layer"`
	Name   safename.JSON       `json:"layer_name"`
	Parts  int                 `json:"parts"`
	Object *inspect.ObjectJSON `json:"object"`
}

// parts counts what an entry is merged of.
func parts(e *inspect.Entry) (n int) {
	for i := range e.Sightings {
		if st := e.Sightings[i].State; st == inspect.Provides || st == inspect.Merges || st == inspect.HoldsData {
			n++
		}
	}
	return n
}

func newInspectLog() *cobra.Command {
	var f stackFlags
	var asJSON, times bool
	cmd := &cobra.Command{
		Use:   "log [STACK] [PATH]",
		Short: "Show what each layer did to a path and what is below it",
		Long: `Show what each layer did, the top first: A is added, M changed (and what), D
removed, R moved from another path.

` + stackHelp,
		Example: `  lamina inspect log image.tar
  lamina inspect log --lower base --upper changes /etc`,
		Args: args(0, 2, "STACK and PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, path, err := f.openPath(cmd, args)
			if err != nil {
				return err
			}
			defer s.Close()
			return layerLog(cmd, s, inspect.DiffOptions{Path: path, Times: times}, asJSON)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&times, "times", false, "show what changed in its times alone")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

func layerLog(cmd *cobra.Command, s *inspect.Stack, o inspect.DiffOptions, asJSON bool) error {
	if p, err := s.Lookup(o.Path); err != nil {
		return errShown(err)
	} else {
		p.Close()
	}
	ctx, stop := interruptible()
	defer stop()
	var t troubles
	out := newLines(cmd.OutOrStdout())
	started := -1
	err := s.Log(ctx, o, t.tell, func(i int) error { return out.err }, func(i int, c *inspect.Change) error {
		if c.Kind == inspect.Removed && c.Within {
			return nil // the directory around it stands for it
		}
		if asJSON {
			out.json(struct {
				Layer int           `json:"layer"`
				Name  safename.JSON `json:"layer_name"`
				changeJSON
			}{s.Number(i), safename.JSON(s.Layers[i].Name), jsonOf(c)})
			return out.err
		}
		if started != i {
			if started >= 0 {
				out.text("\n")
			}
			started = i
			out.text("layer %s\n", layerLabel(s, i))
			if note := s.Layers[i].Note; note != "" {
				out.text("    %s\n", safename.Text(note))
			}
		}
		out.text("  %s\n", changeText(c))
		return out.err
	})
	if err != nil {
		return errShown(err)
	}
	return t.err()
}

// lineWriter collects lines; the first error of writing ends the work.
type lineWriter struct {
	w   io.Writer
	err error
}

func newLines(w io.Writer) *lineWriter { return &lineWriter{w: w} }

func (l *lineWriter) text(format string, args ...any) {
	if l.err == nil {
		_, l.err = fmt.Fprintf(l.w, format, args...)
	}
}

func (l *lineWriter) json(v any) {
	if l.err == nil {
		l.err = jsonLine(l.w, v)
	}
}
