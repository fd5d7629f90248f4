package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"time"
)

// Measures of the picture, in user units (pixels at its natural size).
const (
	svgWidth   = 860.0
	plotLeft   = 232.0 // where the labels end
	plotRight  = svgWidth - 56
	headHeight = 92.0
	barHeight  = 8.0
	barPitch   = 10.0
	rowGap     = 9.0
	footHeight = 34.0
)

// barColors are told apart also by people who do not see red and green apart, and
// on both backgrounds. Subjects take them in order; lamina's come first.
var barColors = []string{"#2f6fed", "#17b3c1", "#e8871e", "#b65fcf", "#8b8f98", "#c2a83e", "#d1495b", "#5b8c5a"}

// picture draws one report. The picture brings its own background, light or dark
// as the viewer prefers, so that its text is legible on any page.
type picture struct {
	buf      bytes.Buffer
	subjects []subjectInfo // all but the reference, those of lamina first
	rows     []pictureRow
	axis     axis
}

// pictureRow is one group of bars; a ratio of 0 is a missing bar.
type pictureRow struct {
	label  string
	bold   bool
	ratios []float64
}

// axis is a logarithmic scale between two powers of two around 1.
type axis struct{ low, high float64 }

// axisFor covers all ratios, and at least half to twice the reference.
func axisFor(rows []pictureRow) axis {
	low, high := -1.0, 1.0
	for _, row := range rows {
		for _, r := range row.ratios {
			if r > 0 {
				low = math.Min(low, math.Floor(math.Log2(r)))
				high = math.Max(high, math.Ceil(math.Log2(r)))
			}
		}
	}
	return axis{low, high}
}

func (a axis) x(ratio float64) float64 {
	return plotLeft + (math.Log2(ratio)-a.low)/(a.high-a.low)*(plotRight-plotLeft)
}

// renderSVG draws one group of bars per workload that has a ratio, the geometric
// means on top. Bars start at the line of the reference: to the right is slower.
func renderSVG(r *report) []byte {
	p := newPicture(r)
	height := headHeight + footHeight
	for range p.rows {
		height += p.rowHeight()
	}
	p.open(r, height)
	p.legend()
	p.grid(height)
	y := headHeight
	for _, row := range p.rows {
		p.row(row, y)
		y += p.rowHeight()
	}
	p.text(16, height-12, "note", "start", memoryNote(r))
	p.buf.WriteString("</svg>\n")
	return p.buf.Bytes()
}

func newPicture(r *report) *picture {
	p := &picture{subjects: picturedSubjects(r)}
	mean := pictureRow{label: "geometric mean", bold: true}
	for _, s := range p.subjects {
		o, _ := r.mean(s.Name)
		mean.ratios = append(mean.ratios, o.GeometricMean)
	}
	p.rows = append(p.rows, mean)
	for i := range r.Workloads {
		w := &r.Workloads[i]
		row := pictureRow{label: w.Title}
		any := false
		for _, s := range p.subjects {
			ratio := 0.0
			if m := w.of(s.Name); m.measured() {
				ratio = m.Ratio
			}
			any = any || ratio > 0
			row.ratios = append(row.ratios, ratio)
		}
		if any {
			p.rows = append(p.rows, row)
		}
	}
	p.axis = axisFor(p.rows)
	return p
}

// picturedSubjects are those with ratios. Our own are put first, so that their
// colours do not depend on how many peers a machine has.
func picturedSubjects(r *report) []subjectInfo {
	var own, others []subjectInfo
	for _, s := range r.measuredSubjects() {
		switch s.Name {
		case reference:
		case "lamina", "lamina-passthrough":
			own = append(own, s)
		default:
			others = append(others, s)
		}
	}
	return append(own, others...)
}

func (p *picture) rowHeight() float64 {
	return barPitch*float64(max(1, len(p.subjects))) + rowGap
}

func (p *picture) open(r *report, height float64) {
	fmt.Fprintf(&p.buf, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img" font-family="system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif">
<title>Union filesystems: time relative to kernel overlayfs</title>
<style>
.card{fill:#ffffff;stroke:#d0d7de}.head{font-size:16px;font-weight:600;fill:#1f2328}.label{font-size:12px;fill:#1f2328}
.bold{font-size:12px;font-weight:700;fill:#1f2328}.note{font-size:11px;fill:#59636e}.value{font-size:9px;fill:#424a53}
.grid{stroke:#d8dee4;stroke-width:1}.one{stroke:#1f2328;stroke-width:1.5}
@media (prefers-color-scheme:dark){.card{fill:#0d1117;stroke:#3d444d}.head,.label,.bold{fill:#f0f6fc}.note{fill:#9198a1}
.value{fill:#c9d1d9}.grid{stroke:#30363d}.one{stroke:#f0f6fc}}
</style>
<rect class="card" x="0.5" y="0.5" width="%.0f" height="%.0f" rx="8"/>
`, svgWidth, height, svgWidth, height, svgWidth-1, height-1)
	p.text(16, 26, "head", "start", "Time relative to kernel overlayfs: shorter is faster")
	sub := fmt.Sprintf("as %s, rounds: %d, Linux %s, %s, %d CPUs, %s", r.user(), r.Rounds, r.Machine.Kernel,
		r.Machine.Filesystem, r.Machine.CPUs, r.Started.Format(time.DateOnly))
	if r.Quick {
		sub += ", quick run: sizes too small for conclusions"
	}
	p.text(16, 44, "note", "start", sub)
}

// legend names the colours in one line.
func (p *picture) legend() {
	x := 16.0
	for i, s := range p.subjects {
		fmt.Fprintf(&p.buf, `<rect x="%.1f" y="54" width="11" height="11" rx="2" fill="%s"/>`+"\n", x, colorOf(i))
		p.text(x+16, 64, "label", "start", s.Name)
		x += 16 + 7*float64(len(s.Name)) + 20
	}
}

// grid draws a line and a number for each power of two, and the reference.
func (p *picture) grid(height float64) {
	for e := p.axis.low; e <= p.axis.high; e++ {
		class := "grid"
		if e == 0 {
			class = "one"
		}
		ratio := math.Exp2(e)
		x := p.axis.x(ratio)
		fmt.Fprintf(&p.buf, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x, headHeight-4, x, height-footHeight)
		label := fmt.Sprintf("%g×", ratio)
		if e < 0 {
			label = fmt.Sprintf("1/%g", 1/ratio)
		}
		if e == 0 {
			label = "kernel"
		}
		p.text(x, headHeight-9, "note", "middle", label)
	}
}

// row draws a label and its bars, each from the reference to its ratio.
func (p *picture) row(row pictureRow, y float64) {
	class := "label"
	if row.bold {
		class = "bold"
	}
	p.text(plotLeft-12, y+(p.rowHeight()-rowGap)/2+4, class, "end", row.label)
	one := p.axis.x(1)
	for i, ratio := range row.ratios {
		if ratio <= 0 {
			continue
		}
		x := p.axis.x(ratio)
		left, width := math.Min(one, x), math.Abs(x-one)
		top := y + float64(i)*barPitch
		fmt.Fprintf(&p.buf, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.0f" rx="1" fill="%s"/>`+"\n",
			left, top, math.Max(width, 1), barHeight, colorOf(i))
		p.text(math.Max(one, x)+4, top+barHeight-1, "value", "start", fmt.Sprintf("%.2f", ratio))
	}
}

// text writes s escaped: names of peers come from the command line.
func (p *picture) text(x, y float64, class, anchor, s string) {
	fmt.Fprintf(&p.buf, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">`, class, x, y, anchor)
	_ = xml.EscapeText(&p.buf, []byte(s)) // a bytes.Buffer accepts everything
	p.buf.WriteString("</text>\n")
}

func colorOf(i int) string {
	return barColors[i%len(barColors)]
}

// memoryNote is the one result that is no ratio, as a line.
func memoryNote(r *report) string {
	note := ""
	for i := range r.Workloads {
		w := &r.Workloads[i]
		if w.Unit == "s" {
			continue
		}
		for _, s := range picturedSubjects(r) {
			if m := w.of(s.Name); m.measured() {
				if note == "" {
					note = w.Title + ": "
				} else {
					note += ", "
				}
				note += s.Name + " " + quantity(m.Span.Median, w.Unit)
			}
		}
	}
	return note
}
