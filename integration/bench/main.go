package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == workerVerb {
		os.Exit(exitCode(runWorker(os.Args[2])))
	}
	os.Exit(exitCode(runBench(os.Args[1:])))
}

// exitCode prints err, if any, and gives the status to leave with.
func exitCode(err error) int {
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2 // flag has printed the message
	}
	fmt.Fprintf(os.Stderr, "bench: %v\n", err)
	return 1
}

// errUsage is returned for a command line that the flag package has complained about.
var errUsage = errors.New("usage")

// outputs are the files that a run leaves behind; an empty name means none.
type outputs struct {
	text, json, svg string
	details         bool // also print every median, minimum and maximum
}

// command is a parsed command line.
type command struct {
	config config
	out    outputs
	dir    string // parent of the scratch directory
	lamina string // binary to use instead of building one
	uid    int    // ordinary user for --rootless
	render string // JSON file to render instead of measuring
	list   bool
}

// runBench is the whole program apart from the worker: parse, measure, report.
func runBench(args []string) error {
	cmd, err := parseCommand(args, os.Stderr)
	if err != nil {
		return err
	}
	if cmd.list {
		return listWorkloads(os.Stdout)
	}
	if cmd.render != "" {
		r, err := readReport(cmd.render)
		if err != nil {
			return err
		}
		return cmd.out.write(r, os.Stdout)
	}
	r, runErr := launch(cmd)
	if r == nil {
		return runErr
	}
	if err := cmd.out.write(r, os.Stdout); err != nil {
		return errors.Join(runErr, err)
	}
	return runErr
}

func parseCommand(args []string, usage io.Writer) (command, error) {
	cmd := command{config: config{Only: ".*", Subjects: ".*"}}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(usage)
	fs.BoolVar(&cmd.config.Quick, "quick", false, "small trees and files, 3 rounds: shows that everything runs, not who wins")
	fs.IntVar(&cmd.config.Rounds, "rounds", 0, "repetitions per workload and subject (default 5, with --quick 3)")
	fs.StringVar(&cmd.config.Only, "only", cmd.config.Only, "measure workloads whose name matches this `regexp`")
	fs.StringVar(&cmd.config.Subjects, "subjects", cmd.config.Subjects, "measure subjects whose name matches this `regexp`; the kernel always takes part")
	fs.BoolVar(&cmd.config.Rootless, "rootless", false, "run as an ordinary user in a user namespace (unshare -Urm)")
	fs.DurationVar(&cmd.config.Limit, "limit", 5*time.Minute, "give up on one repetition after this long")
	fs.Func("peer", "one more fuse-overlayfs as `name=path[,option...]`; may be repeated", func(s string) error {
		p, err := parsePeer(s)
		cmd.config.Peers = append(cmd.config.Peers, p)
		return err
	})
	fs.StringVar(&cmd.lamina, "lamina", "", "lamina `binary` to measure (default: built from ./cmd/lamina)")
	fs.StringVar(&cmd.dir, "dir", "/var/tmp", "`directory` for layers and uppers; its filesystem is what is measured")
	fs.IntVar(&cmd.uid, "uid", defaultUID(), "ordinary user to become for --rootless when started as root")
	fs.StringVar(&cmd.out.text, "text", "", "also write the table to this `file`")
	fs.StringVar(&cmd.out.json, "json", "", "write every measured value to this `file`")
	fs.StringVar(&cmd.out.svg, "svg", "", "draw the ratios into this `file`")
	fs.BoolVar(&cmd.out.details, "details", false, "also print medians, minima and maxima of every pair")
	fs.StringVar(&cmd.render, "render", "", "measure nothing, show the results in this JSON `file`")
	fs.BoolVar(&cmd.list, "list", false, "list the workloads")
	fs.Usage = func() {
		fmt.Fprint(usage, "Usage: go run ./integration/bench [flags]\n\nCompares union filesystems; kernel overlayfs is 1.\n\n"+
			"Example: go run ./integration/bench --only 'walk|read' --svg walk.svg\n\n")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return cmd, err
		}
		return cmd, errUsage
	}
	if fs.NArg() > 0 {
		return cmd, fmt.Errorf("argument %q is not understood: everything is a flag (see --help)", fs.Arg(0))
	}
	return cmd, cmd.check()
}

func (cmd *command) check() error {
	for name, expr := range map[string]string{"only": cmd.config.Only, "subjects": cmd.config.Subjects} {
		if _, err := regexp.Compile(expr); err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
	}
	if cmd.config.Rounds < 0 {
		return fmt.Errorf("--rounds %d: must be at least 1", cmd.config.Rounds)
	}
	if cmd.config.Rounds == 0 {
		cmd.config.Rounds = 5
		if cmd.config.Quick {
			cmd.config.Rounds = 3
		}
	}
	if cmd.config.Rootless && cmd.uid <= 0 {
		return fmt.Errorf("--uid %d: --rootless needs an ordinary user", cmd.uid)
	}
	if cmd.render == "" && len(chooseWorkloads(cmd.config.Only)) == 0 {
		return fmt.Errorf("--only %s: matches no workload (see --list)", cmd.config.Only)
	}
	return nil
}

// defaultUID is the user behind sudo, else the first ordinary user that most
// systems have. The number needs no entry in the user database.
func defaultUID() int {
	if uid, err := strconv.Atoi(os.Getenv("SUDO_UID")); err == nil && uid > 0 {
		return uid
	}
	return 1000
}

// parsePeer reads name=path[,option...].
func parsePeer(s string) (peer, error) {
	name, rest, ok := strings.Cut(s, "=")
	path, options, _ := strings.Cut(rest, ",")
	if !ok || name == "" || path == "" {
		return peer{}, fmt.Errorf("want name=path[,option...], for example 1.14=/opt/bin/fuse-overlayfs")
	}
	return peer{Name: name, Path: path, Options: options}, nil
}

func listWorkloads(w io.Writer) error {
	for _, l := range workloads {
		if _, err := fmt.Fprintf(w, "%-16s %s\n", l.name, l.title); err != nil {
			return err
		}
	}
	return nil
}

// write shows r on w and in the files that were asked for.
func (o outputs) write(r *report, w io.Writer) error {
	text := renderText(r)
	if o.details {
		text += "\n" + renderDetails(r)
	}
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	files := []struct {
		name string
		data func() ([]byte, error)
	}{
		{o.text, func() ([]byte, error) { return []byte(text), nil }},
		{o.json, r.encode},
		{o.svg, func() ([]byte, error) { return renderSVG(r), nil }},
	}
	for _, f := range files {
		if f.name == "" {
			continue
		}
		data, err := f.data()
		if err != nil {
			return err
		}
		if err := os.WriteFile(f.name, data, 0o644); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}
