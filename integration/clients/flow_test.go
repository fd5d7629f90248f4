//go:build integration

package clients

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// A flow is the life of an image over one engine. Its steps record what a user
// could see, in the words of this package and so that it does not depend on when
// or where the flow ran.
type flow struct {
	*client
	t       testing.TB // of the step that runs
	began   time.Time
	records map[string][]record // by step
	step    string
	times   map[string]time.Duration
}

// A record is lines to compare, under a name for messages.
type record struct {
	what  string
	lines []string
}

// A step has a name and does one thing that people do with clients.
type step struct {
	name string
	do   func(*flow)
}

// steps are in order: each works on what those before it left.
var steps = []step{
	{"import", (*flow).importBase},
	{"build", (*flow).build},
	{"look inside", (*flow).lookInside},
	{"mount", (*flow).mountImage},
	{"run and diff", (*flow).runAndDiff},
	{"commit", (*flow).commit},
	{"other engine", (*flow).otherEngine},
	{"restart", (*flow).restart},
	{"five at once", (*flow).fiveAtOnce},
	{"buildah", (*flow).buildah},
	{"overlay volumes", (*flow).overlayVolumes},
	{"prune", (*flow).prune},
}

// A user gets from lamina what the same client gets from kernel overlayfs.
func TestFlowLikeKernelOverlay(t *testing.T) {
	eachAccount(t, func(t *testing.T, a account) {
		need(t, "podman", "buildah", "crun", "conmon", "busybox")
		kernel, err := runFlow(t, a, kernelEngine)
		if err != nil {
			t.Fatal(err)
		}
		lamina, err := runFlow(t, a, laminaEngine())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range steps {
			t.Run(s.name, func(t *testing.T) { compare(t, kernel.records[s.name], lamina.records[s.name]) })
		}
		reportTimes(t, append([]*flow{kernel, lamina}, runPeer(t, a)...))
	})
}

// runFlow takes all steps in turn, up to the first that fails.
func runFlow(t *testing.T, a account, e engine) (*flow, error) {
	f := &flow{client: newClient(t, a, e), records: map[string][]record{}, times: map[string]time.Duration{}}
	f.began = time.Now()
	for _, s := range steps {
		f.step = s.name
		start := time.Now()
		if !t.Run(s.name+" over "+e.name, func(t *testing.T) { f.t = t; s.do(f) }) {
			return nil, fmt.Errorf("the steps after %q are not taken", s.name)
		}
		f.times[s.name] = time.Since(start)
	}
	f.t = t
	f.checkIdle(t)
	return f, nil
}

// record keeps lines for comparison with the other engine.
func (f *flow) record(what string, lines []string) {
	f.records[f.step] = append(f.records[f.step], record{what, lines})
}

// compare fails the test with the lines that only one side has.
func compare(t *testing.T, want, got []record) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d records over kernel overlayfs, %d over lamina", len(want), len(got))
	}
	for i := range want {
		sameLines(t, want[i].what, want[i].lines, got[i].lines)
	}
}

// sameLines fails the test with the lines that only one of two lists has. Files
// with several names are left to [flow.checkLinks]: podman has kernel overlayfs
// mounted with index=off, and a name of a lower file loses the others when it
// changes.
func sameLines(t testing.TB, what string, want, got []string) {
	t.Helper()
	missing, extra := difference(want, got), difference(got, want)
	if len(missing)+len(extra) > 0 {
		t.Errorf("%s:\nmissing:\n\t%s\ntoo much:\n\t%s", what, strings.Join(first(missing), "\n\t"), strings.Join(first(extra), "\n\t"))
	}
}

// difference returns the lines of a that b does not have.
func difference(a, b []string) []string {
	has := map[string]bool{}
	for _, line := range b {
		has[line] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(line string) bool { return has[line] || strings.Contains(line, "/data/links/") })
}

// first shortens a list that nobody would read to its end.
func first(lines []string) []string {
	const enough = 20
	if len(lines) > enough {
		return append(slices.Clone(lines[:enough]), fmt.Sprintf("and %d more", len(lines)-enough))
	}
	return lines
}

// runPeer runs the flow through the program that LAMINA_PEER names, for its times.
func runPeer(t *testing.T, a account) []*flow {
	peer := os.Getenv("LAMINA_PEER")
	if peer == "" {
		return nil
	}
	f, err := runFlow(t, a, engine{"peer", peer, 0x65735546})
	if err != nil {
		t.Logf("%s: %v", peer, err)
		return nil
	}
	return []*flow{f}
}

// reportTimes prints a table of what each step took.
func reportTimes(t *testing.T, flows []*flow) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%-18s", "seconds")
	for _, f := range flows {
		fmt.Fprintf(&b, "%18s", f.engine.name)
	}
	for _, s := range steps {
		fmt.Fprintf(&b, "\n%-18s", s.name)
		for _, f := range flows {
			fmt.Fprintf(&b, "%18.2f", f.times[s.name].Seconds())
		}
	}
	t.Log("\n" + b.String())
}
