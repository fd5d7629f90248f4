package stats

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Results are the seconds that subjects took for workloads, one value for each round.
type Results struct {
	Workloads []string                        `json:"workloads"`
	Subjects  []string                        `json:"subjects"`
	Seconds   map[string]map[string][]float64 `json:"seconds"`   // by workload and subject
	Reference map[string]string               `json:"reference"` // by workload: the subject whose time is 1
	Problems  map[string]string               `json:"problems,omitempty"`
	Notes     []string                        `json:"notes,omitempty"` // about the run: how large, on what
}

// NewResults returns results without values.
func NewResults(subjects []string) *Results {
	return &Results{Subjects: subjects, Seconds: map[string]map[string][]float64{}, Reference: map[string]string{}, Problems: map[string]string{}}
}

// Measure runs a workload on the subjects that take part, round after round, each
// beginning with another one. once returns the seconds that it took.
func (r *Results) Measure(workload, reference string, takes func(subject string) bool, rounds int, once func(subject string) (float64, error)) {
	r.Workloads = append(r.Workloads, workload)
	r.Seconds[workload], r.Reference[workload] = map[string][]float64{}, reference
	for round := range rounds {
		for _, i := range Rotated(len(r.Subjects), round) {
			s := r.Subjects[i]
			if !takes(s) {
				continue
			}
			t, err := once(s)
			if err != nil {
				r.Problems[workload+" on "+s] = err.Error()
				continue
			}
			r.Seconds[workload][s] = append(r.Seconds[workload][s], t)
		}
	}
}

// Table shows medians, the reference's as a time and the others' as ratios to it,
// with the ends of the ratios within one round.
func (r *Results) Table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Time, relative to the first column that has one (less is faster); medians (ends of the pairs).\n\n%-36s", "workload")
	for _, s := range r.Subjects {
		fmt.Fprintf(&b, " %-19s", s)
	}
	b.WriteByte('\n')
	for _, w := range r.Workloads {
		b.WriteString(r.row(w))
		b.WriteByte('\n')
	}
	for _, what := range slices.Sorted(maps.Keys(r.Problems)) {
		fmt.Fprintf(&b, "not measured: %s: %s\n", what, r.Problems[what])
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "%s\n", n)
	}
	return b.String()
}

func (r *Results) row(w string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-36s", w)
	base := r.Seconds[w][r.Reference[w]]
	for _, s := range r.Subjects {
		cell := "-"
		switch v := r.Seconds[w][s]; {
		case len(v) == 0:
		case s == r.Reference[w]:
			cell = fmt.Sprintf("%.4g ms", 1e3*SpanOf(v).Median)
		case len(base) > 0:
			p := SpanOf(PairRatios(v, base))
			cell = fmt.Sprintf("%.2f (%.2f–%.2f)", SpanOf(v).Median/SpanOf(base).Median, p.Min, p.Max)
		}
		fmt.Fprintf(&b, " %-19s", cell)
	}
	return strings.TrimRight(b.String(), " ")
}

// Save writes the table and all values to files; "" is none.
func (r *Results) Save(text, jsonFile string) error {
	if text != "" {
		if err := os.WriteFile(text, []byte(r.Table()), 0o644); err != nil {
			return err
		}
	}
	if jsonFile == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(jsonFile, append(b, '\n'), 0o644)
}
