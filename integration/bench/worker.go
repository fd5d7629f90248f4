package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/integration/stats"
)

// runWorker measures as the configuration in scratch says and leaves the report
// there. It is already in its own mount namespace.
func runWorker(scratch string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	if err := becomeSubreaper(); err != nil {
		return err
	}
	unix.Umask(0o022)
	c, err := readConfig(scratch)
	if err != nil {
		return err
	}
	b := &bench{config: c, scale: c.scale(), scratch: scratch, caches: newCacheDropper()}
	chosen := chooseWorkloads(c.Only)
	progress("making layers in %s", scratch)
	if err := b.makeInputs(chosen); err != nil {
		return err
	}
	r := &report{
		Started: time.Now().UTC().Truncate(time.Second), Machine: describeMachine(scratch),
		Rootless: c.Rootless, Quick: c.Quick, Rounds: c.Rounds,
	}
	subjects := b.probe(ctx, r, findSubjects(c))
	if len(subjects) == 0 && ctx.Err() == nil {
		return fmt.Errorf("nothing can be measured: %s", r.Subjects[0].Problem)
	}
	for _, w := range chosen {
		if ctx.Err() != nil {
			break
		}
		progress("%s: %s", w.name, w.title)
		r.Workloads = append(r.Workloads, b.compare(ctx, w, subjects))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.summarize()
	data, err := r.encode()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(scratch, resultFile), data, 0o644)
}

func readConfig(scratch string) (config, error) {
	var c config
	data, err := os.ReadFile(filepath.Join(scratch, configFile))
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	return c, nil
}

// makeInputs generates what the chosen workloads read.
func (b *bench) makeInputs(chosen []workload) (err error) {
	dir := filepath.Join(b.scratch, "layers")
	if b.tree, err = makeTree(dir, b.scale); err != nil {
		return err
	}
	b.archive = filepath.Join(b.scratch, "archive.tar")
	if err := writeArchive(b.archive, b.scale.archived); err != nil {
		return err
	}
	for _, w := range chosen {
		if w.needsMany && b.many == nil {
			if b.many, err = makeManyEntries(dir, b.scale); err != nil {
				return fmt.Errorf("make layers: %w", err)
			}
		}
	}
	return nil
}

// probe mounts each subject once and compares what it shows with the layers. It
// returns those that can be measured and enters all in the report.
func (b *bench) probe(ctx context.Context, r *report, list []*subject) []*subject {
	wanted := regexp.MustCompile(b.config.Subjects)
	var usable []*subject
	for _, s := range list {
		if s.name != reference && !wanted.MatchString(s.name) {
			continue
		}
		if s.problem == "" {
			_, err := b.repeat(ctx, s, func(r *repetition) error {
				if err := r.mount(); err != nil {
					return err
				}
				return r.measure(func() error { return r.tree.check(r.ctx, r.stack.target) })
			})
			if err != nil {
				s.problem = oneLine(err)
			}
		}
		r.Subjects = append(r.Subjects, subjectInfo{Name: s.name, Version: s.version, Problem: s.problem})
		if s.problem != "" {
			progress("%s is not measured: %s", s.name, s.problem)
			continue
		}
		usable = append(usable, s)
	}
	return usable
}

// compare lets the subjects take turns at w. One that fails is out of this
// workload, with its reason, and in the next one again. The reference goes once
// before the first round: whoever is first would pay for reading programs and
// for disk blocks that nobody has touched since the workload before.
func (b *bench) compare(ctx context.Context, w workload, subjects []*subject) workloadResult {
	result := workloadResult{Name: w.name, Title: w.title, Unit: w.unit}
	for _, s := range subjects {
		result.Results = append(result.Results, measurement{Subject: s.name, Values: []float64{}})
	}
	_, _ = b.repeat(ctx, subjects[0], w.body) // thrown away; an error comes again in round 0
	for round := range b.config.Rounds {
		for _, i := range stats.Rotated(len(subjects), round) {
			m := &result.Results[i]
			if m.Problem != "" || (w.serverOnly && subjects[i].name == reference) {
				continue
			}
			value, err := b.repeat(ctx, subjects[i], w.body)
			if ctx.Err() != nil {
				return result // interrupted: there will be no report
			}
			if err != nil {
				m.Problem = oneLine(err)
				progress("  %s failed: %s", m.Subject, m.Problem)
				continue
			}
			m.Values = append(m.Values, value)
		}
	}
	return result
}

// progress goes to stderr: stdout is for the result.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

func describeMachine(dir string) machine {
	m := machine{Kernel: kernelRelease(), CPUs: runtime.NumCPU(), Filesystem: filesystemOf(dir)}
	m.CPU = procField("/proc/cpuinfo", "model name")
	if kb, err := strconv.Atoi(strings.TrimSuffix(procField("/proc/meminfo", "MemTotal"), " kB")); err == nil {
		m.MemoryMB = kb * 1024 / 1e6
	}
	return m
}

// procField is the first "name: value" of a file in /proc; empty if there is none.
func procField(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// filesystemOf is the type of the mount that dir is in, by its device number as
// /proc/self/mountinfo prints it; "unknown" where that says nothing (btrfs).
func filesystemOf(dir string) string {
	dev, err := deviceOf(dir)
	if err != nil {
		return "unknown"
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	want := fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	for lines := bufio.NewScanner(f); lines.Scan(); {
		mount, kind, _ := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(mount); len(fields) > 2 && fields[2] == want && kind != "" {
			return strings.Fields(kind)[0]
		}
	}
	return "unknown"
}
