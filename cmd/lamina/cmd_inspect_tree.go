package main

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/inspect/safename"
)

func newInspectTree() *cobra.Command {
	var f stackFlags
	var asJSON, hidden bool
	var depth int
	cmd := &cobra.Command{
		Use:   "tree [STACK] [DIR]",
		Short: "Show a stack as a tree, without mounting it",
		Long:  "Show what users see of a stack, as a tree, with the layer of each entry.\n\n" + stackHelp,
		Example: `  lamina inspect tree -L 2 image.tar
  lamina inspect tree --hidden --lower base --upper changes /etc`,
		Args: args(0, 2, "STACK and DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, path, err := f.openPath(cmd, args)
			if err != nil {
				return err
			}
			defer s.Close()
			return find(cmd, s, path, finder{depth: depth, hidden: hidden, asJSON: asJSON, tree: true})
		},
	}
	f.add(cmd)
	cmd.Flags().IntVarP(&depth, "level", "L", 0, "go `N` directories deep; 0 is all the way")
	cmd.Flags().BoolVar(&hidden, "hidden", false, "also show what is deleted or hidden")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

func newInspectFind() *cobra.Command {
	var f stackFlags
	var w finder
	var size byteSize
	cmd := &cobra.Command{
		Use:   "find [STACK] [DIR]",
		Short: "Find files in a stack, without mounting it",
		Long:  "List the paths of a stack that meet all conditions.\n\n" + stackHelp,
		Example: `  lamina inspect find image.tar --type f --larger 10M
  lamina inspect find image.tar --name '*.pyc' --hidden
  lamina inspect find /mnt/x --layer 3 /etc`,
		Args: args(0, 2, "STACK and DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := path.Match(w.name, ""); err != nil {
				return usageError{fmt.Errorf("--name %q: %w", w.name, err)}
			}
			if w.types != "" && strings.Trim(w.types, "fdlcbps") != "" {
				return usageError{fmt.Errorf("--type %q: accepted are f, d, l, c, b, p and s", w.types)}
			}
			s, at, err := f.openPath(cmd, args)
			if err != nil {
				return err
			}
			defer s.Close()
			w.larger = int64(size)
			return find(cmd, s, at, w)
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&w.name, "name", "", "the last part of the path matches `GLOB`")
	flags.StringVar(&w.types, "type", "", "the type is one of `LETTERS`: f, d, l, c, b, p, s")
	flags.Var(&size, "larger", "files of more than `SIZE`")
	flags.IntVar(&w.layer, "layer", 0, "layer `N`, from the bottom, provides it")
	flags.Uint32Var(&w.perm, "perm", 0, "all these `MODE` bits are set, such as 04000")
	flags.IntVarP(&w.depth, "level", "L", 0, "go `N` directories deep; 0 is all the way")
	flags.BoolVar(&w.hidden, "hidden", false, "list what no user sees, instead")
	flags.BoolVarP(&w.print0, "print0", "0", false, "print bare paths, each ended by a NUL, for programs")
	flags.BoolVar(&w.asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

// finder says which entries are shown, and how.
type finder struct {
	name, types    string
	larger         int64
	layer, depth   int
	perm           uint32
	hidden, tree   bool
	asJSON, print0 bool
}

// fits tells whether an entry meets the conditions, and by which sighting.
func (w *finder) fits(s *inspect.Stack, e *inspect.Entry) *inspect.Sighting {
	g := e.Top()
	if w.tree && w.hidden && g == nil && len(e.Sightings) > 0 || !w.tree && w.hidden && g == nil {
		for i := range e.Sightings {
			if x := &e.Sightings[i]; g == nil && (x.Whiteout == inspect.NoWhiteout || w.tree) {
				g = x
			}
		}
	} else if w.hidden && !w.tree {
		return nil
	}
	if g == nil {
		return nil
	}
	letters := map[uint32]string{unix.S_IFREG: "f", unix.S_IFDIR: "d", unix.S_IFLNK: "l", unix.S_IFCHR: "c", unix.S_IFBLK: "b", unix.S_IFIFO: "p", unix.S_IFSOCK: "s"}
	matched, _ := path.Match(w.name, e.Name) // the pattern was checked
	switch {
	case w.name != "" && !matched,
		w.types != "" && !strings.Contains(w.types, letters[g.Stat.Type()]),
		w.larger > 0 && (!g.IsFile() || g.Stat.Size <= w.larger),
		w.layer > 0 && s.Number(g.Layer) != w.layer,
		w.perm != 0 && g.Stat.Mode&w.perm != w.perm:
		return nil
	}
	return g
}

func find(cmd *cobra.Command, s *inspect.Stack, at string, w finder) error {
	ctx, stop := interruptible()
	defer stop()
	var t troubles
	out := newLines(cmd.OutOrStdout())
	base := len(splitSlash(at))
	err := s.Walk(ctx, at, t.tell, func(e *inspect.Entry) error {
		depth := len(splitSlash(e.Path)) - base
		if e.Top() == nil && !w.hidden {
			return inspect.SkipDir
		}
		if g := w.fits(s, e); g != nil {
			w.show(out, s, e, g, depth)
		}
		if out.err != nil {
			return out.err
		}
		if w.depth > 0 && depth >= w.depth {
			return inspect.SkipDir
		}
		return nil
	})
	if err != nil {
		return errShown(err)
	}
	return t.err()
}

func (w *finder) show(out *lineWriter, s *inspect.Stack, e *inspect.Entry, g *inspect.Sighting, depth int) {
	switch {
	case w.asJSON:
		out.json(blameLine{safename.JSON("/" + e.Path), s.Number(g.Layer), safename.JSON(s.Layers[g.Layer].Name), parts(e), g.Object()})
	case w.print0:
		out.text("/%s\x00", e.Path)
	case w.tree:
		out.text("%3d  %s  %10s  %s%s%s\n", s.Number(g.Layer), modeOrMark(g), fileSize(g), strings.Repeat("  ", depth), treeName(e), treeNote(s, e, g))
	default:
		out.text("%s\n", shownPath(e.Path))
	}
}

func treeName(e *inspect.Entry) string {
	if e.Name == "" {
		return "/"
	}
	name := safename.Terminal(e.Name)
	if top := e.Top(); top != nil && top.IsDir() {
		name += "/"
	}
	return name
}

func modeOrMark(g *inspect.Sighting) string {
	if g.Whiteout != inspect.NoWhiteout {
		return "whiteout  "
	}
	return inspect.ModeText(g.Stat.Mode)
}

func fileSize(g *inspect.Sighting) string {
	if !g.IsFile() {
		return ""
	}
	return bytesText(uint64(g.Stat.Size))
}

func treeNote(s *inspect.Stack, e *inspect.Entry, g *inspect.Sighting) string {
	switch {
	case g.State == inspect.Hidden:
		return "  [" + hiddenText(s, e, g) + "]"
	case g.State == inspect.Deletes:
		return "  [deleted]"
	case g.Stat.Type() == unix.S_IFLNK:
		if target, err := g.Readlink(); err == nil {
			return " -> " + safename.Terminal(target)
		}
	}
	return ""
}

func splitSlash(p string) []string {
	return strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
}

func newInspectCat() *cobra.Command {
	var f stackFlags
	cmd := &cobra.Command{
		Use:   "cat [STACK] PATH...",
		Short: "Print files of a stack, without mounting it",
		Long:  "Print files as users of the stack see them, byte for byte. Symbolic links are followed inside of it.\n\n" + stackHelp,
		Example: `  lamina inspect cat image.tar /etc/os-release
  lamina inspect cat --lower base --upper changes /etc/passwd`,
		Args: args(1, -1, "STACK and PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, paths, err := f.open(cmd, args)
			if err != nil {
				return errShown(err)
			}
			defer s.Close()
			if len(paths) == 0 {
				return usageError{fmt.Errorf("cat needs PATH behind the stack; see: %s --help", cmd.CommandPath())}
			}
			var failed []error
			for _, p := range paths {
				failed = append(failed, catFile(cmd.OutOrStdout(), s, p))
			}
			return errShown(errors.Join(failed...))
		},
	}
	f.add(cmd)
	return cmd
}

func catFile(w io.Writer, s *inspect.Stack, path string) error {
	p, err := s.Follow(path, true)
	if err != nil {
		return err
	}
	defer p.Close()
	d := p.Data()
	if d == nil {
		if p.Err != nil {
			return p.Err
		}
		return fmt.Errorf("/%s is a %s, not a file", p.Path, inspect.TypeName(p.Top().Stat.Mode))
	}
	file, err := d.OpenFile()
	if err != nil {
		return fmt.Errorf("/%s: %w", p.Path, err)
	}
	defer file.Close()
	buf := make([]byte, 256<<10)
	for off := int64(0); ; {
		n, err := file.ReadAt(buf, off)
		if err != nil {
			return fmt.Errorf("/%s: %w", p.Path, err)
		}
		if n == 0 {
			return nil
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
}

func newInspectStat() *cobra.Command {
	var f stackFlags
	var asJSON, follow bool
	cmd := &cobra.Command{
		Use:     "stat [STACK] PATH...",
		Short:   "Show attributes of a path in a stack, without mounting it",
		Long:    "Show type, mode, owner, size, times and xattrs of a path as users of the stack see it.\n\n" + stackHelp,
		Example: `  lamina inspect stat image.tar /bin/su`,
		Args:    args(1, -1, "STACK and PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, paths, err := f.open(cmd, args)
			if err != nil {
				return errShown(err)
			}
			defer s.Close()
			for _, p := range paths {
				if err := statPath(cmd.OutOrStdout(), s, p, follow, asJSON); err != nil {
					return errShown(err)
				}
			}
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVarP(&follow, "dereference", "L", false, "follow a symbolic link at the end")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

func statPath(w io.Writer, s *inspect.Stack, path string, follow, asJSON bool) error {
	p, err := s.Follow(path, follow)
	if err != nil {
		return err
	}
	defer p.Close()
	top := p.Top()
	attrs, err := top.UserXattrs()
	if err != nil {
		return fmt.Errorf("/%s: %w", p.Path, err)
	}
	shown := map[string]safename.JSON{}
	for name, v := range attrs {
		shown[safename.Valid(name)] = safename.JSON(v)
	}
	if asJSON {
		return jsonLine(w, struct {
			blameLine
			Xattrs map[string]safename.JSON `json:"xattrs,omitempty"`
		}{blameLine{safename.JSON("/" + p.Path), s.Number(top.Layer), safename.JSON(s.Layers[top.Layer].Name), parts(p.Entry), top.Object()}, shown})
	}
	fmt.Fprintf(w, "%s\n  %s\n  layer %s, inode %d, %d links\n", shownPath(p.Path), objectText(top), layerLabel(s, top.Layer), top.Stat.Ino, top.Stat.Nlink)
	for name, v := range attrs {
		fmt.Fprintf(w, "  xattr %s = %s\n", safename.Terminal(name), safename.Text(string(v)))
	}
	return nil
}
