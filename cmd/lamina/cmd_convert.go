package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivers"
	"github.com/laminafs/lamina/backends/oci"
	"github.com/laminafs/lamina/backends/store"
)

// targetFlags say where something is converted to.
type targetFlags struct {
	driver, root, engine string
	options              []string
	remove               bool
}

func (t *targetFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&t.driver, "to", "", "`DRIVER` that it is for")
	flags.StringVar(&t.root, "to-root", "", "the store in `DIR`, if it is for another")
	flags.StringVar(&t.engine, "to-engine", "", "`ENGINE` of that driver")
	flags.StringArrayVar(&t.options, "to-option", nil, "`NAME=VALUE` is an option of that driver; repeat it for more")
	flags.BoolVar(&t.remove, "remove", false, "take it away here when it is there")
	cmd.MarkFlagDirname("to-root")
	cmd.RegisterFlagCompletionFunc("to", cobra.FixedCompletions(drivers.Names(), cobra.ShellCompDirectiveNoFileComp))
}

// open opens the other store. Of the options of lamina.toml it gets those that name its
// driver.
func (t *targetFlags) open(ctx context.Context, f *storeFlags) (*store.Store, error) {
	here, err := f.config()
	if err != nil {
		return nil, err
	}
	c := here
	if t.root != "" {
		if c.Root, err = filepath.Abs(t.root); err != nil {
			return nil, err
		}
	}
	if t.driver != "" {
		c.Driver = t.driver
	}
	if c.Root == here.Root && c.Driver == here.Driver {
		return nil, usageError{fmt.Errorf("it is in this store, and of driver %s, already; give --to DRIVER, one of %s, or --to-root DIR", here.Driver, strings.Join(drivers.Names(), ", "))}
	}
	c.Engine, c.Options = driver.Auto, nil
	if t.engine != "" {
		c.Engine = driver.Engine(t.engine)
	}
	for _, o := range here.Options {
		if strings.HasPrefix(o, c.Driver+".") {
			c.Options = append(c.Options, o)
		}
	}
	c.Options = append(c.Options, t.options...)
	return store.Open(ctx, c)
}

func newLayerConvert() *cobra.Command {
	var f storeFlags
	var to targetFlags
	var name string
	cmd := &cobra.Command{
		Use:   "convert --to DRIVER LAYER",
		Short: "Copy or move a layer to another storage driver, or another store",
		Long: `Copy a layer, and those that it is built on, to another storage driver of the same
store, or to another store. They keep their names. What is there already is not
copied again. An active layer stays active; it must not be mounted.

With --remove the layer is taken away here afterwards, which needs it to have no
children. Those that it is built on stay: remove them by name, or by lamina gc when
they were an image's.`,
		Example: `  lamina layer convert --to vfs work
  lamina layer convert --to-root /srv/lamina --remove work`,
		Args: args(1, 1, "LAYER"),
	}
	onLayer(cmd, &f, func(ctx context.Context, s *store.Store, l store.Layer) error {
		other, err := to.open(ctx, &f)
		if err != nil {
			return err
		}
		defer other.Close()
		tell, end := transfer("convert")
		made, err := oci.CopyLayer(ctx, s, other, l.Name, name, oci.LoadOptions{Progress: tell})
		end()
		if err == nil && to.remove {
			err = s.Remove(ctx, l.Name)
		}
		if err != nil || !f.json {
			return err
		}
		return printJSON(cmd.OutOrStdout(), made)
	})
	to.add(cmd)
	cmd.Flags().StringVar(&name, "name", "", "call the copy `NAME`; layers of images are named by what they hold")
	return cmd
}

func newImageConvert() *cobra.Command {
	var f storeFlags
	var to targetFlags
	cmd := &cobra.Command{
		Use:   "convert --to DRIVER IMAGE...",
		Short: "Copy or move images to another storage driver, or another store",
		Long: `Copy images and their layers to another storage driver of the same store, or to
another store. Ids and digests stay, and every layer's is checked on the way. Layers
that are there already are not copied again.

With --remove the images are taken away here afterwards; lamina gc removes their
layers.`,
		Example: `  lamina image convert --to btrfs app
  lamina image convert --to-root /srv/lamina --remove app && lamina gc`,
		Args: args(1, -1, "at least one IMAGE"),
	}
	onStore(cmd, &f, func(ctx context.Context, s *store.Store, names []string) error {
		other, err := to.open(ctx, &f)
		if err != nil {
			return err
		}
		defer other.Close()
		tell, end := transfer("convert")
		defer end()
		var done []store.Image
		var failed []error
		for _, name := range names {
			i, err := s.Image(name)
			if err == nil {
				i, err = oci.Copy(ctx, s, other, i, oci.LoadOptions{Progress: tell})
			}
			if err == nil && to.remove {
				err = s.RemoveImage(i.ID)
			}
			if err != nil {
				failed = append(failed, err)
				continue
			}
			done = append(done, i)
		}
		end()
		if f.json {
			failed = append(failed, printJSON(cmd.OutOrStdout(), describeImages(done)))
		}
		return errors.Join(failed...)
	})
	to.add(cmd)
	return cmd
}
