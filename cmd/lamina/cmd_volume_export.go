package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/backends/serve"
)

// exportFlags say how to export.
type exportFlags struct {
	poolFlags
	fuse, nbd  string
	loop, raw  bool
	allowOther bool
	readOnly   bool
}

func newVolumeExport() *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export [--fuse DIR | --nbd SOCKET | --loop | --raw] POOL [VOLUME]",
		Short: "Let other programs use volumes",
		Long: `Let other programs use the volumes of a pool; without a flag, list who may.

--fuse shows all volumes and snapshots as files in the directory DIR, for losetup,
qemu, fuse2fs or dd. --nbd serves VOLUME, or all of them by name, on the Unix socket
SOCKET, for qemu, nbdcopy or nbd-client. --loop makes a loop device of VOLUME and
prints its name: root only, also of a pool that is another user's, where a new size of
the volume reaches the device only when it is exported again. --raw writes VOLUME to stdout, with holes if that is a
file.

The server of the pool runs as long as there is an export; lamina volume unexport
ends one.`,
		Example: `  mount $(lamina volume export --loop tank data) /mnt
  lamina volume export --fuse ~/volumes tank
  lamina volume export --nbd /run/me/nbd tank data && nbdinfo nbd+unix:///data?socket=/run/me/nbd
  lamina volume export --raw tank data@monday > data.img
  lamina volume export tank`,
		Args: args(1, 2, "POOL and, with --loop or --raw, VOLUME"),
	}
	cmd.PreRunE = func(_ *cobra.Command, args []string) error { return f.check(args) }
	onVolume(cmd, &f.poolFlags, func(ctx context.Context, c *poolserver.Client, args []string) error {
		return f.run(ctx, c, cmd.OutOrStdout(), append(args, "")[0])
	})
	flags := cmd.Flags()
	flags.StringVar(&f.fuse, "fuse", "", "show all volumes as files in `DIR`")
	flags.StringVar(&f.nbd, "nbd", "", "serve NBD on the Unix socket `SOCKET`")
	flags.BoolVar(&f.loop, "loop", false, "make a loop device of VOLUME and print its name")
	flags.BoolVar(&f.raw, "raw", false, "write VOLUME to stdout")
	flags.BoolVar(&f.readOnly, "read-only", false, "with --loop: a device that cannot be written")
	flags.BoolVar(&f.allowOther, "allow-other", false, "with --fuse: let root in where an ordinary user exports")
	cmd.MarkFlagDirname("fuse")
	return cmd
}

// check refuses what makes no sense before a server is started for it.
func (f *exportFlags) check(args []string) error {
	ways := 0
	for _, way := range []bool{f.fuse != "", f.nbd != "", f.loop, f.raw} {
		if way {
			ways++
		}
	}
	switch volume := len(args) > 1; {
	case ways > 1:
		return usageError{errors.New("--fuse, --nbd, --loop and --raw are four ways to export; take one at a time")}
	case (f.loop || f.raw) && !volume:
		return usageError{errors.New("--loop and --raw take one VOLUME; see: lamina volume export --help")}
	case f.fuse != "" && volume:
		return usageError{errors.New("--fuse shows all volumes; leave VOLUME out")}
	case volume && !f.loop && !f.raw && f.nbd == "":
		return usageError{errors.New("say how to export it: --fuse DIR, --nbd SOCKET, --loop or --raw")}
	case f.loop && os.Geteuid() != 0:
		return fmt.Errorf("--loop: %w: only root makes loop devices; use --fuse or --nbd", unix.EPERM)
	}
	return nil
}

func (f *exportFlags) run(ctx context.Context, c *poolserver.Client, out io.Writer, volume string) error {
	switch {
	case f.raw:
		return readTo(ctx, c, poolserver.Range{Name: volume})
	case f.loop:
		device, err := loopOf(ctx, c, volume, f.readOnly)
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(out, map[string]string{"device": device})
		}
		_, err = fmt.Fprintln(out, device)
		return err
	case f.fuse != "":
		target, err := filepath.Abs(f.fuse)
		if err != nil {
			return err
		}
		return f.exported(out)(poolserver.ExportMount.Call(ctx, c, poolserver.Mount{Target: target, AllowOther: f.allowOther}))
	case f.nbd != "":
		socket, err := filepath.Abs(f.nbd)
		if err != nil {
			return err
		}
		return f.exported(out)(poolserver.ExportListen.Call(ctx, c, poolserver.Listen{Socket: socket, Volume: volume}))
	}
	list, err := poolserver.ExportList.Call(ctx, c, poolserver.None{})
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(out, list)
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, e := range list {
		fmt.Fprintln(w, exportText(e))
	}
	return w.Flush()
}

func (f *exportFlags) exported(out io.Writer) func(poolserver.ExportInfo, error) error {
	return func(e poolserver.ExportInfo, err error) error {
		if err != nil || !f.json {
			return err
		}
		return printJSON(out, e)
	}
}

// exportText tells of an export.
func exportText(e poolserver.ExportInfo) string {
	text := e.Kind + " " + e.Target
	if e.Volume != "" {
		text += " of " + e.Volume
	}
	if e.InUse > 0 {
		text += fmt.Sprintf(", in use by %d", e.InUse)
	}
	for _, l := range e.Loops {
		text += ", " + l.String()
	}
	return text
}

// loopOf makes a loop device of a volume: a file in a mount that all loop devices
// of the pool share.
func loopOf(ctx context.Context, c *poolserver.Client, volume string, readOnly bool) (string, error) {
	e, err := poolserver.ExportMount.Call(ctx, c, poolserver.Mount{})
	if err != nil {
		return "", err
	}
	argv := []string{"--find", "--show", "--direct-io=on"}
	readOnly = readOnly || strings.Contains(volume, "@")
	if readOnly {
		argv = append(argv, "--read-only")
	}
	file := filepath.Join(e.Target, volume)
	_, err = os.Stat(file)
	if errors.Is(err, unix.EACCES) { // the pool is another user's, and so is the mount
		device, err := serve.AttachOthers(e.Target, file, readOnly)
		if err != nil {
			return "", errors.Join(fmt.Errorf("export %s: %w", volume, err), endIfUnused(ctx, c, e.Target))
		}
		return device, nil
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("export %s: %w", volume, err), endIfUnused(ctx, c, e.Target))
	}
	device, err := losetup(ctx, append(argv, file)...)
	if err != nil {
		return "", errors.Join(fmt.Errorf("export %s: %w", volume, err), endIfUnused(ctx, c, e.Target))
	}
	return device, nil
}

// losetup runs losetup(8), which knows how to find a free device.
func losetup(ctx context.Context, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "losetup", argv...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(stderr.String()); text != "" {
			return "", errors.New(text)
		}
		return "", fmt.Errorf("losetup: %w", err)
	}
	return strings.TrimSpace(stdout.String()), nil
}

// endIfUnused ends an export, unless somebody uses it. A loop device lets go of its
// file a moment after it was taken away.
func endIfUnused(ctx context.Context, c *poolserver.Client, target string) error {
	for end := time.Now().Add(2 * time.Second); ; {
		list, err := poolserver.ExportList.Call(ctx, c, poolserver.None{})
		if err != nil {
			return err
		}
		for _, e := range list {
			if e.Target == target && len(e.Loops) > 0 {
				return nil
			}
		}
		_, err = poolserver.ExportEnd.Call(ctx, c, poolserver.End{Target: target})
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func newVolumeUnexport() *cobra.Command {
	var f poolFlags
	var force bool
	cmd := &cobra.Command{
		Use:   "unexport [--force] POOL TARGET",
		Short: "End an export",
		Long: `End an export: TARGET is the directory of --fuse, the socket of --nbd, or the loop
device. It is refused while somebody uses it. With --force, clients of NBD are
disconnected, and a mount goes out of sight.`,
		Example: `  lamina volume unexport tank /dev/loop3
  lamina volume unexport tank ~/volumes`,
		Args: args(2, 2, "POOL and TARGET, a directory, socket or loop device"),
	}
	onPool(cmd, &f, func(ctx context.Context, c *poolserver.Client, args []string) error {
		target, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		if strings.HasPrefix(target, "/dev/loop") {
			return unloop(ctx, c, target)
		}
		return printed[poolserver.None](&f, cmd)(poolserver.ExportEnd.Call(ctx, c, poolserver.End{Target: target, Force: force}))
	})
	cmd.Flags().MarkHidden("json")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also while it is in use")
	return cmd
}

// unloop takes a loop device away, and ends the mount that it lay in if that was
// made for loop devices.
func unloop(ctx context.Context, c *poolserver.Client, device string) error {
	list, err := poolserver.ExportList.Call(ctx, c, poolserver.None{})
	if err != nil {
		return err
	}
	for _, e := range list {
		for _, l := range e.Loops {
			switch {
			case l.Device != device:
				continue
			case len(l.Mounts) > 0:
				return fmt.Errorf("unexport %s: %w: it is mounted on %s; first run: umount %s", device, unix.EBUSY, strings.Join(l.Mounts, " and "), l.Mounts[0])
			}
			if _, err := losetup(ctx, "--detach", device); err != nil {
				return fmt.Errorf("unexport %s: %w", device, err)
			}
			if !e.Private {
				return nil
			}
			return endIfUnused(ctx, c, e.Target)
		}
	}
	return fmt.Errorf("unexport %s: %w: it is no loop device of the pool; see: lamina volume export %s", device, unix.ENOENT, c.PoolDir())
}
