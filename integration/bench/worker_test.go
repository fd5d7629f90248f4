package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var tiny = scale{dirs: 9, files: 120, bigMB: 1, sources: 2, manyDirs: 2, manyPerDir: 3}

func testBench(t *testing.T, rounds int) *bench {
	t.Helper()
	dir := t.TempDir()
	tree, err := makeTree(filepath.Join(dir, "layers"), tiny)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{config: config{Rounds: rounds, Limit: time.Minute}, scale: tiny, scratch: dir, tree: tree}
}

func TestLayersAreTheSameInEveryRun(t *testing.T) {
	a, b := testBench(t, 1).tree, testBench(t, 1).tree
	if !slices.Equal(a.files, b.files) || a.bytes != b.bytes {
		t.Fatal("two trees of one scale differ in names or sizes")
	}
	for i := range a.layers {
		for _, name := range a.files {
			x, errX := os.ReadFile(filepath.Join(a.layers[i], name))
			y, errY := os.ReadFile(filepath.Join(b.layers[i], name))
			if (errX == nil) != (errY == nil) || string(x) != string(y) {
				t.Fatalf("layer %d: %s differs", i, name)
			}
		}
	}
}

func TestLayersHaveMergedDirectoriesAndHiddenFiles(t *testing.T) {
	tree := testBench(t, 1).tree
	merged, hidden := map[string]int{}, 0
	for _, dir := range tree.dirs {
		for _, l := range tree.layers {
			if _, err := os.Stat(filepath.Join(l, dir)); err == nil {
				merged[dir]++
			}
		}
	}
	for _, name := range tree.files {
		n := 0
		for _, l := range tree.layers {
			if _, err := os.Stat(filepath.Join(l, name)); err == nil {
				n++
			}
		}
		if n > 1 {
			hidden++
		}
	}
	if merged[tree.dirs[0]] != layerCount || merged[tree.dirs[1]] > 2 || hidden == 0 {
		t.Errorf("merged: %v, hidden files: %d", merged, hidden)
	}
}

// flatten builds by hand what a union of the layers shows.
func flatten(t *testing.T, tree *tree) string {
	t.Helper()
	dir := t.TempDir()
	for _, l := range slices.Backward(tree.layers) {
		err := filepath.WalkDir(l, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(l, path)
			if err != nil {
				return err
			}
			target := filepath.Join(dir, rel)
			switch {
			case d.IsDir():
				return os.MkdirAll(target, 0o755)
			case d.Type() == os.ModeSymlink:
				return os.Symlink("x", target)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(target, data, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCheckAcceptsTheUnionAndNothingLess(t *testing.T) {
	tree := testBench(t, 1).tree
	dir := flatten(t, tree)
	if err := tree.check(t.Context(), dir); err != nil {
		t.Fatalf("the right tree is refused: %v", err)
	}
	name := filepath.Join(dir, tree.files[0])
	if err := os.WriteFile(name, []byte("hidden version\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := tree.check(t.Context(), dir); err == nil {
		t.Error("a file of a lower layer shows through and check does not see it")
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := tree.check(t.Context(), dir); err == nil {
		t.Error("a file is missing and check does not see it")
	}
}

func TestSubjectsTakeTurnsAndAFailureCostsOnlyItsOwn(t *testing.T) {
	b := testBench(t, 3)
	subjects := []*subject{{name: reference}, {name: "good"}, {name: "bad"}}
	var turns []string
	w := workload{name: "w", unit: "s", body: func(r *repetition) error {
		turns = append(turns, r.subject.name)
		if r.subject.name == "bad" {
			return errors.New("broken")
		}
		left, err := os.ReadDir(r.stack.upper)
		if err != nil || len(left) > 0 {
			return fmt.Errorf("the upper is not fresh: %v, %v", left, err)
		}
		if err := os.WriteFile(filepath.Join(r.stack.upper, "used"), nil, 0o600); err != nil {
			return err
		}
		return r.measure(func() error { time.Sleep(time.Millisecond); return nil })
	}}
	result := b.compare(t.Context(), w, subjects)
	want := []string{"kernel", "kernel", "good", "bad", "good", "kernel", "kernel", "good"}
	if !slices.Equal(turns, want) {
		t.Errorf("turns %v, want %v", turns, want)
	}
	for _, m := range result.Results {
		if m.Subject == "bad" {
			if !strings.Contains(m.Problem, "broken") {
				t.Errorf("bad: problem %q", m.Problem)
			}
		} else if len(m.Values) != 3 || m.Problem != "" {
			t.Errorf("%s: %d values, problem %q", m.Subject, len(m.Values), m.Problem)
		}
	}
	if _, err := os.Stat(filepath.Join(b.scratch, "rw")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the upper is still there: %v", err)
	}
}

func TestAProgramThatMountsNothingIsReportedWithItsMessage(t *testing.T) {
	b := testBench(t, 1)
	b.config.Subjects = ".*"
	liar := &subject{name: "liar", command: func(stack) []string { return []string{"sh", "-c", "echo first; echo no device >&2; exit 3"} }}
	gone := &subject{name: "gone", problem: "not in PATH"}
	var r report
	if usable := b.probe(t.Context(), &r, []*subject{liar, gone}); len(usable) != 0 {
		t.Fatalf("%d subjects are usable", len(usable))
	}
	if p := r.Subjects[0].Problem; !strings.Contains(p, "no device") || !strings.Contains(p, "exit status 3") {
		t.Errorf("problem %q", p)
	}
	if p := r.Subjects[1].Problem; p != "not in PATH" {
		t.Errorf("problem %q", p)
	}
}

func TestARepetitionThatHangsIsGivenUp(t *testing.T) {
	b := testBench(t, 1)
	b.config.Limit = 50 * time.Millisecond
	start := time.Now()
	_, err := b.repeat(t.Context(), &subject{name: "slow"}, func(r *repetition) error {
		return r.measure(func() error { return r.run("/", "sleep", "60") })
	})
	if err == nil || !strings.Contains(err.Error(), "--limit") || time.Since(start) > 30*time.Second {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
}

func TestInterruptedLoopsStop(t *testing.T) {
	b := testBench(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	_, err := b.repeat(ctx, &subject{name: "s"}, func(r *repetition) error {
		return r.measure(func() error {
			return r.each(r.tree.files, func(string) error { calls++; cancel(); return nil })
		})
	})
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("error %v after %d calls", err, calls)
	}
}

func TestRemoveTreeOpensWhatAWorkloadClosed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	if err := writeFile(filepath.Join(dir, "b/c/f"), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "b"), 0); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

func TestParentOfReadsCommandsWithParentheses(t *testing.T) {
	for stat, want := range map[string]int{
		"12 (cat) S 7 12 12": 7, "12 (a ) R 9 (b) S 8 1": 8, "12 (cat)": 0, "": 0,
	} {
		if got := parentOf(stat); got != want {
			t.Errorf("parentOf(%q) = %d, want %d", stat, got, want)
		}
	}
}

func TestStatusKiB(t *testing.T) {
	if got := statusKiB("Name:\tx\nVmHWM:\t  99 kB\nVmRSS:\t   1234 kB\n", "VmRSS"); got != 1234 {
		t.Errorf("got %v", got)
	}
	if got := statusKiB("Name:\tx\nState:\tZ (zombie)\n", "VmRSS"); got != 0 {
		t.Errorf("a zombie has %v", got)
	}
}

func TestPeersOfTheCommandLine(t *testing.T) {
	cmd, err := parseCommand([]string{"--peer", "2.0=/opt/f=o", "--peer=pt=/x,passthrough=1,a=b", "--quick"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := []peer{{Name: "2.0", Path: "/opt/f=o"}, {Name: "pt", Path: "/x", Options: "passthrough=1,a=b"}}
	if !slices.Equal(cmd.config.Peers, want) || cmd.config.Rounds != 3 {
		t.Errorf("got %+v, %d rounds", cmd.config.Peers, cmd.config.Rounds)
	}
}

func TestBadCommandLinesAreRefused(t *testing.T) {
	for _, args := range [][]string{
		{"--peer", "name"}, {"--only", "("}, {"--only", "no such workload"}, {"--subjects", "["},
		{"--rounds", "-1"}, {"walk"}, {"--rootless", "--uid", "0"},
	} {
		if _, err := parseCommand(args, io.Discard); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

func TestWorkloadNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, w := range workloads {
		if seen[w.name] || w.title == "" || w.body == nil {
			t.Errorf("workload %q is named twice or incomplete", w.name)
		}
		seen[w.name] = true
	}
}
