package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/laminafs/lamina/integration/vm/machine"
)

// A report reads what the machine says.
type report struct {
	out    io.Writer
	strict bool // tests that have to pass were asked for
	over   bool
	fault  string

	current int
	ended   map[int]string // by test binary: how it ended
	results []result
}

type result struct {
	binary  int
	verdict string // PASS, FAIL, SKIP
	name    string
}

func newReport(out io.Writer, strict bool) *report {
	return &report{out: out, strict: strict, current: -1, ended: map[int]string{}}
}

var verdictLine = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \(`)

// line takes one. All are shown.
func (r *report) line(l string) {
	l = strings.TrimRight(l, "\r\n")
	own, ok := strings.CutPrefix(l, machine.Mark)
	if !ok {
		fmt.Fprintln(r.out, l)
		if m := verdictLine.FindStringSubmatch(l); m != nil {
			r.results = append(r.results, result{r.current, m[1], m[2]})
		}
		return
	}
	verb, rest, _ := strings.Cut(own, " ")
	number, cause, _ := strings.Cut(rest, " ")
	switch verb {
	case "start":
		r.current, _ = strconv.Atoi(number)
	case "end":
		r.ended[r.current] = cause
	case "fail":
		r.fault = rest
		fmt.Fprintln(r.out, "the machine cannot go on:", rest)
	case "over":
		r.over = true
	}
}

// where says what runs now.
func (r *report) where() string {
	if r.current < 0 {
		return "its start"
	}
	return fmt.Sprintf("test binary %d", r.current)
}

// end prints what passed, and returns what did not.
func (r *report) end(job machine.Job) error {
	if r.fault != "" {
		return fmt.Errorf("the machine could not go on: %s", r.fault)
	}
	var wrong []string
	count := map[string]int{}
	for i, t := range job.Tests {
		passed := map[string]bool{}
		for _, v := range r.results {
			if v.binary != i {
				continue
			}
			count[v.verdict]++
			passed[v.name] = passed[v.name] || v.verdict == "PASS"
			if v.verdict == "FAIL" {
				wrong = append(wrong, fmt.Sprintf("%s: %s failed", t.Package, v.name))
			}
		}
		if cause, ok := r.ended[i]; !ok {
			wrong = append(wrong, t.Package+" did not run to its end")
		} else if cause != "" && !slices.ContainsFunc(r.results, func(v result) bool { return v.binary == i && v.verdict == "FAIL" }) {
			wrong = append(wrong, t.Package+": "+cause)
		}
		for _, name := range t.Must {
			if r.strict && !passed[name] {
				wrong = append(wrong, fmt.Sprintf("%s: %s has not passed, for which the machine was started", t.Package, name))
			}
		}
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", count["PASS"], count["FAIL"], count["SKIP"])
	if len(wrong) > 0 {
		return fmt.Errorf("%s", strings.Join(wrong, "\n    "))
	}
	return nil
}
