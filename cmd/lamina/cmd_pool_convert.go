package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

func newPoolConvert() *cobra.Command {
	var f poolFlags
	var a poolserver.Convert
	var rate byteSize
	cmd := &cobra.Command{
		Use:   "convert [--data PROFILE] [--metadata PROFILE] POOL",
		Short: "Give what a pool holds another profile",
		Long: `Give the data of a pool another profile, single, mirror, raidz1 or raidz2, while the
pool is in use: for example after devices were added. It is refused, with numbers,
when the devices are too few or too small for what the pool holds. It goes on when the
command is interrupted or the server is killed; "lamina pool status" shows how far it
is. What is paused is whole: some of it has the one profile, some the other.

Metadata is single, or mirrored by a replica in --replica FILE, which best lies on
another disk, or in the pool's directory.`,
		Example: `  lamina pool add tank /dev/sdc
  lamina pool convert --data mirror --metadata mirror --replica /mnt/other/tank-meta.db tank
  lamina pool convert --data raidz1 --rate 50M --detach tank
  lamina pool convert --pause tank; lamina pool convert --resume tank`,
		Args: args(1, 1, "POOL"),
	}
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if a.Data == "" && a.Metadata == "" && !a.Resume && !a.Pause {
			return usageError{fmt.Errorf("say what is to be converted: --data PROFILE, --metadata PROFILE, or both")}
		}
		if a.Resume && a.Data != "" {
			return usageError{fmt.Errorf("--resume goes on to the profile that was given before; leave out --data")}
		}
		return nil
	}
	onPool(cmd, &f, func(ctx context.Context, c *poolserver.Client, _ []string) error {
		a.Rate = int64(rate)
		if a.Replica != "" {
			var err error
			if a.Replica, err = filepath.Abs(a.Replica); err != nil {
				return err
			}
		}
		st, err := poolserver.PoolConvert.Call(ctx, c, a)
		if err != nil || f.json {
			return printed[blockpool.ConvertStatus](&f, cmd)(st, err)
		}
		if st.State != blockpool.ConvertNone {
			fmt.Fprintln(cmd.OutOrStdout(), convertText(&st))
		}
		return nil
	})
	flags := cmd.Flags()
	flags.StringVar(&a.Data, "data", "", "`PROFILE` that data is to have: single, mirror, raidz1 or raidz2")
	flags.StringVar(&a.Metadata, "metadata", "", "`PROFILE` that metadata is to have: single or mirror")
	flags.StringVar(&a.Replica, "replica", "", "mirror the metadata to `FILE`")
	flags.Var(&rate, "rate", "read `SIZE` per second at most")
	flags.BoolVar(&a.Resume, "resume", false, "go on with a conversion that was paused")
	flags.BoolVarP(&a.Detach, "detach", "d", false, "do not wait for its end")
	flags.BoolVar(&a.Pause, "pause", false, "pause the conversion that is under way")
	cmd.RegisterFlagCompletionFunc("data", cobra.FixedCompletions([]string{"single", "mirror", "raidz1", "raidz2"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("metadata", cobra.FixedCompletions([]string{"single", "mirror"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// convertText tells of a conversion.
func convertText(st *blockpool.ConvertStatus) string {
	switch st.State {
	case blockpool.ConvertFinished:
		return fmt.Sprintf("data converted to %s in %v on %s", st.Profile, st.Ended.Sub(st.Began).Round(1e9), clock(st.Ended))
	case blockpool.ConvertRunning:
		return fmt.Sprintf("data is being converted to %s since %s, %s of %s (%s)", st.Profile, clock(st.Began), sizeText(st.Done), sizeText(st.Total), percent(st.Done, st.Total))
	}
	text := fmt.Sprintf("conversion of data to %s %s at %s of %s (%s)", st.Profile, st.State, sizeText(st.Done), sizeText(st.Total), percent(st.Done, st.Total))
	if st.Error != "" {
		text += ": " + st.Error
	}
	return text
}
