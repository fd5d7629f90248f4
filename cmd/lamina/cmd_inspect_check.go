package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/stacks"
	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/inspect/safename"
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/mountopt"
	"github.com/laminafs/lamina/whiteout"
)

type checkFlags struct {
	lowers []string
	work   string
	fix    bool
	asJSON bool
}

func newInspectCheck() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Check whether the marks of a layer or upper are sound",
		Long: `Check a layer: marks that make no sense or that nobody heeds, formats that do not
mix, whiteouts of nothing, redirects and metacopy files that lead nowhere, origins
that do not match, leftovers. What a mark is about lies in the layers below: name
them by --lower, or only what the layer itself tells is checked.

--fix shows what it will do and then does what is safe: it removes marks that
nobody heeds or needs, so no user of the layer will see another tree. It refuses
a layer that is mounted.

It exits with 1 when something is wrong and stays so.`,
		Example: `  lamina inspect check changes
  lamina inspect check --lower base --lower app --work .work changes
  lamina inspect check --fix --lower base changes`,
		Args: args(1, 1, "DIR, the layer"),
		RunE: func(cmd *cobra.Command, args []string) error { return errShown(f.run(cmd, args[0])) },
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.lowers, "lower", nil, "`DIR` lies below it; repeat it for more, the bottom first")
	flags.StringVar(&f.work, "work", "", "`DIR` is the work directory of its mounts")
	flags.BoolVar(&f.fix, "fix", false, "do what is safe, after showing it")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	cmd.MarkFlagDirname("lower")
	cmd.MarkFlagDirname("work")
	return cmd
}

func (f *checkFlags) run(cmd *cobra.Command, dir string) error {
	o := mountopt.Options{Upper: dir}
	for i := len(f.lowers) - 1; i >= 0; i-- {
		o.Lower = append(o.Lower, f.lowers[i])
	}
	s := stacks.FromOptions(dir, &o)
	defer s.Close()
	var work layer.Dir
	if f.work != "" {
		var err error
		if work, err = layer.OpenHostShared(f.work); err != nil {
			return err
		}
		defer work.Close()
	}
	ctx, stop := interruptible()
	defer stop()
	var t troubles
	found, err := inspect.Check(ctx, s, work, t.tell)
	if err != nil {
		return err
	}
	if f.asJSON {
		if found == nil {
			found = []inspect.Finding{}
		}
		if err := printJSON(cmd.OutOrStdout(), found); err != nil {
			return err
		}
	} else {
		for _, x := range found {
			fmt.Fprintf(cmd.OutOrStdout(), "%-20s  %s  %s\n", x.Kind, safename.Terminal(string(x.Path)), safename.Text(string(x.Text)))
			if x.Repair != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "%-20s  --fix: %s\n", "", x.Repair)
			}
		}
	}
	left := len(found)
	if f.fix {
		n, err := f.repair(dir, work, found)
		if err != nil {
			return err
		}
		left -= n
		fmt.Fprintf(cmd.ErrOrStderr(), "lamina: %d of %d findings repaired\n", n, len(found))
	}
	if left > 0 {
		return exitStatus(exitFailure)
	}
	return t.err()
}

func (f *checkFlags) repair(dir string, work layer.Dir, found []inspect.Finding) (int, error) {
	if err := notMounted(dir); err != nil {
		return 0, err
	}
	root, err := layer.OpenHostShared(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	return inspect.Fix(root, work, found)
}

// notMounted refuses a layer that a mount which can be seen from here uses.
func notMounted(dir string) error {
	want, err := os.Stat(dir)
	if err != nil {
		return err
	}
	uses := func(path string) bool {
		st, err := os.Stat(path)
		return err == nil && os.SameFile(st, want)
	}
	// Servers that do not answer are found dead by lamina ps.
	live, _ := fusefs.Live()
	for _, c := range live {
		layers, err := c.Layers()
		c.Close()
		if err != nil {
			continue
		}
		for _, l := range layers {
			if uses(l.Path) {
				return fmt.Errorf("%s is a layer of %s, which is mounted; unmount it first", dir, c.Info.Target)
			}
		}
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("overlay"))
	if err != nil {
		return fmt.Errorf("look whether %s is mounted: %w", dir, err)
	}
	for _, m := range mounts {
		o, err := mountopt.Parse(m.VFSOptions)
		if err != nil {
			continue // not in this grammar, so not by us
		}
		for _, path := range append(o.Lower, o.Upper) {
			if path != "" && uses(path) {
				return fmt.Errorf("%s is a layer of %s, which is mounted; unmount it first", dir, m.Mountpoint)
			}
		}
	}
	return nil
}

func newInspectConvert() *cobra.Command {
	var to, from, into string
	var dry, asJSON bool
	cmd := &cobra.Command{
		Use:   "convert DIR --to FORMAT [--into COPY]",
		Short: "Write the marks of a layer in another format",
		Long: `Write what a layer says of deleted names, opaque and renamed directories in another
format: overlay (of root), overlay-user (of ordinary users), overlay-xattr,
overlay-user-xattr (without device nodes), aufs or oci. Any mixture is read.

The whole layer is looked at first. Where the format has no words for something,
nothing is changed, and the reason is given. --into copies the layer and converts
the copy.`,
		Example: `  lamina inspect convert changes --to oci --into changes-oci
  lamina inspect convert layer --from oci --to overlay-user`,
		Args: args(1, 1, "DIR, the layer"),
		RunE: func(cmd *cobra.Command, args []string) error {
			target, err := whiteout.ParseFormat(to)
			if err == nil && target == whiteout.FuseOverlayfs {
				err = errors.New("--to fuse-overlayfs: that format is only read; write overlay-user")
			}
			source := whiteout.FuseOverlayfs
			if err == nil && from != "" {
				source, err = whiteout.ParseFormat(from)
			}
			if err == nil && source != whiteout.FuseOverlayfs && source != whiteout.OCI && source != whiteout.Aufs {
				source = whiteout.FuseOverlayfs // reads them all
			}
			if err != nil {
				return usageError{err}
			}
			return errShown(convert(cmd, args[0], into, source, target, dry, asJSON))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&to, "to", "", "`FORMAT` to write")
	flags.StringVar(&from, "from", "", "`FORMAT` that it has, if it is to be read in no other way (oci: a whiteout beside a directory empties it)")
	flags.StringVar(&into, "into", "", "copy it to `DIR`, which is empty or missing, and convert the copy")
	flags.BoolVarP(&dry, "dry-run", "n", false, "only say whether it can be done, and how much there is to do")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.MarkFlagRequired("to")
	cmd.MarkFlagDirname("into")
	cmd.RegisterFlagCompletionFunc("to", cobra.FixedCompletions([]string{"overlay", "overlay-user", "overlay-xattr", "overlay-user-xattr", "aufs", "oci"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// converted is what a conversion prints as JSON.
type converted struct {
	Dir    safename.JSON `json:"dir"`
	Into   safename.JSON `json:"into,omitempty"`
	Format string        `json:"format"`
	Marks  int           `json:"marks"`
	DryRun bool          `json:"dry_run"` // nothing was changed
}

func convert(cmd *cobra.Command, dir, into string, from, to whiteout.Format, dry, asJSON bool) error {
	if err := notMounted(dir); err != nil && into == "" && !dry {
		return err
	}
	root, err := layer.OpenHostShared(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	plan, err := inspect.PlanConversion(root, from, to)
	if err != nil {
		return fmt.Errorf("%s: nothing was changed: %w", dir, err)
	}
	result := converted{safename.JSON(dir), safename.JSON(into), to.String(), plan.Steps(), dry}
	if dry {
		if asJSON {
			return printJSON(cmd.OutOrStdout(), result)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s can be written as %v: %d marks change\n", safename.Terminal(dir), to, plan.Steps())
		return nil
	}
	target := root
	if into != "" {
		if target, err = copyLayer(root, into); err != nil {
			return fmt.Errorf("copy %s to %s: %w", dir, filepath.Clean(into), err)
		}
		defer target.Close()
	}
	if err := plan.Apply(target); err != nil {
		return fmt.Errorf("%w; run it again to go on", err)
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), result)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "lamina: %d marks written as %v\n", plan.Steps(), to)
	return nil
}

func copyLayer(root layer.Dir, into string) (layer.Dir, error) {
	if err := os.Mkdir(into, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	target, err := layer.OpenHostShared(into)
	if err != nil {
		return nil, err
	}
	ctx, stop := interruptible()
	defer stop()
	p := newMeter("copy")
	defer p.end()
	err = inspect.CopyLayer(ctx, root, target, func(n int64) {
		p.show(func() string { return fmt.Sprintf("copy  %d entries", n) })
	})
	if err != nil {
		target.Close()
		return nil, err
	}
	return target, nil
}
