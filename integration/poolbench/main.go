// Command poolbench compares the block pool with what people use in its place: a
// bare sparse file, qcow2 as qemu-storage-daemon exports it, and reflinks of btrfs
// for what snapshots are used for.
//
//	subjects   bare │ pool │ pool-64K │ pool-fuse │ qcow2-fuse │ btrfs
//	              └─────────┴────┬─────┴───────────┴────────────┘
//	workloads   for each round: for each workload: every subject, beginning
//	            with another one each time
//
// A ratio is time over the bare file's, or over what the row says, of medians.
// Snapshots are compared with a bbolt transaction, which is what one must cost.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/laminafs/lamina/integration/stats"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "poolbench:", err)
		os.Exit(1)
	}
}

type options struct {
	dir    string
	rounds int
	size   int64 // bytes of the volume that is written and read
	ops    int   // of random workloads
	only   string
	text   string
	json   string
}

func run(args []string, out io.Writer) error {
	f := flag.NewFlagSet("poolbench", flag.ContinueOnError)
	o := options{}
	f.StringVar(&o.dir, "dir", "/var/tmp", "where the files are made: a real disk")
	f.IntVar(&o.rounds, "rounds", 5, "how often each workload is run")
	f.Int64Var(&o.size, "size", 512, "megabytes that are written and read")
	f.IntVar(&o.ops, "ops", 2000, "operations of random workloads")
	f.StringVar(&o.only, "only", "", "run workloads whose name contains this")
	f.StringVar(&o.text, "text", "", "also write the table to this file")
	f.StringVar(&o.json, "json", "", "also write all values to this file")
	quick := f.Bool("quick", false, "a small run that shows that everything works")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *quick {
		o.rounds, o.size, o.ops = 1, 64, 200
	}
	o.size <<= 20
	dir, err := os.MkdirTemp(o.dir, "poolbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r, err := measure(dir, o)
	if err != nil {
		return err
	}
	table := r.table()
	if _, err := io.WriteString(out, table); err != nil {
		return err
	}
	return save(o, r, table)
}

func save(o options, r *results, table string) error {
	if o.text != "" {
		if err := os.WriteFile(o.text, []byte(table), 0o644); err != nil {
			return err
		}
	}
	if o.json == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(b, '\n'), 0o644)
}

// results has seconds by workload and subject, one for each round.
type results struct {
	Workloads []string                        `json:"workloads"`
	Subjects  []string                        `json:"subjects"`
	Seconds   map[string]map[string][]float64 `json:"seconds"`
	Reference map[string]string               `json:"reference"` // the subject whose time is 1
	Problems  map[string]string               `json:"problems,omitempty"`
}

// measure runs every workload on every subject, interleaved.
func measure(dir string, o options) (*results, error) {
	r := &results{Seconds: map[string]map[string][]float64{}, Reference: map[string]string{}, Problems: map[string]string{}}
	for _, s := range subjects {
		r.Subjects = append(r.Subjects, s.name)
	}
	for _, w := range workloads {
		if !strings.Contains(w.name, o.only) {
			continue
		}
		r.Workloads = append(r.Workloads, w.name)
		r.Seconds[w.name], r.Reference[w.name] = map[string][]float64{}, w.reference
		for round := range o.rounds {
			for _, i := range stats.Rotated(len(subjects), round) {
				s := subjects[i]
				if !w.only[s.name] {
					continue
				}
				t, err := once(filepath.Join(dir, s.name), s, w, o)
				if err != nil {
					r.Problems[w.name+" on "+s.name] = err.Error()
					continue
				}
				r.Seconds[w.name][s.name] = append(r.Seconds[w.name][s.name], t)
			}
		}
		fmt.Fprintf(os.Stderr, "%s: measured\n", w.name)
	}
	return r, nil
}

// once makes a subject, runs a workload on it, and removes it.
func once(dir string, s subject, w workload, o options) (float64, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	d, err := s.make(dir, o)
	if err != nil {
		return 0, err
	}
	t, err := w.run(d, o)
	if cerr := d.close(); err == nil {
		err = cerr
	}
	return t.Seconds(), err
}

func (r *results) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Time, relative to the first column that has one (less is faster); medians (ends of the pairs).\n\n%-34s", "workload")
	for _, s := range r.Subjects {
		fmt.Fprintf(&b, " %-19s", s)
	}
	b.WriteByte('\n')
	for _, w := range r.Workloads {
		b.WriteString(r.row(w))
		b.WriteByte('\n')
	}
	for what, why := range r.Problems {
		fmt.Fprintf(&b, "not measured: %s: %s\n", what, why)
	}
	return b.String()
}

func (r *results) row(w string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-34s", w)
	base := r.Seconds[w][r.Reference[w]]
	for _, s := range r.Subjects {
		cell := "-"
		switch v := r.Seconds[w][s]; {
		case len(v) == 0:
		case s == r.Reference[w]:
			cell = fmt.Sprintf("%.4g ms", 1e3*stats.SpanOf(v).Median)
		case len(base) > 0:
			p := stats.SpanOf(stats.PairRatios(v, base))
			cell = fmt.Sprintf("%.2f (%.2f–%.2f)", stats.SpanOf(v).Median/stats.SpanOf(base).Median, p.Min, p.Max)
		}
		fmt.Fprintf(&b, " %-19s", cell)
	}
	return strings.TrimRight(b.String(), " ")
}
