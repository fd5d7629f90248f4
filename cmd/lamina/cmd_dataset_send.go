package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/backends/replication"
	"github.com/laminafs/lamina/blockpool"
)

func newDatasetDiff() *cobra.Command {
	var f poolFlags
	var types, plain, bare bool
	cmd := &cobra.Command{
		Use:   "diff [-F] [-H] [-h] POOL/DATASET@OLD POOL/DATASET[@NEW]",
		Short: "Tell what has changed since a snapshot",
		Long: `Tell which files differ between a snapshot and a later one, or the dataset as it is
now. The cost is that of what differs, not that of the dataset: content is the same if
it is shared, so in what was received from elsewhere all files differ. Lines begin with

  +  added    -  removed    M  changed    R  renamed

and paths from the root of the dataset, or from where it is mounted. What is not
printable in a path is \0 and three octal digits, as zfs diff writes it; -h leaves it
as it is. With --json each line is an object, which also says what of a file is
another: content, mode, owner, times, xattrs or links.`,
		Example: `  lamina dataset diff tank/home@monday tank/home
  lamina dataset diff -F tank/home@monday tank/home@tuesday
  lamina dataset diff --json tank/home@monday tank/home | jq -r 'select(.kind == "added").path'`,
		Args: args(1, 2, "POOL/DATASET@OLD and POOL/DATASET or POOL/DATASET@NEW"),
	}
	onDataset(cmd, &f, 0, func(ctx context.Context, c *poolserver.Client, pool string, names, _ []string) error {
		a := poolserver.DiffDatasets{From: names[0]}
		switch {
		case len(names) > 1:
			a.To = names[1]
		case strings.Contains(a.From, "@"):
			a.To = volumeOf(a.From)
		default:
			return usageError{fmt.Errorf("%s is no snapshot: name an older one first", joinDataset(pool, names[0]))}
		}
		if !strings.Contains(a.To, "@") {
			if err := syncMounts(ctx, c, []string{a.To}, false); err != nil {
				return err
			}
		}
		prefix, err := mountedOn(ctx, c, volumeOf(a.To))
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		var failed error
		bar := c.Progress
		c.Progress = func(p poolserver.Progress) {
			if p.Event == nil {
				if bar != nil {
					bar(p)
				}
				return
			}
			if failed == nil {
				failed = printDifference(out, p.Event, diffFormat{prefix, types, plain, bare, f.json})
			}
		}
		_, err = poolserver.DatasetDiff.Call(ctx, c, a)
		return errors.Join(inPool(pool, err), failed)
	})
	cmd.Flags().BoolVarP(&types, "types", "F", false, "show what each is: F file, / directory, @ symlink, | FIFO, = socket, B and C device")
	cmd.Flags().BoolVarP(&plain, "plain", "h", false, "paths as they are")
	cmd.Flags().BoolVarP(&bare, "scripted", "H", false, "one tab between columns, no arrow")
	cmd.Flags().Bool("help", false, "help for diff") // -h is taken
	return cmd
}

// mountedOn returns where a dataset is mounted, "" if nowhere.
func mountedOn(ctx context.Context, c *poolserver.Client, name string) (string, error) {
	list, err := poolserver.DatasetMounts.Call(ctx, c, poolserver.None{})
	for _, m := range list {
		if m.Dataset == name {
			return strings.TrimSuffix(m.Target, "/"), err
		}
	}
	return "", err
}

// A diffFormat says how a difference is printed.
type diffFormat struct {
	prefix      string
	types       bool
	plain, bare bool
	json        bool
}

// typeSigns are those of ls -F, as zfs diff has them.
var typeSigns = map[string]string{"file": "F", "directory": "/", "symlink": "@", "fifo": "|", "socket": "=", "block": "B", "char": "C"}

func printDifference(out interface{ Write([]byte) (int, error) }, event any, f diffFormat) error {
	raw, err := json.Marshal(event)
	if err != nil {
		return err
	}
	if f.json {
		_, err = fmt.Fprintf(out, "%s\n", raw)
		return err
	}
	var d poolserver.FileDifference
	if err := json.Unmarshal(raw, &d); err != nil {
		return err
	}
	if d.RawPath != nil {
		d.Path = string(d.RawPath)
	}
	if d.RawOldPath != nil {
		d.OldPath = string(d.RawOldPath)
	}
	_, err = fmt.Fprintln(out, f.line(d))
	return err
}

// line is a difference as "zfs diff" shows it.
func (f diffFormat) line(d poolserver.FileDifference) string {
	sign := map[string]string{"added": "+", "removed": "-", "changed": "M", "renamed": "R"}[d.Kind]
	columns := []string{sign}
	if f.types {
		columns = append(columns, typeSigns[d.Type])
	}
	switch path := f.path(d.Path); {
	case d.Kind != "renamed":
		columns = append(columns, path)
	case f.bare:
		columns = append(columns, f.path(d.OldPath), path)
	default:
		columns = append(columns, f.path(d.OldPath)+" -> "+path)
	}
	return strings.Join(columns, "\t")
}

// path is a path of one line.
func (f diffFormat) path(p string) string {
	p = f.prefix + p
	if f.plain {
		return p
	}
	var b strings.Builder
	for i := range len(p) {
		if c := p[i]; c > ' ' && c < 0x7f && c != '\\' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\%04o`, c)
		}
	}
	return b.String()
}

func newDatasetSend() *cobra.Command {
	var f poolFlags
	var a poolserver.Send
	var many replication.Wanted
	var all string
	cmd := &cobra.Command{
		Use:   "send [-R] [-p] [-i SNAPSHOT | -I SNAPSHOT] POOL/DATASET@SNAPSHOT | -t TOKEN POOL",
		Short: "Write a snapshot as a stream to stdout",
		Long: `Write a snapshot as a stream to stdout, for "lamina dataset receive": all of it, or
with -i what differs from a snapshot that the other side has, which may be @NAME
alone. Everything in it has a checksum. A stream that was cut off goes on where the
other side says: lamina dataset receive --token.

-I is -i with all snapshots in between. -R sends all that lies below the dataset too,
with the properties that were set there and, unless -i says otherwise, all snapshots up
to the one that is named; clones arrive as clones. What is below and has no snapshot of
that name is an error, or left out with --skip-missing; what has not the snapshot that
-i or -I names is sent in full. When such a stream was cut off, send the same again: what
has arrived is left out. Subvolumes are datasets of their own, and arrive as such: their
directories in the dataset above them stay empty.`,
		Example: `  lamina dataset send tank/home@monday | ssh host lamina dataset receive backup/home
  lamina dataset send -i @monday tank/home@tuesday | ssh host lamina dataset receive backup/home
  lamina dataset send -R tank/home@monday | ssh host lamina dataset receive backup/home
  lamina dataset send -R -I @monday tank/home@friday | ssh host lamina dataset receive backup/home
  lamina dataset send -t "$(ssh host lamina dataset receive --token backup/home)" tank | …`,
		Args: args(1, 1, "POOL/DATASET@SNAPSHOT, or with -t POOL"),
	}
	onDataset(cmd, &f, 0, func(ctx context.Context, c *poolserver.Client, pool string, names, _ []string) error {
		from, err := sentFrom(cmp.Or(all, a.From), pool, names[0])
		if err != nil {
			return err
		}
		a.Snapshot, a.From = names[0], from
		if !many.Recursive && !many.Properties && all == "" {
			_, err := poolserver.VolumeSend.Call(ctx, c, a, os.Stdout)
			return inPool(pool, err)
		}
		many.All = all != "" || many.Recursive && from == ""
		many.Properties = many.Properties || many.Recursive
		many.Top, many.Snapshot, _ = strings.Cut(a.Snapshot, "@")
		if of, snap, _ := strings.Cut(from, "@"); of == many.Top || from == "" {
			many.From = snap
		} else {
			return usageError{fmt.Errorf("%s is no snapshot of %s, as -R, -I and -p need it", joinDataset(pool, from), joinDataset(pool, many.Top))}
		}
		return inPool(pool, sendMany(ctx, c, many, a.Compression, os.Stdout))
	})
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		switch {
		case isTerminal(os.Stdout):
			return usageError{errors.New("a stream is not for a terminal: send stdout to a file or a pipe")}
		case a.Token == "" && !strings.Contains(args[0], "@"):
			return usageError{fmt.Errorf("%s is no snapshot: make one with lamina dataset snapshot and send that", args[0])}
		case a.Token != "" && (strings.ContainsAny(args[0], "/@") || a.From != "" || all != "" || many != replication.Wanted{}):
			return usageError{errors.New("-t says itself what to send; name the POOL alone and leave -i, -I, -R and -p out")}
		case a.From != "" && all != "":
			return usageError{errors.New("say -i or -I, not both")}
		case many.SkipMissing && !many.Recursive:
			return usageError{errors.New("--skip-missing is about what lies below: it needs -R")}
		}
		return nil
	}
	cmd.Flags().MarkHidden("json")
	cmd.Flags().StringVarP(&a.From, "from", "i", "", "send what differs from `SNAPSHOT`")
	cmd.Flags().StringVarP(&all, "intermediate", "I", "", "send all snapshots since `SNAPSHOT`, one after the other")
	cmd.Flags().BoolVarP(&many.Recursive, "replicate", "R", false, "also what lies below, with properties and earlier snapshots")
	cmd.Flags().BoolVarP(&many.Properties, "props", "p", false, "with the properties that were set on the dataset")
	cmd.Flags().BoolVarP(&many.SkipMissing, "skip-missing", "s", false, "leave out what lies below and has no such snapshot")
	cmd.Flags().StringVarP(&a.Token, "resume", "t", "", "go on where `TOKEN` says")
	cmd.Flags().IntVarP(&a.Compression, "compress", "c", 0, "compress, from 1 (fastest) to 4 (smallest) as `LEVEL` says; 0: not")
	return cmd
}

// sentFrom returns the name in the pool of the snapshot that a stream begins with, which
// may be given as @NAME alone.
func sentFrom(from, pool, snapshot string) (string, error) {
	if from == "" || from[0] == '@' {
		if from != "" {
			from = volumeOf(snapshot) + from
		}
		return from, nil
	}
	in, name, err := splitDataset(from)
	if err == nil && in != pool {
		err = usageError{fmt.Errorf("%s is in another pool than %s", from, joinDataset(pool, snapshot))}
	}
	return name, err
}

func newDatasetReceive() *cobra.Command {
	var f poolFlags
	var a poolserver.Receive
	var token, abort bool
	var set, exclude []string
	cmd := &cobra.Command{
		Use:     "receive [-F] [-o PROPERTY=VALUE]... [-x PROPERTY]... POOL[/DATASET[@SNAPSHOT]]",
		Aliases: []string{"recv"},
		Short:   "Make a snapshot from a stream on stdin",
		Long: `Make the snapshot that a stream on stdin brings; a full stream makes its dataset too.
Names are those of the stream unless others are given. Nothing is to be seen of it
before all has arrived. The dataset must not be mounted meanwhile.

A stream of many snapshots (send -R, -I, -p) makes them one after the other, leaves out
those that are here already, and sets the properties that come with it, but those of -x;
nothing that the sender has no more is removed. -o sets a property of the topmost
dataset instead of what comes with the stream; -o origin=POOL/DATASET@SNAPSHOT makes a
new dataset as a clone of the snapshot that the stream begins with.

When the stream is cut off, what has arrived stays: --token tells where the sender
can go on, and --abort removes it.`,
		Example: `  lamina dataset receive -x mountpoint -o readonly=on backup/home < home.stream
  lamina dataset receive backup/home < home.stream
  lamina dataset receive --abort backup/home`,
		Args: args(1, 1, "POOL, or POOL/DATASET or POOL/DATASET@SNAPSHOT for another name than the stream's"),
	}
	onDataset(cmd, &f, 0, func(ctx context.Context, c *poolserver.Client, pool string, names, _ []string) error {
		a.Name = names[0]
		switch {
		case (token || abort) && a.Name == "":
			return usageError{errors.New("--token and --abort need POOL/DATASET; see: lamina dataset receive --help")}
		case token:
			text, err := poolserver.VolumeReceiveToken.Call(ctx, c, poolserver.Name{Name: a.Name})
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			}
			return inPool(pool, err)
		case abort:
			_, err := poolserver.VolumeReceiveAbort.Call(ctx, c, poolserver.Name{Name: a.Name})
			return inPool(pool, err)
		}
		r, err := receivedWith(&a, pool, set, exclude)
		if err != nil {
			return err
		}
		told := func(info blockpool.VolumeInfo) error {
			info.Name = joinDataset(pool, info.Name)
			return printed[blockpool.VolumeInfo](&f, cmd)(info, nil)
		}
		return inPool(pool, receive(ctx, c, a, os.Stdin, r, told))
	})
	cmd.Flags().BoolVarP(&a.Force, "force", "F", false, "drop what was written since the snapshot that the stream begins with")
	cmd.Flags().StringArrayVarP(&set, "option", "o", nil, "set `PROPERTY=VALUE` on the topmost dataset")
	cmd.Flags().StringSliceVarP(&exclude, "exclude", "x", nil, "leave `PROPERTY` as it is here, or is inherited here")
	cmd.Flags().BoolVar(&token, "token", false, "print where the sender of a stream that was cut off can go on")
	cmd.Flags().BoolVar(&abort, "abort", false, "remove what has arrived of a stream that was cut off")
	return cmd
}
