package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/inspect/safename"
)

func newInspectWhich() *cobra.Command {
	var f stackFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "which [STACK] PATH...",
		Short: "Show which layer a path comes from, and what the others have there",
		Long: `Show which layer provides a path, and every layer that has, hides or changes it,
the top first:

  =>  users see this      +   it is merged with the directory above
  d   its data are seen   x   it deletes the name   .   hidden, and by what

It exits with 1 when users see nothing at one of the paths.

` + stackHelp,
		Example: `  lamina inspect which /mnt/x /etc/passwd
  lamina inspect which --lower base --upper changes /etc/passwd
  lamina inspect which --json image.tar /usr/bin/python3 | jq .[0].layer`,
		Args: args(1, -1, "STACK and PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, paths, err := f.open(cmd, args)
			if err != nil {
				return errShown(err)
			}
			defer s.Close()
			if len(paths) == 0 {
				return usageError{fmt.Errorf("which needs PATH behind the stack; see: %s --help", cmd.CommandPath())}
			}
			return which(cmd.OutOrStdout(), s, paths, asJSON)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func which(w io.Writer, s *inspect.Stack, paths []string, asJSON bool) error {
	absent := false
	var all []inspect.EntryJSON
	for _, path := range paths {
		p, err := s.Lookup(path)
		if err != nil {
			return errShown(err)
		}
		absent = absent || p.Top() == nil
		if asJSON {
			all = append(all, s.JSON(p.Entry))
		} else {
			printWhich(w, s, p.Entry)
		}
		p.Close()
	}
	if asJSON {
		if err := printJSON(w, all); err != nil {
			return err
		}
	}
	if absent {
		return exitStatus(exitFailure)
	}
	return nil
}

func printWhich(w io.Writer, s *inspect.Stack, e *inspect.Entry) {
	top := e.Top()
	switch {
	case e.Err != nil:
		fmt.Fprintf(w, "%s cannot be read: %s\n", shownPath(e.Path), safename.Text(e.Err.Error()))
	case top != nil:
		fmt.Fprintf(w, "%s comes from layer %s\n", shownPath(e.Path), layerLabel(s, top.Layer))
	default:
		fmt.Fprintf(w, "%s is not there%s\n", shownPath(e.Path), deletedBy(s, e))
	}
	width := 0
	for i := range e.Sightings {
		width = max(width, len(layerLabel(s, e.Sightings[i].Layer)))
	}
	for i := range e.Sightings {
		g := &e.Sightings[i]
		fmt.Fprintf(w, "  %-2s  %-*s  %s\n", stateSign(g), width, layerLabel(s, g.Layer), sightingText(s, e, g))
	}
	if silent := len(s.Layers) - layersIn(e); silent > 0 {
		fmt.Fprintf(w, "      %d of %d layers have nothing there\n", silent, len(s.Layers))
	}
}

func layersIn(e *inspect.Entry) int {
	seen := map[int]bool{}
	for i := range e.Sightings {
		seen[e.Sightings[i].Layer] = true
	}
	return len(seen)
}

// deletedBy says what took a name away.
func deletedBy(s *inspect.Stack, e *inspect.Entry) string {
	for i := range e.Sightings {
		switch g := &e.Sightings[i]; {
		case g.State == inspect.Deletes:
			return ": layer " + layerLabel(s, g.Layer) + " deletes it"
		case g.State == inspect.Hidden:
			return ": layer " + layerLabel(s, g.By) + " hides it"
		}
	}
	return ""
}

func stateSign(g *inspect.Sighting) string {
	switch g.State {
	case inspect.Provides:
		return "=>"
	case inspect.Merges:
		return "+"
	case inspect.HoldsData:
		return "d"
	case inspect.Deletes:
		return "x"
	}
	return "."
}

// sightingText says what a layer has, what its marks do, and what hides it.
func sightingText(s *inspect.Stack, e *inspect.Entry, g *inspect.Sighting) string {
	text := ""
	if g.Whiteout != inspect.NoWhiteout {
		text = "whiteout (" + g.Whiteout.String() + ")"
	} else {
		text = objectText(g)
	}
	if g.Marks.Opaque {
		text += ", opaque: hides what is below"
	}
	if r := g.Marks.Redirect; r != nil {
		text += ", redirect: goes on below at " + safename.Terminal(r.String())
	}
	if g.Marks.Metacopy {
		text += ", metacopy: its data are further down"
	}
	if g.Path() != e.Path {
		text += ", there called " + shownPath(g.Path())
	}
	if g.State == inspect.Hidden {
		text += "; " + hiddenText(s, e, g)
	}
	if g.Err != nil {
		text += "; " + safename.Text(g.Err.Error())
	}
	return text
}

func hiddenText(s *inspect.Stack, e *inspect.Entry, g *inspect.Sighting) string {
	at := ""
	if g.At != e.Path {
		at = " at " + shownPath(g.At)
	}
	by := "layer " + layerLabel(s, g.By)
	switch g.Why {
	case inspect.ByWhiteout:
		return "deleted" + at + " by " + by
	case inspect.ByOpaque:
		return "hidden by the opaque directory" + at + " of " + by
	case inspect.ByRedirect:
		return "left behind: " + by + " goes on elsewhere" + at
	}
	return "replaced" + at + " by " + by
}

// objectText describes what is there in a few words.
func objectText(g *inspect.Sighting) string {
	text := fmt.Sprintf("%s %s %d:%d", inspect.TypeName(g.Stat.Mode), inspect.ModeText(g.Stat.Mode), g.Stat.UID, g.Stat.GID)
	switch g.Stat.Type() {
	case unix.S_IFREG:
		text += " " + bytesText(uint64(g.Stat.Size))
	case unix.S_IFLNK:
		if target, err := g.Readlink(); err == nil {
			text += " -> " + safename.Terminal(target)
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		text += fmt.Sprintf(" %d:%d", unix.Major(g.Stat.Rdev), unix.Minor(g.Stat.Rdev))
	}
	return text + " " + inspect.TimeOf(g.Stat.Mtime).UTC().Format("2006-01-02 15:04:05")
}
