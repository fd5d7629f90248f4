// Command setbench compares datasets of a pool with the filesystems of the kernel that
// people use in their place: btrfs and ext4, each on a loop file of the same disk.
//
//	subjects    btrfs │ ext4 │ dataset │ dataset-zstd │ dataset-1000
//	              └──────┴───┬────┴───────────┴──────────────┘
//	workloads   for each round: for each workload: every subject, beginning
//	            with another one each time
//
// Everything is done as a user would do it: with tar, find, dd and rm in a mounted
// directory, and with the commands of btrfs and lamina. dataset-1000 is one of a
// thousand clones of the same dataset.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/laminafs/lamina/integration/stats"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "setbench:", err)
		os.Exit(1)
	}
}

type options struct {
	dir    string
	lamina string
	rounds int
	files  int   // of the tree that is unpacked and walked over
	many   int   // files of the tree that snapshots are taken of
	size   int64 // bytes of the large file
	ops    int   // random writes
	clones int
	only   string
	text   string
	json   string

	archive string // a tar of the tree
	large   string // a file of random bytes
}

func run(args []string, out io.Writer) error {
	f := flag.NewFlagSet("setbench", flag.ContinueOnError)
	o := options{}
	f.StringVar(&o.dir, "dir", "/var/tmp", "where the files are made: a real disk")
	f.StringVar(&o.lamina, "lamina", "lamina", "the command that is measured")
	f.IntVar(&o.rounds, "rounds", 5, "how often each workload is run")
	f.IntVar(&o.files, "files", 10_000, "files of the tree that is unpacked")
	f.IntVar(&o.many, "many", 100_000, "files of the tree that snapshots are taken of")
	f.Int64Var(&o.size, "size", 512, "megabytes that are written and read")
	f.IntVar(&o.ops, "ops", 2000, "random writes")
	f.IntVar(&o.clones, "clones", 1000, "clones beside the one that is measured")
	f.StringVar(&o.only, "only", "", "run workloads whose name contains this")
	f.StringVar(&o.text, "text", "", "also write the table to this file")
	f.StringVar(&o.json, "json", "", "also write all values to this file")
	quick := f.Bool("quick", false, "a small run that shows that everything works")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *quick {
		o.rounds, o.files, o.many, o.size, o.ops, o.clones = 1, 500, 2000, 16, 50, 20
	}
	o.size <<= 20
	var err error
	if o.lamina, err = filepath.Abs(o.lamina); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "setbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := o.prepare(dir); err != nil {
		return err
	}
	r := measure(dir, o)
	r.Notes = append(r.Notes, fmt.Sprintf("%d rounds of a tree of %d files, %d MB, %d random writes, snapshots of %d files, %d clones; %d processors",
		o.rounds, o.files, o.size>>20, o.ops, o.many, o.clones, runtime.NumCPU()))
	if _, err := io.WriteString(out, r.Table()); err != nil {
		return err
	}
	if err := r.Save(o.text, o.json); err != nil {
		return err
	}
	if len(r.Problems) > 0 {
		return fmt.Errorf("%d measurements failed", len(r.Problems))
	}
	return nil
}

// measure runs every workload on every subject, interleaved.
func measure(dir string, o options) *stats.Results {
	byName, names := map[string]subject{}, []string(nil)
	for _, s := range subjects {
		byName[s.name], names = s, append(names, s.name)
	}
	r := stats.NewResults(names)
	for _, w := range workloads {
		if !strings.Contains(w.name, o.only) {
			continue
		}
		r.Measure(w.name, w.reference, func(s string) bool { return w.only[s] }, o.rounds, func(s string) (float64, error) {
			return once(filepath.Join(dir, s), byName[s], w, o)
		})
		fmt.Fprintf(os.Stderr, "%s: measured\n", w.name)
	}
	return r
}

// once makes a subject, runs a workload on it, and removes it.
func once(dir string, s subject, w workload, o options) (_ float64, err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	d, err := s.make(dir, o)
	if err != nil {
		return 0, err
	}
	defer func() {
		if cerr := d.close(); err == nil {
			err = cerr
		}
	}()
	if w.before != nil {
		if err := w.before(d, o); err != nil {
			return 0, err
		}
	}
	if err := d.sync(); err != nil {
		return 0, err
	}
	begin := time.Now()
	err = w.run(d, o)
	return time.Since(begin).Seconds(), err
}
