package driverbench

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A Report is what was measured, and on what.
type Report struct {
	System   System            `json:"system"`
	Sizes    Sizes             `json:"sizes"`
	Rounds   int               `json:"rounds"`
	Subjects []Subject         `json:"subjects"`
	Rows     []*Row            `json:"rows"`
	Problems map[string]string `json:"problems,omitempty"` // by row and subject
}

// A System is the machine.
type System struct {
	Kernel     string    `json:"kernel"`
	Processors int       `json:"processors"`
	Memory     int64     `json:"memory"` // bytes
	Filesystem string    `json:"filesystem"`
	User       int       `json:"user"`
	At         time.Time `json:"at"`
}

// A Subject is a driver with an engine.
type Subject struct {
	Name   string `json:"name"` // DRIVER/ENGINE
	Driver string `json:"driver"`
	Engine string `json:"engine"`
	// Missing says why it could not be had, "" when it was measured.
	Missing string `json:"missing,omitempty"`
}

// The units of values.
const (
	Seconds = "s"
	Bytes   = "bytes"
	Files   = "files"
)

// A Row is one thing that was measured.
type Row struct {
	Name   string               `json:"name"`
	Help   string               `json:"help"`
	Unit   string               `json:"unit"`
	Values map[string][]float64 `json:"values"` // by subject, one for each round
}

// Median returns the middle of a subject's values; false when it has none.
func (r *Row) Median(subject string) (float64, bool) {
	v := slices.Sorted(slices.Values(r.Values[subject]))
	if len(v) == 0 {
		return 0, false
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2, true
}

// least is below what can be told apart, by unit: smaller values are as good as it.
var least = map[string]float64{Seconds: 100e-6, Bytes: 64 << 10, Files: 4}

// ratio returns how many times the best subject's value a subject has.
func (r *Row) ratio(subject string) (float64, bool) {
	own, ok := r.Median(subject)
	if !ok {
		return 0, false
	}
	best := math.Inf(1)
	for s := range r.Values {
		if v, ok := r.Median(s); ok {
			best = min(best, max(v, least[r.Unit]))
		}
	}
	return max(own, least[r.Unit]) / best, true
}

func (r *Report) row(name string) *Row {
	i := slices.IndexFunc(r.Rows, func(r *Row) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return r.Rows[i]
}

// measured are the names of the subjects that have values.
func (r *Report) measured() (names []string) {
	for _, s := range r.Subjects {
		if s.Missing == "" {
			names = append(names, s.Name)
		}
	}
	return names
}

// A Use is something that people choose a driver for.
type Use struct {
	Name string   `json:"name"`
	Rows []string `json:"rows"` // what matters to it
}

// Uses are those that the report gives advice on.
var Uses = []Use{
	{"many containers of one image", []string{rowCreate, rowDelete, rowMany, rowManyDisk, rowManyCache}},
	{"images of many layers", []string{rowDeepCreate, rowDeepWalk, rowDeepWalkAgain}},
	{"building: many small files", []string{rowSmallFiles, rowWalkAgain, rowRemoveSmall, rowFirstSmall}},
	{"databases, machine images: large files changed in place", []string{rowFirstBig, rowRandom}},
	{"large files, from the beginning to the end", []string{rowSequentialWrite, rowSequentialRead}},
}

// A Place is how a subject does for a use: 1 is the best in everything.
type Place struct {
	Subject string  `json:"subject"`
	Score   float64 `json:"score"`
}

// Ranking returns the subjects by how well they suit a use, the best first. Those that
// lack one of its rows are left out.
func (r *Report) Ranking(u Use) (places []Place) {
subjects:
	for _, s := range r.measured() {
		sum, n := 0.0, 0
		for _, name := range u.Rows {
			row := r.row(name)
			if row == nil || len(row.Values) == 0 {
				continue // nobody has it
			}
			ratio, ok := row.ratio(s)
			if !ok {
				continue subjects
			}
			sum, n = sum+math.Log(ratio), n+1
		}
		if n > 0 {
			places = append(places, Place{s, math.Exp(sum / float64(n))})
		}
	}
	slices.SortStableFunc(places, func(a, b Place) int {
		switch {
		case a.Score < b.Score:
			return -1
		case a.Score > b.Score:
			return 1
		}
		return 0
	})
	return places
}

// Text returns the report as a table for terminals.
func (r *Report) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Linux %s, %d processors, %s of memory, on %s; user %d; %d rounds. Medians; in brackets how many times the best.\n\n",
		r.System.Kernel, r.System.Processors, bytesText(float64(r.System.Memory)), r.System.Filesystem, r.System.User, r.Rounds)
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprint(w, "\t")
	subjects := r.measured()
	fmt.Fprintln(w, strings.Join(subjects, "\t"))
	for _, row := range r.Rows {
		cells := []string{row.Name}
		for _, s := range subjects {
			cell := "-"
			if v, ok := row.Median(s); ok {
				ratio, _ := row.ratio(s)
				cell = fmt.Sprintf("%s (%.3g)", valueText(v, row.Unit), ratio)
			}
			cells = append(cells, cell)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	w.Flush()
	b.WriteString("\nWhat suits which use, from these numbers (1 is the best in every row that matters):\n")
	for _, u := range Uses {
		fmt.Fprintf(&b, "  %s: %s\n", u.Name, placesText(r.Ranking(u)))
	}
	for _, s := range r.Subjects {
		if s.Missing != "" {
			fmt.Fprintf(&b, "not measured: %s: %s\n", s.Name, s.Missing)
		}
	}
	for _, what := range slices.Sorted(maps.Keys(r.Problems)) {
		fmt.Fprintf(&b, "failed: %s: %s\n", what, r.Problems[what])
	}
	return b.String()
}

func placesText(places []Place) string {
	if len(places) == 0 {
		return "nothing was measured"
	}
	var list []string
	for _, p := range places {
		list = append(list, fmt.Sprintf("%s %.2f", p.Subject, p.Score))
	}
	return strings.Join(list, ", ")
}

// valueText shows a value with its unit.
func valueText(v float64, unit string) string {
	switch unit {
	case Seconds:
		switch {
		case v < 1e-3:
			return fmt.Sprintf("%.3g µs", v*1e6)
		case v < 1:
			return fmt.Sprintf("%.3g ms", v*1e3)
		}
		return fmt.Sprintf("%.3g s", v)
	case Bytes:
		return bytesText(v)
	}
	return fmt.Sprintf("%.0f", v)
}

func bytesText(v float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for math.Abs(v) >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%.3g %s", v, units[i])
}
