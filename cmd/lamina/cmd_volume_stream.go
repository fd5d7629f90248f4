package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
)

// rangeFlags name a part of a volume.
type rangeFlags struct{ offset, length byteSize }

func (r *rangeFlags) add(cmd *cobra.Command, length string) {
	cmd.Flags().Var(&r.offset, "offset", "begin at byte `SIZE`")
	if length != "" {
		cmd.Flags().Var(&r.length, "length", length)
	}
}

func (r *rangeFlags) of(name string) poolserver.Range {
	return poolserver.Range{Name: name, Offset: int64(r.offset), Length: int64(r.length)}
}

func newVolumeRead() *cobra.Command {
	var f poolFlags
	var part rangeFlags
	cmd := &cobra.Command{
		Use:   "read [--offset SIZE] [--length SIZE] POOL VOLUME",
		Short: "Write what a volume has to stdout",
		Long: `Write what a volume or snapshot has to stdout. A file there gets holes where there
are zeros.`,
		Example: `  lamina volume read --offset 1M --length 4K tank data | xxd
  lamina volume read tank data@monday > data.img`,
		Args: args(2, 2, "POOL and VOLUME"),
	}
	onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		return readTo(ctx, c, part.of(args[0]))
	})
	cmd.Flags().MarkHidden("json") // stdout is for the data
	part.add(cmd, "read `SIZE` bytes; all")
	return cmd
}

// readTo has the server write a part of a volume to stdout.
func readTo(ctx context.Context, c *poolserver.Client, part poolserver.Range) error {
	if isTerminal(os.Stdout) {
		return usageError{errors.New("what a volume has is not for a terminal: send stdout to a file or a pipe")}
	}
	_, err := poolserver.VolumeRead.Call(ctx, c, part, os.Stdout)
	return err
}

func newVolumeWrite() *cobra.Command {
	var f poolFlags
	var part rangeFlags
	cmd := &cobra.Command{
		Use:   "write [--offset SIZE] POOL VOLUME",
		Short: "Write stdin to a volume",
		Long: `Write stdin to a volume. When it ends with status 0, all of it would survive a crash
of the machine.`,
		Example: `  lamina volume write tank data < data.img
  echo hello | lamina volume write --offset 1M tank data`,
		Args: args(2, 2, "POOL and VOLUME"),
	}
	onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		a := poolserver.WriteVolume{Name: args[0], Offset: int64(part.offset)}
		return printed[poolserver.Moved](&f, cmd)(poolserver.VolumeWrite.Call(ctx, c, a, os.Stdin))
	})
	part.add(cmd, "")
	return cmd
}

func newVolumeTrim() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:   "trim POOL VOLUME",
		Short: "Give back what is full of zeros",
		Long: `Read all of a volume and give the space of records that are full of zeros back to the
pool. What the volume has stays as it is. What a filesystem in it no longer needs it
knows itself: fstrim(8).`,
		Example: `  lamina volume trim tank data`,
		Args:    args(2, 2, "POOL and VOLUME"),
	}
	return onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		freed, err := poolserver.VolumeTrim.Call(ctx, c, poolserver.Name{Name: args[0]})
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), freed)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s given back\n", sizeText(freed.Bytes))
		return err
	})
}

func newVolumeDiscard() *cobra.Command {
	var f poolFlags
	var part rangeFlags
	cmd := &cobra.Command{
		Use:   "discard --offset SIZE --length SIZE POOL VOLUME",
		Short: "Make part of a volume zeros and give its space back",
		Long: `Make part of a volume read as zeros, and give its space back to the pool. What was
there is lost.`,
		Example: `  lamina volume discard --offset 1G --length 512M tank data`,
		Args:    args(2, 2, "POOL and VOLUME"),
	}
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if !cmd.Flags().Changed("offset") || part.length == 0 {
			return usageError{errors.New("discard loses data: say which, by --offset and --length")}
		}
		return nil
	}
	onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		return printed[poolserver.None](&f, cmd)(poolserver.VolumeDiscard.Call(ctx, c, part.of(args[0])))
	})
	part.add(cmd, "`SIZE` of the part")
	return cmd
}
