package main

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/blockpool"
)

// columnTitles are the titles of columns that are not called as their property.
var columnTitles = map[string]string{
	"available": "AVAIL", "referenced": "REFER", "recordsize": "RECSIZE", "compression": "COMPRESS", "reservation": "RESERV",
	"readonly": "RDONLY", "usedbysnapshots": "USEDSNAP", "usedbydataset": "USEDDS", "usedbychildren": "USEDCHILD",
}

func newDatasetList() *cobra.Command {
	var f poolFlags
	var t tableFlags
	var s selection
	var o listOrder
	var columns string
	cmd := &cobra.Command{
		Use:     "list [-r | -d N] [-Hp] [-o PROPERTY,...] [-s PROPERTY] [-S PROPERTY] [-t TYPE,...] [POOL[/DATASET]...]",
		Aliases: []string{"ls"},
		Short:   "List datasets",
		Long: `List datasets with what they use: those that are named, or all of all pools.
Snapshots are listed with -t snapshot, and when they are named.

USED counts all that would come back with a dataset, its snapshots and all below it;
of a snapshot, what only it has. REFER is what it holds, shared or not.`,
		Example: `  lamina dataset list
  lamina dataset list -r -t all -o name,used,creation tank/home
  lamina dataset list -Hp -t snapshot -s creation -o name tank/home`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			properties, err := parseProperties(columns)
			if err != nil {
				return err
			}
			// Snapshots of what is named are below it.
			asked := len(s.types) > 0
			if err := s.check(); err != nil {
				return err
			}
			if asked && s.depth == 0 && slices.Contains(s.types, blockpool.TypeSnapshot) {
				s.depth = 1
			}
			if !asked && (s.depth != 0 || len(args) == 0) {
				s.types = []string{blockpool.TypePool, blockpool.TypeFilesystem, blockpool.TypeVolume}
			}
			ask := slices.DeleteFunc(slices.Concat(properties, o.properties()), func(p string) bool { return p == "name" })
			if len(ask) == 0 {
				ask = []string{"type"}
			}
			list, err := f.collect(cmd, args, s, ask)
			if err != nil {
				return err
			}
			o.sort(list)
			if f.json {
				return printDatasetsJSON(cmd.OutOrStdout(), list)
			}
			rows, right := [][]string{{}}, []bool{}
			for _, p := range properties {
				rows[0] = append(rows[0], cmp.Or(columnTitles[p], strings.ToUpper(p)))
				right = append(right, propertyUnits[p] != "" && propertyUnits[p] != "seconds")
			}
			for _, d := range list {
				var row []string
				for _, p := range properties {
					if p == "name" {
						row = append(row, d.name())
					} else {
						row = append(row, valueText(d.property(p), d.pool, t.exact))
					}
				}
				rows = append(rows, row)
			}
			return t.print(cmd.OutOrStdout(), rows, right)
		},
		ValidArgsFunction: f.completeDataset,
	}
	f.add(cmd)
	t.add(cmd)
	s.add(cmd)
	cmd.Flags().StringVarP(&columns, "columns", "o", "name,used,available,referenced,mountpoint", "show `PROPERTY`s, name being one")
	cmd.Flags().VarP(o.ascending(), "sort", "s", "sort by `PROPERTY`; may be repeated")
	cmd.Flags().VarP(o.descending(), "sort-descending", "S", "sort by `PROPERTY`, the largest first; may be repeated")
	return cmd
}

// A listOrder is what a list is sorted by: the first property first, at last the name.
type listOrder struct {
	keys     []orderKey
	up, down orderFlag
}

type orderKey struct {
	property   string
	descending bool
}

// An orderFlag adds a key to an order.
type orderFlag struct {
	o          *listOrder
	descending bool
}

func (o *listOrder) ascending() *orderFlag {
	o.up = orderFlag{o, false}
	return &o.up
}

func (o *listOrder) descending() *orderFlag {
	o.down = orderFlag{o, true}
	return &o.down
}

// Set implements pflag.Value.
func (f *orderFlag) Set(text string) error {
	list, err := parseProperties(text)
	for _, p := range list {
		f.o.keys = append(f.o.keys, orderKey{p, f.descending})
	}
	return err
}

func (f *orderFlag) String() string { return "" }

// Type names the value in help texts.
func (f *orderFlag) Type() string { return "PROPERTY" }

func (o *listOrder) properties() (names []string) {
	for _, k := range o.keys {
		names = append(names, k.property)
	}
	return names
}

func (o *listOrder) sort(list []datasetOf) {
	if len(o.keys) == 0 {
		return // as the pool has them: by name, snapshots behind what they are of
	}
	slices.SortStableFunc(list, func(a, b datasetOf) int {
		for _, k := range o.keys {
			n := 0
			if k.property == "name" {
				n = cmp.Compare(a.name(), b.name())
			} else {
				n = compareValues(a.property(k.property).Value, b.property(k.property).Value)
			}
			if k.descending {
				n = -n
			}
			if n != 0 {
				return n
			}
		}
		return cmp.Compare(a.name(), b.name())
	})
}

// compareValues compares numbers as numbers; what has no value comes last.
func compareValues(a, b string) int {
	if (a == "-") != (b == "-") {
		if a == "-" {
			return 1
		}
		return -1
	}
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	if errX == nil && errY == nil {
		return cmp.Compare(x, y)
	}
	return cmp.Compare(a, b)
}
