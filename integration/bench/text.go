package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// renderText is the table for people: the time of the reference, and for each
// other subject the ratio of medians with the extremes of the per-round ratios.
func renderText(r *report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", headline(r))
	subjects := r.measuredSubjects()
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := []string{"workload"}
	for _, s := range subjects {
		row = append(row, s.Name)
	}
	fmt.Fprintln(w, strings.Join(row, "\t"))
	for i := range r.Workloads {
		l := &r.Workloads[i]
		row := []string{l.Title}
		for _, s := range subjects {
			row = append(row, cell(l, l.of(s.Name)))
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	row = []string{"geometric mean"}
	for _, s := range subjects {
		row = append(row, meanCell(r, s.Name))
	}
	fmt.Fprintln(w, strings.Join(row, "\t"))
	_ = w.Flush() // a strings.Builder accepts everything
	b.WriteString(notes(r))
	return trimLines(b.String())
}

// headline says where, when and how.
func headline(r *report) string {
	size := fmt.Sprintf("rounds: %d", r.Rounds)
	if r.Quick {
		size += ", quick (sizes too small for conclusions)"
	}
	m := r.Machine
	return fmt.Sprintf("Time relative to kernel overlayfs (less is faster), as %s, %s.\nLinux %s, %d × %s, %d MB, %s, %s.",
		r.user(), size,
		m.Kernel, m.CPUs, m.CPU, m.MemoryMB, m.Filesystem, r.Started.Format(time.DateOnly))
}

func cell(w *workloadResult, m *measurement) string {
	switch {
	case m == nil:
		return "-"
	case m.Problem != "":
		return "failed"
	case len(m.Values) == 0:
		return "-"
	case m.Subject == reference || m.Ratio == 0:
		return quantity(m.Span.Median, w.Unit)
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", m.Ratio, m.Pairs.Min, m.Pairs.Max)
}

func meanCell(r *report, subject string) string {
	o, ok := r.mean(subject)
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%.2f of %d", o.GeometricMean, o.Workloads)
}

// quantity prints a value with its unit, seconds as milliseconds when short.
func quantity(v float64, unit string) string {
	switch {
	case unit != "s":
		return fmt.Sprintf("%.1f %s", v, unit)
	case v < 0.1:
		return fmt.Sprintf("%.2f ms", v*1e3)
	case v < 10:
		return fmt.Sprintf("%.0f ms", v*1e3)
	}
	return fmt.Sprintf("%.1f s", v)
}

// notes names what was measured and everything that was not, with its reason.
func notes(r *report) string {
	var b strings.Builder
	b.WriteString("\nMeasured:\n")
	for _, s := range r.measuredSubjects() {
		fmt.Fprintf(&b, "  %s: %s\n", s.Name, s.Version)
	}
	var missing strings.Builder
	for _, s := range r.Subjects {
		if s.Problem != "" {
			fmt.Fprintf(&missing, "  %s: %s\n", s.Name, s.Problem)
		}
	}
	for i := range r.Workloads {
		for _, m := range r.Workloads[i].Results {
			if m.Problem != "" {
				fmt.Fprintf(&missing, "  %s, %s: %s\n", m.Subject, r.Workloads[i].Title, m.Problem)
			}
		}
	}
	if missing.Len() > 0 {
		b.WriteString("Not measured:\n" + missing.String())
	}
	return b.String()
}

// renderDetails lists medians and extremes of every pair. Where the ratio of
// medians and the median of ratios differ, the machine was not steady.
func renderDetails(r *report) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "workload\tsubject\tmedian\tmin\tmax\tratio of medians\tmedian of ratios\tmin\tmax")
	for i := range r.Workloads {
		l := &r.Workloads[i]
		for j := range l.Results {
			m := &l.Results[j]
			if !m.measured() {
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s", l.Name, m.Subject,
				quantity(m.Span.Median, l.Unit), quantity(m.Span.Min, l.Unit), quantity(m.Span.Max, l.Unit))
			if m.Ratio > 0 {
				fmt.Fprintf(w, "\t%.3f\t%.3f\t%.3f\t%.3f", m.Ratio, m.Pairs.Median, m.Pairs.Min, m.Pairs.Max)
			}
			fmt.Fprintln(w)
		}
	}
	_ = w.Flush() // a strings.Builder accepts everything
	return trimLines(b.String())
}

// trimLines takes off the padding that tabwriter leaves at the ends of lines.
func trimLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
