package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

func newVolumeSend() *cobra.Command {
	var f poolFlags
	var a poolserver.Send
	cmd := &cobra.Command{
		Use:   "send [--from SNAPSHOT] POOL VOLUME@NAME",
		Short: "Write a snapshot as a stream to stdout",
		Long: `Write a snapshot as a stream to stdout, for "lamina volume receive": all of it, or
with --from what differs from a snapshot that the other side has. Everything in it
has a checksum.

A stream that was cut off goes on where the other side says:
lamina volume receive --token.`,
		Example: `  lamina volume send tank data@monday | ssh host lamina volume receive backup
  lamina volume send --from data@monday tank data@tuesday | ssh host lamina volume receive backup
  lamina volume send --resume "$(ssh host lamina volume receive --token backup data)" tank | …`,
		Args: args(1, 2, "POOL and VOLUME@NAME"),
	}
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		switch {
		case isTerminal(os.Stdout):
			return usageError{errors.New("a stream is not for a terminal: send stdout to a file or a pipe")}
		case a.Token == "" && len(args) < 2:
			return usageError{errors.New("send needs VOLUME@NAME, or --resume; see: lamina volume send --help")}
		case a.Token != "" && (len(args) > 1 || a.From != ""):
			return usageError{errors.New("--resume says itself what to send; leave VOLUME@NAME and --from out")}
		}
		return nil
	}
	onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		if len(args) > 0 {
			a.Snapshot = args[0]
		}
		_, err := poolserver.VolumeSend.Call(ctx, c, a, os.Stdout)
		return err
	})
	cmd.Flags().MarkHidden("json")
	cmd.Flags().StringVarP(&a.From, "from", "i", "", "send what differs from `SNAPSHOT`")
	cmd.Flags().StringVarP(&a.Token, "resume", "t", "", "go on where `TOKEN` says")
	cmd.Flags().IntVarP(&a.Compression, "compress", "c", 0, "compress, from 1 (fastest) to 4 (smallest) as `LEVEL` says; 0: not")
	return cmd
}

func newVolumeReceive() *cobra.Command {
	var f poolFlags
	var a poolserver.Receive
	var token, abort bool
	cmd := &cobra.Command{
		Use:   "receive [--force] POOL [VOLUME[@NAME]]",
		Short: "Make a snapshot from a stream on stdin",
		Long: `Make the snapshot that a stream on stdin brings; a full stream makes its volume too.
Names are those of the stream unless others are given. Nothing is to be seen of it
before all has arrived.

When the stream is cut off, what has arrived stays: --token tells where the sender
can go on, and --abort removes it.`,
		Example: `  lamina volume receive backup < data.stream
  lamina volume receive backup old/data@monday < data.stream
  lamina volume receive --abort backup data`,
		Args: args(1, 2, "POOL and, for another name than the stream's, VOLUME or VOLUME@NAME"),
	}
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		if (token || abort) && len(args) < 2 {
			return usageError{errors.New("--token and --abort need VOLUME; see: lamina volume receive --help")}
		}
		return nil
	}
	onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		if len(args) > 0 {
			a.Name = args[0]
		}
		switch {
		case token:
			text, err := poolserver.VolumeReceiveToken.Call(ctx, c, poolserver.Name{Name: a.Name})
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			}
			return err
		case abort:
			return printed[poolserver.None](&f, cmd)(poolserver.VolumeReceiveAbort.Call(ctx, c, poolserver.Name{Name: a.Name}))
		}
		return printed[blockpool.VolumeInfo](&f, cmd)(poolserver.VolumeReceive.Call(ctx, c, a, os.Stdin))
	})
	cmd.Flags().BoolVarP(&a.Force, "force", "f", false, "drop what was written since the snapshot that the stream begins with")
	cmd.Flags().BoolVar(&token, "token", false, "print where the sender of a stream that was cut off can go on")
	cmd.Flags().BoolVar(&abort, "abort", false, "remove what has arrived of a stream that was cut off")
	return cmd
}

func newVolumeUsage() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:   "usage POOL VOLUME...",
		Short: "Tell what removing volumes and snapshots would bring back",
		Long: `Tell how much of what volumes and snapshots hold nobody else has: what removing all
of them together would bring back.`,
		Example: `  lamina volume usage tank data@monday data@tuesday`,
		Args:    args(2, -1, "POOL and at least one VOLUME or VOLUME@NAME"),
	}
	return onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		u, err := poolserver.VolumeUsage.Call(ctx, c, poolserver.Names{Names: args})
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), u)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "referenced  %s\nexclusive   %s\n", sizeText(u.Referenced), sizeText(u.Exclusive))
		return err
	})
}

func newVolumeDelta() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:   "delta POOL [FROM] TO",
		Short: "Tell what differs between two volumes or snapshots",
		Long: `Print the parts of TO that are not as they are in FROM: offset and length in bytes,
and whether they were written or are a hole now. Without FROM, what TO holds.`,
		Example: `  lamina volume delta tank data@monday data@tuesday`,
		Args:    args(2, 3, "POOL, FROM and TO, two volumes or snapshots"),
	}
	return onVolume(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		out := cmd.OutOrStdout()
		c.Progress = eachEvent(out, f.json, func(d poolserver.Difference) { fmt.Fprintf(out, "%d\t%d\t%s\n", d.Offset, d.Length, d.Kind) })
		a := poolserver.Delta{To: args[len(args)-1]}
		if len(args) > 1 {
			a.From = args[0]
		}
		_, err := poolserver.VolumeDelta.Call(ctx, c, a)
		return err
	})
}
