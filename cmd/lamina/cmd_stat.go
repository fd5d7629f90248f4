package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/fs/fusefs"
)

// mountStat is all that a server tells of itself.
type mountStat struct {
	fusefs.Info
	Options  map[string]string  `json:"options"`
	Layers   []fusefs.LayerInfo `json:"layers"`
	Counters fusefs.Counters    `json:"counters"`
}

func newStat() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stat MNT",
		Short: "Show the layers, options and counters of a mounted union",
		Example: `  lamina stat /mnt/x
  lamina stat --json /mnt/x | jq .counters.requests`,
		Args:              args(1, 1, "MNT, where the union is mounted"),
		ValidArgsFunction: completeMounts,
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := statMount(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), st)
			}
			st.print(cmd.OutOrStdout())
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func statMount(target string) (*mountStat, error) {
	c, err := fusefs.Dial(target)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	st := &mountStat{Info: c.Info}
	if st.Options, err = c.Options(); err != nil {
		return nil, err
	}
	if st.Layers, err = c.Layers(); err != nil {
		return nil, err
	}
	st.Counters, err = c.Counters()
	return st, err
}

func (st *mountStat) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n  source %s, type %s, device %s, mounted by %s\n  pid %d of uid %d, version %s, since %s\n",
		st.Target, st.Source, st.Type, st.Dev, st.Via, st.PID, st.UID, st.Version, st.Started.Local().Format(time.DateTime))
	fmt.Fprintln(w, "layers, the top first")
	printLayers(w, st.Layers)
	fmt.Fprintln(w, "options")
	for _, name := range slices.Sorted(maps.Keys(st.Options)) {
		if !slices.Contains([]string{"lowerdir", "upperdir"}, name) { // shown as layers
			fmt.Fprintf(w, "  %-20s %s\n", name, st.Options[name])
		}
	}
	fmt.Fprintf(w, "counters\n")
	fmt.Fprint(w, indent(st.Counters.String()))
}
