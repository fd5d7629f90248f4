package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/laminafs/lamina/integration/stats"
)

// reference is the subject whose time is 1.
const reference = "kernel"

// report is everything that a run found out. It is also the format of the JSON
// output; renderers work from it alone.
type report struct {
	Started   time.Time        `json:"started"`
	Machine   machine          `json:"machine"`
	Rootless  bool             `json:"rootless"`
	Quick     bool             `json:"quick"`
	Rounds    int              `json:"rounds"`
	Subjects  []subjectInfo    `json:"subjects"`
	Workloads []workloadResult `json:"workloads"`
	Overall   []overall        `json:"overall,omitempty"`
}

// machine is where the run took place.
type machine struct {
	Kernel     string `json:"kernel"`
	CPU        string `json:"cpu"`
	CPUs       int    `json:"cpus"`
	MemoryMB   int    `json:"memory_mb"`
	Filesystem string `json:"filesystem"`
}

// subjectInfo says what was measured, or why it was not.
type subjectInfo struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Problem string `json:"problem,omitempty"`
}

// workloadResult holds the measurements of one workload, one per subject.
type workloadResult struct {
	Name    string        `json:"name"`
	Title   string        `json:"title"`
	Unit    string        `json:"unit"` // "s" or "MB"
	Results []measurement `json:"results"`
}

// measurement is what one subject did in one workload. Values has one entry per
// round, in the order of rounds; it is short when Problem is set.
type measurement struct {
	Subject string    `json:"subject"`
	Values  []float64 `json:"values"`
	Problem string    `json:"problem,omitempty"`

	Span  stats.Span `json:"span"`
	Ratio float64    `json:"ratio,omitempty"`      // of medians
	Pairs stats.Span `json:"pair_ratios,omitzero"` // per round
}

// overall is the geometric mean of the ratios of one subject.
type overall struct {
	Subject       string  `json:"subject"`
	GeometricMean float64 `json:"geometric_mean"`
	Workloads     int     `json:"workloads"` // that it is over
}

// summarize computes every derived number from the values.
func (r *report) summarize() {
	ratios := map[string][]float64{}
	for i := range r.Workloads {
		w := &r.Workloads[i]
		base := w.of(reference)
		for j := range w.Results {
			m := &w.Results[j]
			m.Span = stats.SpanOf(m.Values)
			m.Ratio, m.Pairs = 0, stats.Span{}
			if !base.measured() || !m.measured() {
				continue
			}
			m.Pairs = stats.SpanOf(stats.PairRatios(m.Values, base.Values))
			m.Ratio = m.Span.Median / stats.SpanOf(base.Values).Median
			ratios[m.Subject] = append(ratios[m.Subject], m.Ratio)
		}
	}
	r.Overall = nil
	for _, s := range r.Subjects {
		if n := len(ratios[s.Name]); n > 0 {
			r.Overall = append(r.Overall, overall{s.Name, stats.GeometricMean(ratios[s.Name]), n})
		}
	}
}

// of gives the measurement of a subject, or nil.
func (w *workloadResult) of(subject string) *measurement {
	for i := range w.Results {
		if w.Results[i].Subject == subject {
			return &w.Results[i]
		}
	}
	return nil
}

// measured says whether m has values that can be compared: one for each round run.
func (m *measurement) measured() bool {
	return m != nil && m.Problem == "" && len(m.Values) > 0
}

// measuredSubjects are the subjects that took part, the reference first.
func (r *report) measuredSubjects() []subjectInfo {
	var list []subjectInfo
	for _, s := range r.Subjects {
		if s.Problem == "" {
			list = append(list, s)
		}
	}
	return list
}

func (r *report) mean(subject string) (overall, bool) {
	for _, o := range r.Overall {
		if o.Subject == subject {
			return o, true
		}
	}
	return overall{}, false
}

// user is who mounted, in words.
func (r *report) user() string {
	if r.Rootless {
		return "an ordinary user"
	}
	return "root"
}

func (r *report) encode() ([]byte, error) {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode results: %w", err)
	}
	return append(data, '\n'), nil
}

// readReport reads what encode wrote and computes the derived numbers anew, so
// that they follow the values even in a file that was put together by hand.
func readReport(name string) (*report, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read results: %s is not the JSON output of a run: %w", name, err)
	}
	r.summarize()
	return &r, nil
}
