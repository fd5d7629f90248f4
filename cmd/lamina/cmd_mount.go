package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/mountopt"
)

// mountFlags are the flags of "lamina mount".
type mountFlags struct {
	lowers      []string // the bottom first
	upper, work string
	lists       []string
	engine      string
	foreground  bool
	readOnly    bool
	json        bool
	quiet       bool
}

func newMount() *cobra.Command {
	var f mountFlags
	cmd := &cobra.Command{
		Use:   "mount [flags] TARGET",
		Short: "Mount a stack of layers on a directory",
		Long: `Mount a stack of layers on the directory TARGET.

The layers are given from the bottom up: the first --lower is the bottom, each
further one lies on top of it, and --upper on top of all. (In -o lowerdir=A:B,
as everywhere else, A is the top.) What a higher layer holds hides what lower
layers hold under the same name. Without --upper the mount is read-only.

The engine is the kernel's own overlayfs where the user may mount it and it has
every option that was asked for, and lamina's FUSE server elsewhere. Which one
was taken and why is printed on stderr, and is part of --json.

--upper and --work are made if only their last directory is missing. --work must
lie on the filesystem of --upper, outside of it.`,
		Example: `  # two layers, changes kept in "changes"
  lamina mount --lower base --lower app --upper changes --work .work /mnt/x

  # the same with the options of overlayfs
  lamina mount -o lowerdir=app:base,upperdir=changes,workdir=.work /mnt/x

  # only look
  lamina mount --lower base --lower app --read-only /mnt/x

  # at most 10 GiB of changes
  lamina mount --lower base --upper changes --work .work -o size=10G /mnt/x`,
		Args: args(1, 1, "TARGET, the directory to mount on"),
		RunE: func(cmd *cobra.Command, args []string) error { return runMount(cmd, f, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.lowers, "lower", nil, "`DIR` is a read-only layer; repeat it for more, the bottom first")
	flags.StringVar(&f.upper, "upper", "", "`DIR` receives all changes")
	flags.StringVar(&f.work, "work", "", "changes are prepared in `DIR`, on the filesystem of --upper")
	flags.StringArrayVarP(&f.lists, "options", "o", nil, "mount `OPTIONS` joined by commas; see: lamina help options")
	flags.StringVar(&f.engine, "engine", string(engineAuto), "`ENGINE` is auto, fuse or kernel")
	flags.BoolVarP(&f.foreground, "foreground", "f", false, "serve in the foreground until it is unmounted")
	flags.BoolVar(&f.readOnly, "read-only", false, "mount read-only, also with --upper")
	flags.BoolVar(&f.json, "json", false, "print what was mounted as JSON")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "do not print which engine was taken")
	for _, dir := range []string{"lower", "upper", "work"} {
		cmd.MarkFlagDirname(dir)
	}
	cmd.RegisterFlagCompletionFunc("engine", cobra.FixedCompletions([]string{"auto", "fuse", "kernel"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("options", completeOptions)
	return cmd
}

func runMount(cmd *cobra.Command, f mountFlags, target string) error {
	want := engine(f.engine)
	if !slices.Contains([]engine{engineAuto, engineFUSE, engineKernel}, want) {
		return usageError{fmt.Errorf("--engine=%s: no such engine; accepted: auto, fuse, kernel", f.engine)}
	}
	if want == engineKernel && f.foreground {
		return usageError{errors.New("--foreground needs a server, and --engine=kernel has none; leave one of them out")}
	}
	o, err := f.options()
	if err != nil {
		return err
	}
	if err := makeUpper(f.upper, f.work); err != nil {
		return err
	}
	info, c, err := mount(want, o, target, f.foreground)
	if err != nil || f.foreground || fusefs.InBackground() {
		return err
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), struct {
			choice
			fusefs.Info
		}{c, info})
	}
	if !f.quiet && want == engineAuto {
		fmt.Fprintf(cmd.ErrOrStderr(), "lamina: %s is served by %s: %s\n", info.Target, c.Engine, c.Why)
	}
	return nil
}

// options turns flags and -o into the options of the union.
func (f *mountFlags) options() (mountopt.Options, error) {
	o, err := mountopt.Parse(f.lists...)
	if err != nil {
		return o, err
	}
	switch {
	case len(f.lowers) > 0 && len(o.Lower) > 0:
		return o, usageError{errors.New("the lower layers are given twice, by --lower and by -o lowerdir; the orders differ, so keep to one")}
	case f.upper != "" && o.Upper != "" && f.upper != o.Upper:
		return o, usageError{errors.New("the upper layer is given twice, by --upper and by -o upperdir; keep to one")}
	case f.work != "" && o.Work != "" && f.work != o.Work:
		return o, usageError{errors.New("the work directory is given twice, by --work and by -o workdir; keep to one")}
	case len(o.Unknown) > 0:
		return o, usageError{fmt.Errorf("unknown mount option %s; see: lamina help options", strings.Join(o.Unknown, ", "))}
	case slices.Contains(f.lowers, ""):
		return o, usageError{errors.New("--lower is empty; it takes a directory")}
	case len(f.lowers) == 0 && len(o.Lower) == 0:
		return o, usageError{errors.New("a union needs at least one lower layer: --lower DIR")}
	case f.upper != "" && f.work == "" && o.Work == "":
		return o, usageError{errors.New("--upper also needs --work DIR, a directory on the filesystem of --upper")}
	}
	if len(f.lowers) > 0 {
		o.Lower = slices.Clone(f.lowers)
		slices.Reverse(o.Lower)
	}
	if f.upper != "" {
		o.Upper = f.upper
	}
	if f.work != "" {
		o.Work = f.work
	}
	o.ReadOnly = o.ReadOnly || f.readOnly
	return o, o.Check()
}

// makeUpper makes the directories that a first mount needs, not their parents:
// a mistyped path should not grow a tree.
func makeUpper(upper, work string) error {
	for _, dir := range []struct {
		flag, path string
		mode       os.FileMode
	}{{"--upper", upper, 0o755}, {"--work", work, 0o700}} {
		if dir.path == "" {
			continue
		}
		if err := os.Mkdir(dir.path, dir.mode); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make the directory of %s: %w", dir.flag, err)
		}
	}
	return nil
}

// completeOptions completes the last option of a comma-joined list.
func completeOptions(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	done := typed[:strings.LastIndexByte(typed, ',')+1]
	var words []string
	for _, d := range mountopt.Docs() {
		word := done + d.Name
		if d.Accepts != "" {
			word += "="
		}
		words = append(words, word+"\t"+d.Help)
	}
	return words, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}
