package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs"
)

// serverEnd is how long umount waits for a server to write what is left and
// let go of the layers, so that they can be mounted again at once.
const serverEnd = 10 * time.Second

func newUmount() *cobra.Command {
	var lazy bool
	cmd := &cobra.Command{
		Use:     "umount [-l] TARGET...",
		Aliases: []string{"unmount"},
		Short:   "Unmount unions",
		Long: `Unmount what is mounted on each TARGET, by oneself or by fusermount3, and wait
for its server to end.

A mount whose files are in use is busy and stays; with --lazy it goes out of
sight at once and ends when the last file is closed.`,
		Example: `  lamina umount /mnt/x
  lamina umount -l /mnt/busy`,
		Args:              args(1, -1, "at least one TARGET"),
		ValidArgsFunction: completeMounts,
		RunE: func(_ *cobra.Command, targets []string) error {
			var failed []error
			for _, target := range targets {
				failed = append(failed, unmount(target, lazy))
			}
			return errors.Join(failed...)
		},
	}
	cmd.Flags().BoolVarP(&lazy, "lazy", "l", false, "also when it is busy")
	return cmd
}

func unmount(target string, lazy bool) error {
	server, err := fusefs.Dial(target)
	if err != nil { // not ours to wait for: the kernel's overlayfs, say
		return fusefs.Unmount(target, lazy)
	}
	defer server.Close()
	err = fusefs.Unmount(target, lazy)
	// EINVAL: it is mounted in another mount namespace, that of its server. EBUSY:
	// the server of volumes can tell which loop devices use it.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY) {
		err = server.Unmount(lazy)
	}
	if err != nil || lazy {
		return err
	}
	err = server.WaitEnd(serverEnd)
	if elsewhere := (*fusefs.ElsewhereError)(nil); errors.As(err, &elsewhere) {
		tellElsewhere(elsewhere.Error())
		return nil
	}
	return err
}

// tellElsewhere says that what was unmounted goes on for others.
func tellElsewhere(how string) { fmt.Fprintln(os.Stderr, "lamina:", how) }
