package driverbench

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivertest"
)

func TestMain(m *testing.M) {
	drivertest.BeServer()
	os.Exit(m.Run())
}

// Every workload gives every subject its values, and nothing is left behind.
func TestRunMeasuresAndLeavesNothing(t *testing.T) {
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("no FUSE for this user: %v", err)
	} else {
		f.Close()
	}
	// On a disk each sync would wait for what all other tests write.
	dir := t.TempDir()
	if os.Geteuid() == 0 {
		if d, err := os.MkdirTemp("/dev/shm", "lamina-bench-test-"); err == nil {
			dir = d
			t.Cleanup(func() { os.RemoveAll(d) })
		}
	}
	tiny := Sizes{Big: 1 << 20, Shared: 1 << 20, Sequential: 1 << 20, Small: 70, Depth: 3, Containers: 2, Random: 3}
	r, err := Run(context.Background(), Config{
		Dir: dir, Drivers: []string{"overlay2", "vfs", "nonsense"}, Engines: []driver.Engine{driver.Userspace}, Rounds: 2, Sizes: tiny, Alone: true,
		Servers: drivertest.Servers, PoolServer: drivertest.PoolCommand,
	})
	if err != nil || len(r.Problems) > 0 {
		t.Fatalf("%v; %v", err, r.Problems)
	}
	for _, row := range r.Rows {
		for _, s := range []string{"overlay2/userspace", "vfs/userspace"} {
			if n := len(row.Values[s]); n != 2 && (n != 0 || row.Name != rowManyCache) {
				t.Errorf("%s of %s: %d values, want 2", row.Name, s, n)
			}
		}
	}
	if r.Subjects[2].Missing == "" {
		t.Errorf("a driver that does not exist: %+v", r.Subjects[2])
	}
	if left, err := filepath.Glob(dir + "/*"); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
	for _, u := range Uses {
		if got := r.Ranking(u); len(got) != 2 {
			t.Errorf("%s: ranked %v", u.Name, got)
		}
		for _, name := range u.Rows {
			if r.row(name) == nil {
				t.Errorf("%s counts %q, which is no row", u.Name, name)
			}
		}
	}
}

// Who follows the advice should get what was faster in the rows that matter, and never
// a driver that lacks one of them.
func TestRankingIsThatOfTheNumbers(t *testing.T) {
	r := &Report{
		Subjects: []Subject{{Name: "a/x"}, {Name: "b/x"}, {Name: "c/x"}, {Name: "d/x", Missing: "no such kernel"}},
		Rows: []*Row{
			{Name: "one", Unit: Seconds, Values: map[string][]float64{"a/x": {1, 100, 1}, "b/x": {2, 2, 2}, "c/x": {1}}},
			{Name: "two", Unit: Seconds, Values: map[string][]float64{"a/x": {8}, "b/x": {1}}},
			{Name: "tiny", Unit: Bytes, Values: map[string][]float64{"a/x": {0}, "b/x": {60}, "c/x": {1000}}},
		},
	}
	places := r.Ranking(Use{"u", []string{"one", "two", "tiny"}})
	var names []string
	for _, p := range places {
		names = append(names, p.Subject)
	}
	if !slices.Equal(names, []string{"b/x", "a/x"}) {
		t.Errorf("ranked %v", places)
	}
	// 2 × the best, the best, and what cannot be told apart: the mean is the cube root.
	if got := places[0].Score; got < 1.25 || got > 1.27 {
		t.Errorf("score %v, want 2^(1/3)", got)
	}
	text := r.Text()
	for _, want := range []string{"2 s (2)", "not measured: d/x: no such kernel"} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
}

// What went wrong stands in the page as text, whatever it says.
func TestPageHoldsAllAndNothingFromElsewhere(t *testing.T) {
	r := &Report{
		Subjects: []Subject{{Name: "a/x"}, {Name: "b/x", Missing: "<script>alert(1)</script>"}},
		Rows:     []*Row{{Name: "one", Help: "help & help", Unit: Seconds, Values: map[string][]float64{"a/x": {0.5}}}},
		Problems: map[string]string{"one": "<b>"},
	}
	var b strings.Builder
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{"500 ms", "help &amp; help", "&lt;script&gt;alert(1)", "&lt;b&gt;"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, not := range []string{"<script", "http://", "https://", "src="} {
		if strings.Contains(page, not) {
			t.Errorf("the page has %q", not)
		}
	}
}
