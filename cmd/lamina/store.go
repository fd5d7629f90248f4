package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/views"
	"github.com/laminafs/lamina/backends/drivers"
	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/backends/store"
	"github.com/laminafs/lamina/fs/mountopt"
)

// storeFlags say which layer store a command works on. What is not given is
// taken from lamina.toml.
type storeFlags struct {
	root, driver, engine string
	options, additional  []string
	json                 bool
}

// storeHelp is part of the help of every group of commands on the store.
const storeHelp = `
The store is the one that lamina.toml names (/etc/lamina/lamina.toml for root,
~/.config/lamina/lamina.toml for others, or the file in LAMINA_CONFIG); without one
/var/lib/lamina for root and ~/.local/share/lamina for others. --root, --driver,
--engine, --driver-option and --additional win over the file.`

// onStore makes a command run on an open store.
func onStore(cmd *cobra.Command, f *storeFlags, run func(ctx context.Context, s *store.Store, args []string) error) *cobra.Command {
	flags := cmd.Flags()
	flags.StringVar(&f.root, "root", "", "the store is in `DIR`")
	flags.StringVar(&f.driver, "driver", "", "`DRIVER` is one of "+strings.Join(drivers.Names(), ", "))
	flags.StringVar(&f.engine, "engine", "", "`ENGINE` is auto, native or userspace")
	flags.StringArrayVar(&f.options, "driver-option", nil, "`NAME=VALUE` is an option of the driver; repeat it for more")
	flags.StringArrayVar(&f.additional, "additional", nil, "the store in `DIR` is read too, and never changed; repeat it for more")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	cmd.MarkFlagDirname("root")
	cmd.MarkFlagDirname("additional")
	cmd.RegisterFlagCompletionFunc("driver", cobra.FixedCompletions(drivers.Names(), cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("engine", cobra.FixedCompletions([]string{"auto", "native", "userspace"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
		defer stop()
		s, err := f.open(ctx)
		if err != nil {
			return err
		}
		defer s.Close()
		return run(ctx, s, args)
	}
	return cmd
}

func (f *storeFlags) open(ctx context.Context) (*store.Store, error) {
	c, err := f.config()
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, c)
}

// config is what the file says, but for what the flags do.
func (f *storeFlags) config() (store.Config, error) {
	c, err := store.ReadConfig()
	if err != nil {
		return c, err
	}
	if f.root != "" {
		if c.Root, err = filepath.Abs(f.root); err != nil {
			return c, err
		}
	}
	if f.driver != "" {
		c.Driver = f.driver
	}
	if f.engine != "" {
		c.Engine = driver.Engine(f.engine)
	}
	c.Options = append(c.Options, f.options...)
	if len(f.additional) > 0 {
		c.Additional = f.additional
	}
	c.Servers, c.PoolServer = views.Background(serveView), poolCommand
	return c, nil
}

// poolCommand is the command line that serves the pool of a driver.
func poolCommand(dir string) []string { return serveCommand(poolserver.Place{Dir: dir}) }

// serveView is the command line that serves a view.
func serveView(o mountopt.Options, target string) []string {
	return []string{"lamina", "mount", "--quiet", "--engine=fuse", "-o", o.String(), target}
}

// group makes a command that only holds others.
func group(use, short, long, example string, cmds ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Example: example, Args: unknownVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(cmds...)
	return cmd
}

// toFile calls write with a file that takes the place of path when all went well,
// or with stdout for "" and "-".
func toFile(path string, write func(*os.File) error) (err error) {
	if path == "" || path == "-" {
		if isTerminal(os.Stdout) {
			return usageError{fmt.Errorf("an archive is not for the screen; give --output FILE, or a pipe")}
		}
		return write(os.Stdout)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone once it was renamed
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
