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
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
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
	before := load()
	r := measure(dir, o)
	r.Notes = append(r.Notes, fmt.Sprintf("%d rounds of %d MB and %d random operations; %d processors, whose load averages were %s before and %s after",
		o.rounds, o.size>>20, o.ops, runtime.NumCPU(), before, load()))
	if _, err := io.WriteString(out, r.Table()); err != nil {
		return err
	}
	return r.Save(o.text, o.json)
}

// load returns the load averages: what else the machine had to do.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}

// measure runs every workload on every subject, interleaved.
func measure(dir string, o options) *stats.Results {
	byName, names := map[string]subject{}, []string(nil)
	for _, s := range subjects {
		byName[s.name], names = s, append(names, s.name)
	}
	r := stats.NewResults(names)
	for _, w := range workloads {
		if strings.Contains(w.name, o.only) {
			r.Measure(w.name, w.reference, func(s string) bool { return w.only[s] }, o.rounds, func(s string) (float64, error) {
				return once(filepath.Join(dir, s), byName[s], w, o)
			})
			fmt.Fprintf(os.Stderr, "%s: measured\n", w.name)
		}
	}
	return r
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
