package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/laminafs/lamina/integration/stats"
)

// sample has a subject twice as slow as the reference in one workload and four
// times as fast in the other, one that failed, one that is missing, and a value
// that the kernel does not have.
func sample() *report {
	r := &report{
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Rounds: 3,
		Machine:  machine{Kernel: "6.1", CPU: "some CPU", CPUs: 2, MemoryMB: 1000, Filesystem: "ext4"},
		Subjects: []subjectInfo{{Name: "kernel", Version: "k"}, {Name: "a<b", Version: "1.2"}, {Name: "lamina", Version: "3"}, {Name: "gone", Problem: "not in PATH"}},
		Workloads: []workloadResult{
			{Name: "walk", Title: "walk & stat", Unit: "s", Results: []measurement{
				{Subject: "kernel", Values: []float64{0.010, 0.020, 0.030}},
				{Subject: "a<b", Values: []float64{0.020, 0.040, 0.090}},
				{Subject: "lamina", Values: []float64{0.010, 0.020, 0.030}},
			}},
			{Name: "read", Title: "read", Unit: "s", Results: []measurement{
				{Subject: "kernel", Values: []float64{4, 4, 4}},
				{Subject: "a<b", Values: []float64{1, 1, 1}},
				{Subject: "lamina", Values: []float64{2}, Problem: "input/output error"},
			}},
			{Name: "memory", Title: "server memory", Unit: "MB", Results: []measurement{
				{Subject: "kernel", Values: []float64{}},
				{Subject: "a<b", Values: []float64{12, 13, 14}},
				{Subject: "lamina", Values: []float64{7, 7, 7}},
			}},
		},
	}
	r.summarize()
	return r
}

func TestSummarizeComparesWithTheKernelRoundByRound(t *testing.T) {
	r := sample()
	m := r.Workloads[0].of("a<b")
	if m.Ratio != 2 || m.Pairs != (stats.Span{Min: 2, Median: 2, Max: 0.090 / 0.030}) {
		t.Errorf("ratio %v, pairs %v; want 2 and 2, 2, 3", m.Ratio, m.Pairs)
	}
	if o, ok := r.mean("a<b"); !ok || o.Workloads != 2 || math.Abs(o.GeometricMean-math.Sqrt(0.5)) > 1e-12 {
		t.Errorf("mean of 2 and 1/4 is %v, %v", o, ok)
	}
}

// A subject that failed half-way must not enter the mean with the rounds it had.
func TestSummarizeLeavesOutWhatFailed(t *testing.T) {
	r := sample()
	if m := r.Workloads[1].of("lamina"); m.Ratio != 0 {
		t.Errorf("a failed measurement has the ratio %v", m.Ratio)
	}
	if o, _ := r.mean("lamina"); o.Workloads != 1 {
		t.Errorf("mean over %d workloads, want 1", o.Workloads)
	}
}

func TestTextShowsRatiosAndEveryReason(t *testing.T) {
	text := renderText(sample())
	for _, want := range []string{
		"20.00 ms", "2.00 (2.00–3.00)", "0.25 (0.25–0.25)", "failed", "13.0 MB", "0.71 of 2",
		"a<b: 1.2", "gone: not in PATH", "lamina, read: input/output error", "as root", "rounds: 3",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasSuffix(strings.TrimSuffix(line, "\n"), " ") {
			t.Errorf("line ends in spaces: %q", line)
		}
	}
}

func TestDetailsShowBothMedians(t *testing.T) {
	details := renderDetails(sample())
	if !strings.Contains(details, "2.000") || !strings.Contains(details, "3.000") {
		t.Errorf("ratio of medians or extreme of ratios is missing:\n%s", details)
	}
	for line := range strings.Lines(details) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "read" && f[1] == "lamina" {
			t.Errorf("a failed measurement is shown: %s", line)
		}
	}
}

func TestQuantityUnits(t *testing.T) {
	for want, got := range map[string]string{
		"0.50 ms": quantity(0.0005, "s"), "500 ms": quantity(0.5, "s"),
		"12.5 s": quantity(12.5, "s"), "63.0 MB": quantity(63, "MB"),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestQuickRunsAreMarkedEverywhere(t *testing.T) {
	r := sample()
	r.Quick, r.Rootless = true, true
	for name, out := range map[string]string{"table": renderText(r), "picture": string(renderSVG(r))} {
		if !strings.Contains(out, "too small for conclusions") || !strings.Contains(out, "an ordinary user") {
			t.Errorf("%s does not say that the run was quick and rootless", name)
		}
	}
}

func TestPictureIsWellFormedAndLegibleOnDarkPages(t *testing.T) {
	svg := renderSVG(sample())
	texts := map[string]bool{}
	inText := false
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v\n%s", err, svg)
		}
		switch token := token.(type) {
		case xml.StartElement:
			inText = token.Name.Local == "text"
		case xml.EndElement:
			inText = false
		case xml.CharData:
			if inText {
				texts[string(token)] = true
			}
		}
	}
	for _, want := range []string{"walk & stat", "a<b", "lamina", "kernel", "geometric mean", "2.00", "0.25", "server memory: lamina 7.0 MB, a<b 13.0 MB"} {
		if !texts[want] {
			t.Errorf("no text %q in the picture", want)
		}
	}
	if !bytes.Contains(svg, []byte("prefers-color-scheme:dark")) {
		t.Error("the picture has no colours for dark pages")
	}
}

func TestPictureDrawsSlowerToTheRightAndFasterToTheLeft(t *testing.T) {
	a := axisFor([]pictureRow{{ratios: []float64{0.3, 5, 0}}})
	if a != (axis{-2, 3}) {
		t.Fatalf("axis %v, want 1/4 to 8", a)
	}
	if a.x(0.25) != plotLeft || a.x(8) != plotRight {
		t.Errorf("ends at %v and %v, want %v and %v", a.x(0.25), a.x(8), plotLeft, plotRight)
	}
	if fast, one, slow := a.x(0.5), a.x(1), a.x(2); math.Abs((one-fast)-(slow-one)) > 1e-9 || fast >= one {
		t.Errorf("half and twice lie at %v and %v around %v", fast, slow, one)
	}
}

func TestJSONGivesTheSameReportBack(t *testing.T) {
	want := sample()
	data, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "r.json")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := readReport(name)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestReadReportNamesAFileThatIsNone(t *testing.T) {
	name := filepath.Join(t.TempDir(), "r.json")
	if err := os.WriteFile(name, []byte("workload kernel"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readReport(name); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("got %v, want an error that names the file", err)
	}
}
