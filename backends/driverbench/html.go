package driverbench

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Parse(page))

// A chart is a row of the report as bars.
type chart struct {
	Name, Help string
	Bars       []bar
}

// A bar shows a subject's middle value, and the ends of its rounds.
type bar struct {
	Subject, Text, Times string
	Width                float64 // percent of the longest
	Low, High            float64 // the ends, percent
	Best                 bool
}

// advice is a use with its ranking.
type advice struct {
	Name   string
	Best   string
	Others string
	Rows   string
}

// HTML writes the report as one page that needs nothing else.
func (r *Report) HTML(w io.Writer) error {
	data := struct {
		*Report
		When, Memory string
		Charts       []chart
		Uses         []advice
		Missing      []Subject
	}{Report: r, When: r.System.At.Format("2006-01-02 15:04 MST"), Memory: bytesText(float64(r.System.Memory))}
	for _, row := range r.Rows {
		if c := r.chart(row); len(c.Bars) > 0 {
			data.Charts = append(data.Charts, c)
		}
	}
	for _, u := range Uses {
		places := r.Ranking(u)
		if len(places) == 0 {
			continue
		}
		a := advice{Name: u.Name, Best: placesText(places[:1]), Others: placesText(places[1:]), Rows: strings.Join(u.Rows, "; ")}
		if len(places) == 1 {
			a.Others = ""
		}
		data.Uses = append(data.Uses, a)
	}
	for _, s := range r.Subjects {
		if s.Missing != "" {
			data.Missing = append(data.Missing, s)
		}
	}
	return pageTemplate.Execute(w, data)
}

func (r *Report) chart(row *Row) chart {
	c := chart{Name: row.Name, Help: row.Help}
	longest := least[row.Unit]
	for _, v := range row.Values {
		longest = max(longest, slices.Max(v))
	}
	for _, s := range r.measured() {
		v, ok := row.Median(s)
		if !ok {
			continue
		}
		ratio, _ := row.ratio(s)
		percent := func(v float64) float64 { return math.Round(1000*v/longest) / 10 }
		c.Bars = append(c.Bars, bar{
			Subject: s, Text: valueText(v, row.Unit), Times: strconv.FormatFloat(ratio, 'g', 3, 64) + " ×",
			Width: percent(v), Low: percent(slices.Min(row.Values[s])), High: percent(slices.Max(row.Values[s])), Best: ratio < 1.05,
		})
	}
	return c
}

// Describe says what the sizes are, for people.
func (s Sizes) Describe() string {
	return fmt.Sprintf("an image with %d files of 4 KiB, one of %s and one of %s; a deep image of %d layers; %d containers at once; a file of %s, and %d writes at random",
		s.Small, bytesText(float64(s.Shared)), bytesText(float64(s.Big)), s.Depth, s.Containers, bytesText(float64(s.Sequential)), s.Random)
}
