package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/fs/fusefs"
)

func newSubvolume() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "subvolume",
		Aliases: []string{"subvol"},
		Short:   "Work on the subvolumes of a mounted dataset, by path",
		Long: `A subvolume is a directory in a mounted dataset that is a dataset of its own: it is
snapshotted and deleted as a whole, and other snapshots leave it out. These commands
take paths, as btrfs does; lamina dataset takes names and does more.`,
		Example: `  lamina subvolume create ~/x/src
  lamina subvolume snapshot -r ~/x/src ~/x/src-monday
  lamina subvolume list ~/x`,
		Args: unknownVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSubvolumeCreate(), newSubvolumeSnapshot(), newSubvolumeDelete(), newSubvolumeList(), newSubvolumeShow())
	return cmd
}

// A mountedPath is a path in a mounted dataset, and the server to ask.
type mountedPath struct {
	*poolserver.Client
	pool   string
	target string // where the dataset is mounted
	rest   string // from there; "." is the root
}

// findMount finds the dataset that a path, which is there, lies in.
func findMount(path string) (*mountedPath, error) {
	abs, err := filepath.Abs(path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return nil, err
	}
	var st, up unix.Stat_t
	if err := unix.Stat(abs, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: abs, Err: err}
	}
	target := abs
	for target != "/" && unix.Stat(filepath.Dir(target), &up) == nil && up.Dev == st.Dev {
		target = filepath.Dir(target)
	}
	server, err := fusefs.Dial(target)
	if err != nil {
		return nil, fmt.Errorf("%s lies in no mounted dataset; see: lamina dataset mount (%w)", path, err)
	}
	defer server.Close()
	options, err := server.Options()
	if err != nil {
		return nil, err
	}
	place, _, ok := poolserver.PlaceOf(options)
	if !ok {
		return nil, fmt.Errorf("%s lies in a mount of %s and in no dataset: %w; see: lamina dataset mount", path, server.Info.Type, unix.EINVAL)
	}
	rest, err := filepath.Rel(server.Info.Target, abs)
	if err != nil || strings.HasPrefix(rest, "..") {
		if rest, err = filepath.Rel(target, abs); err != nil { // it is seen through a bind mount
			return nil, err
		}
	}
	c, err := place.Dial()
	if err != nil {
		return nil, err
	}
	return &mountedPath{c, place.Name(), server.Info.Target, rest}, nil
}

// inodeOf returns the inode number of a path.
func inodeOf(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// spotOf returns the place of a name in a mounted dataset, and its server.
func spotOf(path string) (*mountedPath, poolserver.Spot, error) {
	dir, name := filepath.Split(filepath.Clean(path))
	if name == "" || name == "." || name == ".." {
		return nil, poolserver.Spot{}, usageError{fmt.Errorf("%s ends with no name", path)}
	}
	if dir == "" {
		dir = "."
	}
	m, err := findMount(dir)
	if err != nil {
		return nil, poolserver.Spot{}, err
	}
	ino, err := inodeOf(dir)
	if err == nil {
		err = unix.Access(dir, unix.W_OK|unix.X_OK)
	}
	if err != nil {
		m.Close()
		return nil, poolserver.Spot{}, &os.PathError{Op: "write to", Path: dir, Err: err}
	}
	return m, poolserver.Spot{Target: m.target, Dir: []byte(m.rest), DirIno: ino, Name: []byte(name)}, nil
}

// quoted is a path as btrfs prints it, or escaped where it would not stay on one line.
func quoted(path string) string {
	if s := strconv.Quote(path); s != `"`+path+`"` {
		return s
	}
	return "'" + path + "'"
}

// onPath runs something with a context that ends with ^C.
func onPath(run func(ctx context.Context) error) error {
	ctx, stop := interruptible()
	defer stop()
	return run(ctx)
}

// printSubvolume says what was made.
func printSubvolume(cmd *cobra.Command, asJSON bool, pool string, v poolserver.Subvolume, text string) error {
	if asJSON {
		v.Dataset = joinDataset(pool, v.Dataset)
		return printJSON(cmd.OutOrStdout(), v)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}

func newSubvolumeCreate() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "create PATH...",
		Short:   "Make subvolumes",
		Example: `  lamina subvolume create ~/x/src`,
		Args:    args(1, -1, "at least one PATH, which is not there yet"),
		RunE: func(cmd *cobra.Command, paths []string) error {
			return onPath(func(ctx context.Context) error {
				for _, path := range paths {
					m, spot, err := spotOf(path)
					if err != nil {
						return err
					}
					v, err := poolserver.SubvolumeCreate.Call(ctx, m.Client, spot)
					m.Close()
					if err != nil {
						return fmt.Errorf("create subvolume %s: %w", path, err)
					}
					if err := printSubvolume(cmd, asJSON, m.pool, v, "Create subvolume "+quoted(path)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newSubvolumeSnapshot() *cobra.Command {
	var asJSON, readOnly bool
	cmd := &cobra.Command{
		Use:   "snapshot [-r] SOURCE DEST",
		Short: "Make a subvolume with what another one has",
		Long: `Make a subvolume with what the subvolume SOURCE has now, in one step that costs the
same however large that is; the two share what neither changes. DEST is its path, or a
directory that it gets SOURCE's name in; it must lie in the same mounted dataset. With
-r nothing can be changed in it. SOURCE may be where the dataset is mounted. Subvolumes
in SOURCE are left out.`,
		Example: `  lamina subvolume snapshot ~/x/src ~/x/try
  lamina subvolume snapshot -r ~/x ~/x/monday`,
		Args: args(2, 2, "SOURCE and DEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			source, dest := args[0], args[1]
			if st, err := os.Stat(dest); err == nil && st.IsDir() {
				abs, err := filepath.Abs(source)
				if err != nil {
					return err
				}
				dest = filepath.Join(dest, filepath.Base(abs))
			}
			from, err := findMount(source)
			if err != nil {
				return err
			}
			from.Close()
			ino, err := inodeOf(source)
			if err != nil {
				return err
			}
			m, spot, err := spotOf(dest)
			if err != nil {
				return err
			}
			defer m.Close()
			if m.target != from.target {
				return fmt.Errorf("snapshot %s: %s lies in another mount: %w; see: lamina dataset clone", source, dest, unix.EXDEV)
			}
			if err := syncDir(source); err != nil {
				return fmt.Errorf("write out what %s has: %w", source, err)
			}
			return onPath(func(ctx context.Context) error {
				v, err := poolserver.SubvolumeSnapshot.Call(ctx, m.Client, poolserver.SnapshotSubvolume{To: spot, SourceIno: ino, ReadOnly: readOnly})
				if err != nil {
					return fmt.Errorf("snapshot %s: %w", source, err)
				}
				kind := "snapshot"
				if readOnly {
					kind = "readonly snapshot"
				}
				return printSubvolume(cmd, asJSON, m.pool, v, fmt.Sprintf("Create %s of %s in %s", kind, quoted(source), quoted(dest)))
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&readOnly, "readonly", "r", false, "nothing can be changed in it")
	return cmd
}

func newSubvolumeDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete PATH...",
		Short: "Remove subvolumes with all that is in them",
		Long: `Remove subvolumes with all that is in them, in one step each; the space comes back in
the background. One that has subvolumes or snapshots of its own is refused.`,
		Example: `  lamina subvolume delete ~/x/try`,
		Args:    args(1, -1, "at least one PATH"),
		RunE: func(cmd *cobra.Command, paths []string) error {
			return onPath(func(ctx context.Context) error {
				for _, path := range paths {
					ino, err := inodeOf(path)
					if err == nil {
						err = mayDelete(path)
					}
					if err != nil {
						return err
					}
					m, spot, err := spotOf(path)
					if err != nil {
						return err
					}
					_, err = poolserver.SubvolumeDelete.Call(ctx, m.Client, poolserver.DeleteSubvolume{Spot: spot, Ino: ino})
					m.Close()
					if err != nil {
						return fmt.Errorf("delete subvolume %s: %w", path, err)
					}
					fmt.Fprintf(cmd.OutOrStdout(), "Delete subvolume %s\n", quoted(path))
				}
				return nil
			})
		},
	}
	return cmd
}

// mayDelete refuses where a dataset is mounted.
func mayDelete(path string) error {
	m, err := findMount(path)
	if err != nil {
		return err
	}
	defer m.Close()
	if m.rest == "." {
		return fmt.Errorf("delete subvolume %s: a dataset is mounted there: %w; see: lamina dataset destroy", path, unix.EBUSY)
	}
	return nil
}

// listSubvolumes asks for those of the mount that a path lies in; with one, only for
// that which the path is the root of.
func listSubvolumes(ctx context.Context, path string, one bool) (*mountedPath, []poolserver.Subvolume, error) {
	m, err := findMount(path)
	if err != nil {
		return nil, nil, err
	}
	a := poolserver.ListSubvolumes{Target: m.target}
	if one {
		a.Ino, err = inodeOf(path)
	}
	var list []poolserver.Subvolume
	if err == nil {
		list, err = poolserver.SubvolumeList.Call(ctx, m.Client, a)
	}
	if err != nil {
		m.Close()
		return nil, nil, fmt.Errorf("subvolumes of %s: %w", path, err)
	}
	// A name may have been given to it by mv since it was made.
	for i := range list {
		if p := list[i].Path; p != "" {
			if ino, err := inodeOf(filepath.Join(m.target, p)); err != nil || ino != list[i].ID<<31|1 {
				list[i].Path = ""
			}
		}
		list[i].Dataset = joinDataset(m.pool, list[i].Dataset)
	}
	return m, list, nil
}

func newSubvolumeList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list PATH",
		Short: "List the subvolumes of a mounted dataset",
		Long: `List the dataset that is mounted where PATH lies, and those below it. PATH is where
each is in the mount; "-" means that it is not where it was made: moved since, or no
subvolume.`,
		Example: `  lamina subvolume list ~/x`,
		Args:    args(1, 1, "PATH, in a mounted dataset"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onPath(func(ctx context.Context) error {
				m, list, err := listSubvolumes(ctx, args[0], false)
				if err != nil {
					return err
				}
				defer m.Close()
				list[0].Path = "."
				if asJSON {
					return printJSON(cmd.OutOrStdout(), list)
				}
				rows := [][]string{{"ID", "PATH", "DATASET", "READONLY"}}
				for _, v := range list {
					readOnly := "no"
					if v.ReadOnly {
						readOnly = "yes"
					}
					rows = append(rows, []string{fmt.Sprint(v.ID), dash(v.Path), v.Dataset, readOnly})
				}
				t := tableFlags{}
				return t.print(cmd.OutOrStdout(), rows, []bool{true, false, false, false})
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// shownSubvolume is a subvolume with what "show" tells of it.
type shownSubvolume struct {
	poolserver.Subvolume
	Properties map[string]jsonProperty `json:"properties"`
	Snapshots  []string                `json:"snapshots"` // of the dataset
}

func newSubvolumeShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show PATH",
		Short:   "Tell of a subvolume",
		Example: `  lamina subvolume show ~/x/src`,
		Args:    args(1, 1, "PATH of a subvolume"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onPath(func(ctx context.Context) error {
				m, list, err := listSubvolumes(ctx, args[0], true)
				if err != nil {
					return err
				}
				defer m.Close()
				if len(list) != 1 {
					return errors.New(args[0] + ": it is gone")
				}
				v := shownSubvolume{Subvolume: list[0], Snapshots: []string{}}
				_, name, _ := strings.Cut(v.Dataset, "/")
				found, err := poolserver.DatasetGet.Call(ctx, m.Client, poolserver.GetDatasets{Names: []string{name}})
				if err != nil {
					return inPool(m.pool, err)
				}
				below, err := poolserver.DatasetGet.Call(ctx, m.Client, poolserver.GetDatasets{Names: []string{name}, Depth: 1, Types: []string{"snapshot"}, Properties: []string{"type"}})
				if err != nil {
					return inPool(m.pool, err)
				}
				for _, s := range below {
					v.Snapshots = append(v.Snapshots, joinDataset(m.pool, s.Name))
				}
				d := datasetOf{m.pool, found[0]}
				v.Properties = datasetJSON(m.pool, found[0]).Properties
				if asJSON {
					return printJSON(cmd.OutOrStdout(), v)
				}
				text := func(name string) string { return valueText(d.property(name), m.pool, false) }
				created := d.property("creation")
				when := created.Value
				if n, err := parseSeconds(when); err == nil {
					when = n.Format(time.DateTime)
				}
				out := cmd.OutOrStdout()
				fmt.Fprintf(out, "%s\n", args[0])
				for _, line := range [][2]string{
					{"Dataset", v.Dataset}, {"UUID", text("guid")}, {"Parent", text("origin")}, {"Creation time", when},
					{"Subvolume ID", fmt.Sprint(v.ID)}, {"Generation", text("createtxg")}, {"Flags", flagText(v.ReadOnly)},
					{"Used", text("used")}, {"Referenced", text("referenced")}, {"Quota", text("quota")},
				} {
					fmt.Fprintf(out, "\t%-16s%s\n", line[0]+":", line[1])
				}
				fmt.Fprintf(out, "\tSnapshots:\n")
				for _, s := range v.Snapshots {
					fmt.Fprintf(out, "\t\t%s\n", s)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func flagText(readOnly bool) string {
	if readOnly {
		return "readonly"
	}
	return "-"
}
