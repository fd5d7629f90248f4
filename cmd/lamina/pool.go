package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/poolserver"
)

// poolFlags are the flags that every command about pools has.
type poolFlags struct {
	root string
	json bool
}

func (f *poolFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.root, "root", os.Getenv("LAMINA_POOL_ROOT"), "look for pools by name in `DIR`")
	cmd.MarkFlagDirname("root")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
}

// dir returns the directory of pools that have a name only.
func (f *poolFlags) dir() (string, error) {
	if f.root != "" {
		return f.root, nil
	}
	return poolserver.DefaultRoot()
}

// locate finds a pool by its name or path.
func (f *poolFlags) locate(name string) (poolserver.Place, error) {
	root, err := f.dir()
	if err != nil && !poolserver.IsPath(name) {
		return poolserver.Place{}, err
	}
	return poolserver.Locate(root, name)
}

// serveCommand is the command line by which this program serves a pool.
func serveCommand(p poolserver.Place) []string {
	return []string{os.Args[0], "pool", "serve", p.Dir}
}

// connect connects to the server of a pool, which it starts if need be.
func (f *poolFlags) connect(ctx context.Context, name string) (*poolserver.Client, error) {
	p, err := f.locate(name)
	if err != nil {
		return nil, err
	}
	return p.Connect(ctx, serveCommand(p))
}

// interruptible returns a context that ends with ^C.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
}

// A poolRun does what a command is for; args are what follows the pool.
type poolRun func(ctx context.Context, c *poolserver.Client, args []string) error

// onPool completes a command whose first argument is a pool: it gets the common
// flags, a connection and the completion of names.
func onPool(cmd *cobra.Command, f *poolFlags, run poolRun) *cobra.Command {
	f.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := interruptible()
		defer stop()
		c, err := f.connect(ctx, args[0])
		if err != nil {
			return err
		}
		defer c.Close()
		tell, end := newProgressBar(cmd.Name())
		defer end()
		c.Progress = tell
		return run(ctx, c, args[1:])
	}
	if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = f.completePool
	}
	return cmd
}

// onVolume is [onPool] for commands whose further arguments are volumes.
func onVolume(cmd *cobra.Command, f *poolFlags, run poolRun) *cobra.Command {
	cmd.ValidArgsFunction = f.completeVolume
	return onPool(cmd, f, run)
}

// print shows a result as JSON, if that was asked for.
func (f *poolFlags) print(cmd *cobra.Command, v any) error {
	if !f.json {
		return nil
	}
	return printJSON(cmd.OutOrStdout(), v)
}

// printed is print for a result that may not have come.
func printed[R any](f *poolFlags, cmd *cobra.Command) func(R, error) error {
	return func(r R, err error) error {
		if err != nil {
			return err
		}
		return f.print(cmd, r)
	}
}

// completePool offers the pools as first argument.
func (f *poolFlags) completePool(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	root, err := f.dir()
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	places, _ := poolserver.List(root) // a completion has nowhere to report to
	var names []string
	for _, p := range places {
		names = append(names, p.Name())
	}
	return names, cobra.ShellCompDirectiveDefault // or the path of one
}

// completeVolume offers the pools, and then the volumes of one that has a server:
// to press a key should not start any.
func (f *poolFlags) completeVolume(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return f.completePool(cmd, args, typed)
	}
	p, err := f.locate(args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := p.Dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	volumes, _ := poolserver.VolumeList.Call(context.Background(), c, poolserver.None{})
	var names []string
	for _, v := range volumes {
		names = append(names, v.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// sizeText is a number of bytes for people.
func sizeText(n int64) string {
	if n < 0 {
		return "-" + bytesText(uint64(-n))
	}
	return bytesText(uint64(n))
}

// limitText is sizeText of a limit, of which 0 is none.
func limitText(n int64) string {
	if n == 0 {
		return "none"
	}
	return sizeText(n)
}

// percent is a part of a whole for people.
func percent(part, whole int64) string {
	if whole <= 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", part*100/whole)
}
