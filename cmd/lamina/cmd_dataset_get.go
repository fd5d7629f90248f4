package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

// propertyUnits are the units of those properties that are numbers.
var propertyUnits = func() map[string]string {
	units := map[string]string{}
	for _, p := range blockpool.KnownProperties() {
		units[p.Name] = p.Unit
	}
	return units
}()

// unlimited are the properties of which 0 is no limit.
var unlimited = []string{"quota", "refquota", "reservation", "inodes"}

// valueText is the value of a property for people, or as it is kept.
func valueText(p blockpool.Property, pool string, exact bool) string {
	n, err := strconv.ParseInt(p.Value, 10, 64)
	switch unit := propertyUnits[p.Name]; {
	case (p.Name == "origin" || p.Name == "clones") && p.Value != "-":
		names := strings.Split(p.Value, ",")
		for i := range names {
			names[i] = joinDataset(pool, names[i])
		}
		return strings.Join(names, ",")
	case exact || err != nil:
		return p.Value
	case n == 0 && slices.Contains(unlimited, p.Name):
		return "none"
	case unit == "bytes":
		return sizeText(n)
	case unit == "seconds":
		return time.Unix(n, 0).Format("Mon Jan _2 15:04 2006")
	}
	return p.Value
}

// sourceText says where a value comes from, as "zfs get" does.
func sourceText(p blockpool.Property, pool string) string {
	if p.Source == blockpool.SourceInherited {
		return "inherited from " + joinDataset(pool, p.From)
	}
	return p.Source
}

// tableFlags say how tables for scripts look, as in zfs.
type tableFlags struct {
	bare, exact bool
}

func (t *tableFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&t.bare, "scripted", "H", false, "no heading, one tab between columns")
	cmd.Flags().BoolVarP(&t.exact, "parsable", "p", false, "numbers in bytes, times in seconds")
}

// print writes rows, whose first is the heading.
func (t *tableFlags) print(out io.Writer, rows [][]string, right []bool) error {
	if t.bare {
		for _, r := range rows[1:] {
			if _, err := fmt.Fprintln(out, strings.Join(r, "\t")); err != nil {
				return err
			}
		}
		return nil
	}
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			width[i] = max(width[i], len(cell))
		}
	}
	for _, r := range rows {
		var line strings.Builder
		for i, cell := range r {
			if i > 0 {
				line.WriteString("  ")
			}
			pad := strings.Repeat(" ", width[i]-len(cell))
			if right[i] {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		if _, err := fmt.Fprintln(out, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// selection says which datasets a table is of.
type selection struct {
	recursive bool
	depth     int
	types     []string
}

func (s *selection) add(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&s.recursive, "recursive", "r", false, "also all below")
	cmd.Flags().IntVarP(&s.depth, "depth", "d", 0, "also what lies up to `N` below")
	cmd.Flags().StringSliceVarP(&s.types, "type", "t", nil, "only `TYPE`s: filesystem, volume, snapshot, pool or all")
	cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"filesystem", "volume", "snapshot", "pool", "all"}, cobra.ShellCompDirectiveNoFileComp))
}

// check completes the selection.
func (s *selection) check() error {
	if s.recursive {
		s.depth = -1
	}
	for i, t := range s.types {
		switch t {
		case "fs":
			s.types[i] = blockpool.TypeFilesystem
		case "vol":
			s.types[i] = blockpool.TypeVolume
		case "snap":
			s.types[i] = blockpool.TypeSnapshot
		case "all":
			s.types = []string{blockpool.TypePool, blockpool.TypeFilesystem, blockpool.TypeVolume, blockpool.TypeSnapshot}
			return nil
		case blockpool.TypePool, blockpool.TypeFilesystem, blockpool.TypeVolume, blockpool.TypeSnapshot:
		default:
			return usageError{fmt.Errorf("%q is no type: take filesystem, volume, snapshot, pool or all", t)}
		}
	}
	return nil
}

// A datasetOf is a dataset and its pool.
type datasetOf struct {
	pool string
	poolserver.Dataset
}

func (d datasetOf) name() string { return joinDataset(d.pool, d.Name) }

// property returns a property that was asked for.
func (d datasetOf) property(name string) blockpool.Property {
	for _, p := range d.Properties {
		if p.Name == name {
			return p
		}
	}
	return blockpool.Property{Name: name, Value: "-", Source: blockpool.SourceNone}
}

// collect asks for properties of datasets of one pool or several; without names of all
// of all pools.
func (f *poolFlags) collect(cmd *cobra.Command, names []string, s selection, properties []string) (list []datasetOf, err error) {
	ask := func(names []string) error {
		return f.onPoolOf(cmd, names, func(ctx context.Context, c *poolserver.Client, pool string, names []string) error {
			found, err := poolserver.DatasetGet.Call(ctx, c, poolserver.GetDatasets{Names: names, Depth: s.depth, Types: s.types, Properties: properties})
			for _, d := range found {
				list = append(list, datasetOf{pool, d})
			}
			return inPool(pool, err)
		})
	}
	if len(names) > 0 {
		var pools []string
		of := map[string][]string{}
		for _, n := range names {
			pool, _, err := splitDataset(n)
			if err != nil {
				return nil, err
			}
			if of[pool] == nil {
				pools = append(pools, pool)
			}
			of[pool] = append(of[pool], n)
		}
		for _, pool := range pools {
			if err := ask(of[pool]); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	root, err := f.dir()
	if err != nil {
		return nil, err
	}
	places, err := poolserver.List(root)
	if err != nil {
		return nil, err
	}
	s.depth = -1
	for _, p := range places {
		if err := ask([]string{p.Name()}); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// jsonDataset is a dataset for programs: numbers as they are kept.
type jsonDataset struct {
	Name       string                  `json:"name"`
	Target     string                  `json:"target,omitempty"` // where it was mounted
	Properties map[string]jsonProperty `json:"properties"`
}

type jsonProperty struct {
	Value  string `json:"value"`
	Source string `json:"source"`
	From   string `json:"from,omitempty"`
}

func datasetJSON(pool string, d poolserver.Dataset) jsonDataset {
	j := jsonDataset{Name: joinDataset(pool, d.Name), Properties: map[string]jsonProperty{}}
	for _, p := range d.Properties {
		v := jsonProperty{Value: valueText(p, pool, true), Source: p.Source}
		if p.Source == blockpool.SourceInherited {
			v.From = joinDataset(pool, p.From)
		}
		j.Properties[p.Name] = v
	}
	return j
}

func printDatasetsJSON(out io.Writer, list []datasetOf) error {
	all := []jsonDataset{}
	for _, d := range list {
		all = append(all, datasetJSON(d.pool, d.Dataset))
	}
	return printJSON(out, all)
}

// propertyHelp is the table of properties for help texts.
func propertyHelp() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, p := range blockpool.KnownProperties() {
		edit := ""
		if p.Editable {
			edit = p.Values
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\n", p.Name, edit, p.Help)
	}
	w.Flush()
	return strings.TrimRight(b.String(), "\n")
}

func newDatasetGet() *cobra.Command {
	var f poolFlags
	var t tableFlags
	var s selection
	var columns, sources []string
	cmd := &cobra.Command{
		Use:   "get [-r | -d N] [-Hp] [-o COLUMN,...] [-s SOURCE,...] [-t TYPE,...] all | PROPERTY[,...] [POOL[/DATASET]...]",
		Short: "Show properties",
		Long: `Show properties of datasets, volumes, snapshots and pools, and where their values
come from. Those that can be set have their possible values here:

` + propertyHelp() + `

Any name with a colon, such as com.example:team, is yours.`,
		Example: `  lamina dataset get all tank/home
  lamina dataset get -r -s local all tank
  lamina dataset get -Hp -o value used tank/home`,
		Args: args(1, -1, "PROPERTY, or all, and DATASETs"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.check(); err != nil {
				return err
			}
			for _, c := range columns {
				if !slices.Contains([]string{"name", "property", "value", "source"}, c) {
					return usageError{fmt.Errorf("%q is no column: take name, property, value or source", c)}
				}
			}
			for _, source := range sources {
				if !slices.Contains([]string{"local", "default", "inherited", "none"}, source) {
					return usageError{fmt.Errorf("%q is no source: take local, default, inherited or none", source)}
				}
			}
			properties, err := parseProperties(args[0])
			if err != nil {
				return err
			}
			list, err := f.collect(cmd, args[1:], s, properties)
			if err != nil {
				return err
			}
			for i := range list {
				list[i].Properties = slices.DeleteFunc(list[i].Properties, func(p blockpool.Property) bool {
					source := strings.Replace(p.Source, blockpool.SourceNone, "none", 1)
					return len(sources) > 0 && !slices.Contains(sources, source)
				})
			}
			if f.json {
				return printDatasetsJSON(cmd.OutOrStdout(), list)
			}
			rows := [][]string{{}}
			for _, c := range columns {
				rows[0] = append(rows[0], strings.ToUpper(c))
			}
			for _, d := range list {
				for _, p := range d.Properties {
					cells := map[string]string{"name": d.name(), "property": p.Name, "value": valueText(p, d.pool, t.exact), "source": sourceText(p, d.pool)}
					var row []string
					for _, c := range columns {
						row = append(row, cells[c])
					}
					rows = append(rows, row)
				}
			}
			return t.print(cmd.OutOrStdout(), rows, make([]bool, len(columns)))
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return f.completeDataset(cmd, args, typed)
			}
			return append([]string{"all"}, propertyNames(func(blockpool.PropertyInfo) bool { return true })...), cobra.ShellCompDirectiveNoFileComp
		},
	}
	f.add(cmd)
	t.add(cmd)
	s.add(cmd)
	cmd.Flags().StringSliceVarP(&columns, "columns", "o", []string{"name", "property", "value", "source"}, "show `COLUMN`s: name, property, value, source")
	cmd.Flags().StringSliceVarP(&sources, "source", "s", nil, "only values from `SOURCE`s: local, default, inherited, none")
	return cmd
}

// parseProperties reads a list of properties; all is none in particular.
func parseProperties(text string) ([]string, error) {
	if text == "all" {
		return nil, nil
	}
	var list []string
	for name := range strings.SplitSeq(text, ",") {
		if name == "" {
			return nil, usageError{fmt.Errorf("%q: a property is missing between two commas", text)}
		}
		if name == "all" {
			return nil, usageError{errors.New("all is not for a list: it is all properties")}
		}
		if full := propertyAliases[name]; full != "" {
			name = full
		}
		list = append(list, name)
	}
	return list, nil
}

// propertyAliases are zfs's short names.
var propertyAliases = map[string]string{
	"avail": "available", "refer": "referenced", "reserv": "reservation", "rdonly": "readonly",
	"compress": "compression", "recsize": "recordsize", "usedsnap": "usedbysnapshots", "usedds": "usedbydataset", "usedchild": "usedbychildren",
}

func propertyNames(want func(blockpool.PropertyInfo) bool) (names []string) {
	for _, p := range blockpool.KnownProperties() {
		if want(p) {
			names = append(names, p.Name)
		}
	}
	return names
}

// completeAssignment offers PROPERTY=VALUE.
func completeAssignment(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	name, _, named := strings.Cut(typed, "=")
	var words []string
	for _, p := range blockpool.KnownProperties() {
		switch {
		case !p.Editable:
		case !named:
			words = append(words, p.Name+"=")
		case p.Name == name:
			for v := range strings.SplitSeq(p.Values, " | ") {
				if !strings.Contains(v, " ") {
					words = append(words, name+"="+v)
				}
			}
		}
	}
	if named {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
	return words, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

func newDatasetSet() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:   "set PROPERTY=VALUE... POOL[/DATASET]...",
		Short: "Change properties",
		Long: `Change properties of datasets, or of a pool: those below inherit what they have not
set themselves. What can be set tells: lamina dataset get --help. How a dataset is
mounted changes when it is mounted the next time.`,
		Example: `  lamina dataset set compression=zstd atime=off tank
  lamina dataset set quota=10G tank/home/ann
  lamina dataset set com.example:team=blue tank/home`,
		Args: args(2, -1, "PROPERTY=VALUE and DATASETs"),
	}
	f.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var set properties
		names := args
		for len(names) > 0 && strings.Contains(names[0], "=") {
			name, value, _ := strings.Cut(names[0], "=")
			if full := propertyAliases[name]; full != "" {
				name = full
			}
			if err := set.Set(name + "=" + value); err != nil {
				return usageError{err}
			}
			names = names[1:]
		}
		if len(set) == 0 || len(names) == 0 {
			return usageError{errors.New("set needs PROPERTY=VALUE and then at least one DATASET; see: lamina dataset set --help")}
		}
		return f.onPoolOf(cmd, names, func(ctx context.Context, c *poolserver.Client, pool string, names []string) error {
			_, err := poolserver.DatasetSet.Call(ctx, c, poolserver.SetDatasets{Names: names, Properties: set})
			return inPool(pool, err)
		})
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return completeAssignment(cmd, args, typed)
		}
		return f.completeDataset(cmd, args, typed)
	}
	return cmd
}

func newDatasetInherit() *cobra.Command {
	var f poolFlags
	var recursive bool
	cmd := &cobra.Command{
		Use:   "inherit [-r] PROPERTY POOL[/DATASET]...",
		Short: "Take the value of a property away",
		Long: `Take the value that a dataset has for a property away, so that the one above it, or
the default, is in force again. With -r also of all below.`,
		Example: `  lamina dataset inherit compression tank/home
  lamina dataset inherit -r atime tank`,
		Args: args(2, -1, "PROPERTY and DATASETs"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return propertyNames(func(p blockpool.PropertyInfo) bool { return p.Editable }), cobra.ShellCompDirectiveNoFileComp
			}
			return f.completeDataset(cmd, args, typed)
		},
	}
	onDataset(cmd, &f, 1, func(ctx context.Context, c *poolserver.Client, pool string, names, skipped []string) error {
		property := skipped[0]
		if full := propertyAliases[property]; full != "" {
			property = full
		}
		_, err := poolserver.DatasetInherit.Call(ctx, c, poolserver.InheritDatasets{Names: names, Property: property, Recursive: recursive})
		return inPool(pool, err)
	})
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "also of all below")
	return cmd
}

// parseSeconds reads a time as properties have it.
func parseSeconds(text string) (time.Time, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(n, 0), err
}
