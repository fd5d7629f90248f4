package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/oci"
	"github.com/laminafs/lamina/backends/store"
	"github.com/laminafs/lamina/backends/tree"
)

func newLayer() *cobra.Command {
	return group("layer", "Make, mount and compare layers", `A layer is what one step changes in a tree. An active layer is mounted and written
to; a committed one never changes, is mounted read-only, and can be the parent of
others. LAYER is a name, or the beginning of an id.
`+storeHelp, `  lamina layer create --image debian work
  cd "$(lamina layer mount work)" && …
  lamina layer umount work && lamina layer changes work
  lamina layer commit work done`,
		newLayerCreate(), newLayerList(), newLayerTree(), newLayerMount(), newLayerUmount(), newLayerDiff(), newLayerChanges(),
		newLayerCommit(), newLayerRm(), newLayerExport(), newLayerSize(), newLayerConvert())
}

func newLayerCreate() *cobra.Command {
	var f storeFlags
	var parent, image string
	var size, inodes byteSize
	var labels map[string]string
	cmd := &cobra.Command{
		Use:   "create [--parent LAYER | --image IMAGE] LAYER",
		Short: "Make a layer that can be written to",
		Example: `  lamina layer create --image debian work
  lamina layer create --parent done --size 10G next`,
		Args: args(1, 1, "LAYER, a name for it"),
	}
	onStore(cmd, &f, func(ctx context.Context, s *store.Store, args []string) error {
		if parent != "" && image != "" {
			return usageError{errors.New("--parent and --image both say what the layer is built on; keep to one")}
		}
		if image != "" {
			l, err := topLayer(s, image)
			if err != nil {
				return err
			}
			parent = l.Name
		} else if parent != "" {
			l, err := s.Layer(parent)
			if err != nil {
				return err
			}
			parent = l.Name
		}
		l, err := s.Create(ctx, args[0], parent, store.CreateOptions{
			CreateOptions: driver.CreateOptions{Size: int64(size), Inodes: int64(inodes)}, Labels: labels,
		})
		if err != nil || !f.json {
			return err
		}
		return printJSON(cmd.OutOrStdout(), l)
	})
	cmd.Flags().StringVar(&parent, "parent", "", "build it on the committed `LAYER`")
	cmd.Flags().StringVar(&image, "image", "", "build it on `IMAGE`")
	cmd.Flags().Var(&size, "size", "it may take `SIZE`, such as 10G")
	cmd.Flags().Var(&inodes, "inodes", "it may hold `NUMBER` files")
	cmd.Flags().StringToStringVar(&labels, "label", nil, "`NAME=VALUE` is kept with it; repeat it for more")
	return cmd
}

func newLayerList() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List layers",
		Example: `  lamina layer ls
  lamina layer ls --json | jq -r '.[] | select(.kind == "active") .name'`,
		Args: args(0, 0, "no arguments"),
	}
	return onStore(cmd, &f, func(_ context.Context, s *store.Store, _ []string) error {
		layers, err := s.Layers()
		if err != nil {
			return err
		}
		more, err := s.AdditionalLayers()
		if err != nil {
			return err
		}
		layers = append(layers, more...)
		if f.json {
			return printJSON(cmd.OutOrStdout(), append([]store.Layer{}, layers...))
		}
		store := column(len(more) > 0)
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tKIND\tID\tPARENT\tCREATED\tMOUNTED ON"+store("READ FROM"))
		for _, l := range layers {
			at, err := s.Driver.Mounts(l.ID)
			if err != nil {
				at = []string{"? (see: lamina check)"}
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s%s\n", label(l.Name), l.Kind, short(l.ID), label(l.Parent), l.Created.Local().Format(time.DateTime), strings.Join(at, " "), store(l.Store))
		}
		return w.Flush()
	})
}

// column returns what makes the cell of a last column, which may not be shown.
func column(shown bool) func(text string) string {
	return func(text string) string {
		if !shown {
			return ""
		}
		return "\t" + text
	}
}

// label shortens the names of layers of images.
func label(name string) string {
	if strings.HasPrefix(name, "sha256:") {
		return short(name)
	}
	return name
}

func newLayerTree() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use: "tree", Short: "Show which layer is built on which",
		Example: "  lamina layer tree", Args: args(0, 0, "no arguments"),
	}
	return onStore(cmd, &f, func(_ context.Context, s *store.Store, _ []string) error {
		layers, err := s.Layers()
		if err != nil {
			return err
		}
		images, err := s.Images()
		if err != nil {
			return err
		}
		more, err := s.AdditionalLayers()
		if err != nil {
			return err
		}
		layers = append(layers, more...)
		moreImages, err := s.AdditionalImages()
		if err != nil {
			return err
		}
		called := map[string][]string{}
		for _, i := range append(images, moreImages...) {
			called[i.Top()] = append(called[i.Top()], i.Names...)
		}
		children := map[string][]store.Layer{}
		for _, l := range layers {
			children[l.Parent] = append(children[l.Parent], l)
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), children)
		}
		printTree(cmd.OutOrStdout(), "", "", children, called)
		return nil
	})
}

func printTree(out io.Writer, parent, indent string, children map[string][]store.Layer, called map[string][]string) {
	for n, l := range children[parent] {
		branch, further := "├─ ", "│  "
		if n == len(children[parent])-1 {
			branch, further = "└─ ", "   "
		}
		if parent == "" {
			branch, further = "", ""
		}
		line := indent + branch + label(l.Name)
		if l.Kind == store.Active {
			line += " (active)"
		}
		if names := called[l.Name]; len(names) > 0 {
			line += "  " + strings.Join(names, " ")
		}
		if l.Store != "" {
			line += "  (read from " + l.Store + ")"
		}
		fmt.Fprintln(out, line)
		printTree(out, l.Name, indent+further, children, called)
	}
}

func newLayerDiff() *cobra.Command {
	var f storeFlags
	var output string
	cmd := &cobra.Command{
		Use:   "diff [-o FILE] LAYER",
		Short: "Write what a layer changes as an archive",
		Long: `Write what a layer changes as a tar with the whiteouts of OCI images: what an image
has as a layer. A layer that was loaded gives the bytes that it was loaded from; all
others the same bytes for the same tree, with every driver.`,
		Example: "  lamina layer diff work | tar -tv", Args: args(1, 1, "LAYER"),
	}
	onLayer(cmd, &f, func(ctx context.Context, s *store.Store, l store.Layer) error {
		return toFile(output, func(w *os.File) error { return oci.Archive(ctx, s, &l, w) })
	})
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to `FILE` in place of stdout")
	return cmd
}

func newLayerExport() *cobra.Command {
	var f storeFlags
	var output string
	cmd := &cobra.Command{
		Use:     "export [-o FILE] LAYER",
		Short:   "Write the whole tree that a layer shows as a tar",
		Example: "  lamina layer export work | zstd > root.tar.zst", Args: args(1, 1, "LAYER"),
	}
	onLayer(cmd, &f, func(ctx context.Context, s *store.Store, l store.Layer) error {
		v, err := s.Driver.View(l.ID)
		if err != nil {
			return err
		}
		defer v.Close()
		return toFile(output, func(w *os.File) error { return tree.WriteAll(ctx, w, v) })
	})
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to `FILE` in place of stdout")
	return cmd
}

func newLayerChanges() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:   "changes LAYER",
		Short: "List what a layer adds (A), changes (C) and deletes (D)",
		Example: `  lamina layer changes work
  lamina layer changes --json work | jq -r .path`,
		Args: args(1, 1, "LAYER"),
	}
	return onLayer(cmd, &f, func(ctx context.Context, s *store.Store, l store.Layer) error {
		list := []tree.Change{}
		err := s.Driver.Changes(ctx, l.ID, func(c tree.Change) error {
			if f.json {
				c.Node = nil
				list = append(list, c)
				return nil
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", c.Kind, path.Join("/", c.Path))
			return err
		})
		if err != nil || !f.json {
			return err
		}
		return printJSON(cmd.OutOrStdout(), list)
	})
}

func newLayerCommit() *cobra.Command {
	var f storeFlags
	var labels map[string]string
	cmd := &cobra.Command{
		Use:   "commit LAYER [NEW-NAME]",
		Short: "Make a layer one that never changes, so that others can be built on it",
		Example: `  lamina layer commit work
  lamina layer commit work done`,
		Args: args(1, 2, "LAYER and at most a NEW-NAME"),
	}
	onStore(cmd, &f, func(ctx context.Context, s *store.Store, args []string) error {
		found, err := s.Layer(args[0])
		if err != nil {
			return err
		}
		end := watchWriteOut("commit")
		l, err := s.Commit(ctx, found.Name, arg(args, 1), store.Committed, labels)
		end()
		if err != nil || !f.json {
			return err
		}
		return printJSON(cmd.OutOrStdout(), l)
	})
	cmd.Flags().StringToStringVar(&labels, "label", nil, "`NAME=VALUE` is kept with it; repeat it for more")
	return cmd
}

func newLayerRm() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use: "rm LAYER...", Short: "Remove layers",
		Example: "  lamina layer rm work", Args: args(1, -1, "at least one LAYER"),
	}
	return onStore(cmd, &f, func(ctx context.Context, s *store.Store, args []string) error {
		var failed []error
		for _, name := range args {
			l, err := s.Layer(name)
			if err == nil {
				err = s.Remove(ctx, l.Name)
			}
			failed = append(failed, err)
		}
		return errors.Join(failed...)
	})
}

func newLayerSize() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use: "size LAYER...", Short: "Tell what layers take by themselves",
		Example: "  lamina layer size work", Args: args(1, -1, "at least one LAYER"),
	}
	return onStore(cmd, &f, func(ctx context.Context, s *store.Store, args []string) error {
		sizes := map[string]driver.Usage{}
		for _, name := range args {
			l, err := s.Layer(name)
			if err != nil {
				return err
			}
			if sizes[name], err = s.Usage(ctx, &l); err != nil {
				return err
			}
			if !f.json {
				u := sizes[name]
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s in %d files, %d names of files of other layers\n", label(name), bytesText(uint64(u.Bytes)), u.Inodes, u.Links)
			}
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), sizes)
		}
		return nil
	})
}

// onLayer makes a command run on one layer.
func onLayer(cmd *cobra.Command, f *storeFlags, run func(ctx context.Context, s *store.Store, l store.Layer) error) *cobra.Command {
	return onStore(cmd, f, func(ctx context.Context, s *store.Store, args []string) error {
		l, err := s.Layer(args[0])
		if err != nil {
			return err
		}
		return run(ctx, s, l)
	})
}
